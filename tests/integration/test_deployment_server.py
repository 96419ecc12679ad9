"""A server that is run by hand on what `lender-broker init` made: by TLS, and by nothing else."""

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from broker_command import broker_command
from broker_parts import ALICE, GUARD, BrokerProcess
from enrolling_fleet import Enrolling
from nats_server import until

from broker.deployment import certificates, contents
from broker.deployment.folder import Deployment
from broker.deployment.tokens import Key, decode
from lender.client import Client, NotAdmitted
from lender.link.connection import ConnectError, connect
from lender.link.credentials import CredentialsError, credentials
from lender.link.embedded import EmbeddedServer, find_server
from lender.link.membership import submitters_folder
from lender.protocol.signature import seed_from_entropy


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class HandRun:
    """nats-server with the deployment's own file, and a broker that uses it."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"nats://127.0.0.1:{port}"
        self.folder = folder
        self.broker = BrokerProcess(folder / "broker", self.url)
        said = broker_command("init", "--state", str(self.broker.folder), "--port", str(port))
        assert said.returncode == 0, said.stderr
        self.deployment = Deployment(folder / "broker" / "deployment")
        self.ca = self.deployment.folder / contents.AUTHORITY
        file = self.deployment.folder / contents.SERVER_FILE
        # Tests open no port to others.
        file.write_text(file.read_text().replace("0.0.0.0", "127.0.0.1"))
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen([find_server(), "-c", file], stdout=log, stderr=log)
        GUARD.watch(self.process.pid)

    def client(self, connect_timeout_s: float = 20.0) -> Client:
        """Alice's."""
        key = Key(seed_from_entropy(bytes([1] * 32)))
        file = self.folder / "alice.nk"
        file.write_bytes(key.seed)
        file.chmod(0o600)
        path = self.folder / "alice.creds"
        if not path.exists():
            self.credentials(key)
        return Client(
            self.url, file, credentials=path, ca=self.ca, connect_timeout_s=connect_timeout_s
        )

    def credentials(self, key: Key) -> Path:
        path = self.folder / "alice.creds"
        token = self.deployment.vouch("submitter", key.public, "alice", (), time.time())
        path.write_text(credentials(token, key.seed))
        path.chmod(0o600)
        return path


@pytest.fixture
async def by_hand(tmp_path: Path) -> AsyncIterator[HandRun]:
    one = HandRun(tmp_path)
    try:
        one.broker.allow("alice", ALICE.public_key)
        await one.broker.start()
        yield one
    finally:
        one.broker.kill()
        one.process.send_signal(signal.SIGKILL)
        one.process.wait()


async def test_all_is_said_by_tls_and_a_revoked_submitter_is_out(by_hand: HandRun) -> None:
    async with by_hand.client() as alice:
        job = await alice.submit(["true"])
        assert (await alice.get(job.id)).spec == job.spec
        async with asyncio.timeout(20):
            while len(await alice.jobs()) != 1:  # noqa: ASYNC110 - the broker reads along
                await asyncio.sleep(0.02)
        line = alice._session.connection
        revoke = ("revoke", ALICE.public_key, "--url", by_hand.url, "--ca", str(by_hand.ca))
        assert by_hand.broker.run(*revoke).returncode == 0
        await until(lambda: not line.connected, 1.0)
    with pytest.raises(NotAdmitted):
        async with by_hand.client(connect_timeout_s=1.0):
            pass
    assert by_hand.broker.alive


