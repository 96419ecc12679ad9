"""Broker, submitter and the command line where a server lets people in by a password."""

from pathlib import Path

import pytest
from broker_parts import ALICE, BrokerProcess, until

from lender.cli.main import main
from lender.client import Client, KeyFault, NotAdmitted
from lender.link.embedded import EmbeddedServer
from lender.protocol.signature import seed_from_entropy

USERS = """
authorization { users: [
  { user: broker, password: first }
  { user: alice, password: second }
] }
"""


def private(path: Path, content: str) -> Path:
    path.write_text(content + "\n")
    path.chmod(0o600)
    return path


async def test_each_is_let_in_by_the_file_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = private(tmp_path / "alice.nk", seed_from_entropy(bytes([1] * 32)).decode())
    right = private(tmp_path / "alice.creds", "alice:second")
    wrong = private(tmp_path / "wrong.creds", "alice:first")
    theirs = private(tmp_path / "broker.creds", "broker:first")
    async with EmbeddedServer(tmp_path / "nats", extra_config=USERS) as server:
        broker = BrokerProcess(tmp_path / "broker", server.url, "--creds", str(theirs))
        try:
            broker.allow("alice", ALICE.public_key)
            await broker.start()
            async with Client(server.url, key, credentials=right) as client:
                job = await client.submit(["true"])
                assert (await client.get(job.id)).spec.argv == ("true",)
                await client.jobs()  # the broker answers
            with pytest.raises(NotAdmitted, match=r"does not take .*wrong\.creds"):
                async with Client(server.url, key, credentials=wrong, connect_timeout_s=1.0):
                    pass
            assert "second" not in broker.log()
        finally:
            broker.kill()
        right.chmod(0o644)
        monkeypatch.setenv("LENDER_CREDS", str(right))
        with pytest.raises(KeyFault, match="chmod 600"):
            async with Client(server.url, key):
                pass


def test_the_command_line_names_the_file_that_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = private(tmp_path / "alice.nk", seed_from_entropy(bytes([1] * 32)).decode())
    assert main(["jobs", "--key", str(key), "--creds", str(tmp_path / "none")]) == 1
    assert "none: No such file" in capsys.readouterr().err


async def test_a_broker_with_a_file_that_others_can_read_says_so_and_ends(tmp_path: Path) -> None:
    theirs = private(tmp_path / "broker.creds", "broker:first")
    theirs.chmod(0o644)
    broker = BrokerProcess(tmp_path / "broker", "nats://127.0.0.1:1", "--creds", str(theirs))
    broker.spawn()
    await until(lambda: not broker.alive, "its end")
    assert broker.process is not None
    assert broker.process.returncode == 1
    assert "chmod 600" in broker.log()
