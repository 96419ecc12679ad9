"""The embedded server: found, private, restarted in place, never twice on a store, never left."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from nats_server import until

from lender.link import embedded
from lender.link.api import JetStream
from lender.link.connection import ConnectError, connect
from lender.link.embedded import (
    EmbeddedServer,
    ServerFailedError,
    ServerNotFoundError,
    StoreInUseError,
    find_server,
)


async def test_serves_jetstream_synced_to_disk_on_the_loopback_only(nats: EmbeddedServer) -> None:
    assert nats.url.startswith("nats://127.0.0.1:")
    config = nats.folder / "nats.conf"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(nats.folder.stat().st_mode) == 0o700
    assert "sync_interval: always" in config.read_text()
    async with await connect(nats.url, name="t", timeout_s=5) as connection:
        assert connection.nc.max_payload == embedded.MAX_PAYLOAD_BYTES
        assert (await JetStream(connection).call("INFO"))["streams"] == 0


async def test_a_killed_server_comes_back_on_the_same_port_with_its_store(
    nats: EmbeddedServer,
) -> None:
    url, pid = nats.url, nats.pid
    async with await connect(url, name="t", timeout_s=5) as connection:
        await JetStream(connection).ensure_stream({"name": "S", "subjects": ["s"]})
        await connection.request("s", b"kept")
    nats.kill()
    assert nats.pid is None
    await nats.start()
    assert nats.url == url
    assert nats.pid not in (None, pid)
    async with await connect(url, name="t", timeout_s=5) as connection:
        assert (await JetStream(connection).stream_state("S")).messages == 1


async def test_whoever_waits_for_its_end_hears_of_each(nats: EmbeddedServer) -> None:
    for end in (nats.kill, nats.stop):
        await nats.start()
        waiting = asyncio.create_task(nats.ended())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        if (ending := end()) is not None:
            await ending
        await asyncio.wait_for(waiting, 20)
        assert nats.pid is None
    await asyncio.wait_for(nats.ended(), 20)


async def test_stop_ends_it_and_may_be_repeated(nats: EmbeddedServer) -> None:
    pid = nats.pid
    assert pid is not None
    await nats.stop()
    await nats.stop()
    assert nats.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_stop_that_is_not_obeyed_becomes_a_kill(nats: EmbeddedServer) -> None:
    assert nats.pid is not None
    os.kill(nats.pid, signal.SIGSTOP)
    await nats.stop(grace_s=0.05)
    assert nats.pid is None


async def test_a_second_server_on_the_store_is_refused(nats: EmbeddedServer) -> None:
    config = (nats.folder / "nats.conf").read_text()
    with pytest.raises(StoreInUseError, match="mend: stop it"):
        await EmbeddedServer(nats.folder).start()
    assert (nats.folder / "nats.conf").read_text() == config
    async with await connect(nats.url, name="t", timeout_s=5):
        pass


async def test_a_taken_port_is_reported_with_the_servers_words(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    with pytest.raises(ServerFailedError, match="address already in use"):
        await EmbeddedServer(tmp_path / "other", port=nats.port).start()


async def test_a_server_that_never_serves_is_given_up_and_ended(tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    server = EmbeddedServer(tmp_path / "store", program=mute, ready_timeout_s=0.2)
    with pytest.raises(ServerFailedError, match="not ready within"):
        await server.start()
    assert server.pid is None


async def test_extra_configuration_reaches_the_server(tmp_path: Path) -> None:
    secured = EmbeddedServer(tmp_path / "s", extra_config='authorization { token: "t" }')
    async with secured:
        with pytest.raises(ConnectError, match=r"uthorization|reset by peer"):
            await connect(secured.url, name="t", timeout_s=0.4)


def test_without_any_server_the_error_names_the_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert find_server().name == "nats-server"  # still found through the wheel's own record
    monkeypatch.setattr(embedded.importlib.metadata, "files", lambda _: None)
    with pytest.raises(ServerNotFoundError, match=r"pip install 'lender\[server\]'"):
        find_server()
    with pytest.raises(ServerNotFoundError, match="is no program"):
        find_server(tmp_path / "absent")


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's own")
async def test_it_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys, pathlib\n"
        "from lender.link.embedded import EmbeddedServer\n"
        "async def main():\n"
        "    server = EmbeddedServer(pathlib.Path(sys.argv[1]))\n"
        "    await server.start()\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, tmp_path / "store", stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    await until(lambda: not _runs(pid))
    async with EmbeddedServer(tmp_path / "store"):  # and its store is free again
        pass


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