async def test_a_submitter_enrols_by_tls_and_then_needs_no_settings(by_hand: HandRun) -> None:
    key = by_hand.folder / "bob.nk"
    as_bob = ("--role", "submitter", "--name", "bob", "--key", str(key), "--json")
    ca = ("--ca", str(by_hand.ca))
    without = Enrolling(by_hand.url, (*as_bob, "--wait", "3s"), {}, "")
    with without:
        assert without.ended() == 5
        assert "name its ca.pem by --ca" in without.complaint()
    with Enrolling(by_hand.url, (*as_bob, *ca), {}, "") as enrolling:
        code = (await asyncio.to_thread(enrolling.document))["code"]
        said = by_hand.broker.run("approve", code, "--yes", "--url", by_hand.url, *ca)
        assert said.returncode == 0, said.stderr
        assert await asyncio.to_thread(enrolling.ended) == 0
    async with Client(key=key, connect_timeout_s=20) as bob:
        job = await bob.submit(["true"])
        assert (await bob.get(job.id)).spec == job.spec
        async with asyncio.timeout(20):
            while [one.job for one in await bob.jobs()] != [job.id]:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)

    # A later authority comes by itself with a new token, and is believed of a server that was.
    kept = submitters_folder(key) / "ca.pem"
    before = kept.read_text()
    assert by_hand.broker.run("rotate", "--authority").returncode == 0
    both = by_hand.ca.read_text()
    assert before != both
    with Enrolling(by_hand.url, (*as_bob, "--renew"), {}, "") as renewing:
        assert await asyncio.to_thread(renewing.ended) == 0, renewing.complaint()
    assert kept.read_text() == both
    async with Client(key=key, connect_timeout_s=20) as bob:
        assert [one.job for one in await bob.jobs()] == [job.id]
    assert sorted(one.name for one in kept.parent.iterdir()) == ["ca.pem", "fleet.creds", "url"]


async def test_another_broker_takes_over_with_the_same_rights(by_hand: HandRun) -> None:
    deployment = ("--deployment", str(by_hand.deployment.folder))
    second = BrokerProcess(by_hand.folder / "second", by_hand.url, *deployment)
    second.allow("alice", ALICE.public_key)
    second.spawn()
    try:
        await until(lambda: "standing by: broker" in second.log(), 20)
        async with by_hand.client() as alice:
            job = await alice.submit(["true"])
            by_hand.broker.kill()
            await until(second.ready_file.exists, 20)
            assert [one.job for one in await alice.jobs()] == [job.id]
            await job.cancel()
            assert (await job.ended(20)).state == "cancelled"
        assert await second.stop() == 0
        for one in (by_hand.broker, second):
            assert "ermissions" not in one.log()
    finally:
        second.kill()


async def test_a_server_that_nobody_vouches_for_gets_no_word(by_hand: HandRun) -> None:
    path = by_hand.credentials(Key.make("user", bytes(32)))
    other = by_hand.folder / "other.pem"
    other.write_text(certificates.make("other", ["127.0.0.1"], time.time()).authority)
    for ca in (other, None):
        with pytest.raises(ConnectError):
            await connect(by_hand.url, name="x", credentials=path, ca=ca, timeout_s=1.0)
    other.write_text("no certificate")
    with pytest.raises(CredentialsError, match="no certificates"):
        await connect(by_hand.url, name="x", credentials=path, ca=other, timeout_s=1.0)
    with pytest.raises(CredentialsError, match="can't read"):
        await connect(by_hand.url, name="x", ca=by_hand.folder / "none", timeout_s=1.0)


async def test_where_tls_was_asked_for_nothing_is_said_without(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    """Whoever stands between us and the server could have it seem to want no TLS."""
    ca = tmp_path / "ca.pem"
    ca.write_text(certificates.make("other", ["127.0.0.1"], time.time()).authority)
    with pytest.raises(ConnectError, match="offers no TLS"):
        await connect(nats.url, name="x", ca=ca, timeout_s=1.0)


def test_a_fleet_that_is_not_there_is_told_by_revoke(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path, "nats://127.0.0.1:1")
    assert broker_command("init", "--state", str(broker.folder)).returncode == 0
    said = broker.run("revoke", ALICE.public_key, "--url", f"nats://127.0.0.1:{free_port()}")
    assert said.returncode == 1
    assert "no NATS server" in said.stderr
    tokens = Deployment(tmp_path / "deployment").tokens()
    for account in ("core", "lenders", "submitters"):
        written = decode(tokens[account])["nats"]["revocations"]
        assert list(written) == [ALICE.public_key], "what starts later knows it"
    said = broker.run("revoke", "UX")
    assert said.returncode == 2
    assert "not a public nkey" in said.stderr
