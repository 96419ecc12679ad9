"""Many short leases with a network, some cut off in the middle: nothing is left of any.

LENDER_SOAK_NET_LEASES says how many, 20 by default: one thing left of each would show as well.
"""

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import pytest
from sandboxes import USER, Workshop, needs_bubblewrap, open_folder, until, workshop

from lender.daemon.network_meter import NetworkMeter
from lender.sandbox.plan import PROXY_PORT, Network
from lender.sandbox.port import SandboxGoneError
from lender.sandbox.processes import tree

__all__ = ["open_folder", "workshop"]  # fixtures
LEASES = int(os.environ.get("LENDER_SOAK_NET_LEASES", "20"))
pytestmark = [
    needs_bubblewrap,
    pytest.mark.skipif(not Path("/bin/bash").exists(), reason="no bash, which opens sockets"),
    pytest.mark.timeout(120 + 6 * LEASES),
]

AT_ONCE = 4
CONTENT = b"some content"
TASK = f"""
exec 3<>/dev/tcp/127.0.0.1/{PROXY_PORT}
printf 'GET http://{{place}}/ HTTP/1.1\\r\\n\\r\\n' >&3
cat <&3
"""
HANGS = TASK.replace("cat <&3", "cat <&3; read line <&3; sleep 60")


class Server:
    """Answers once on each connection, and counts those that are open."""

    def __init__(self) -> None:
        self.open = self.served = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(CONTENT)
                await writer.drain()
                self.served += 1
                writer.write_eof()
                await reader.read()
        finally:
            self.open -= 1
            writer.close()


def holdings(workshop: Workshop) -> dict[str, int]:
    """What a leak would add to, here and in the launcher."""
    launcher = workshop.launcher.pid
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - the number alone
        "threads": threading.active_count(),
        "launcher's descriptors": len(os.listdir(f"/proc/{launcher}/fd")),  # noqa: PTH208 - same
        "launcher's processes": len(tree.children(launcher)),
        "files": len(os.listdir(workshop.folder)),  # noqa: PTH208 - same
    }


async def lease(workshop: Workshop, number: int, port: int) -> None:
    """As an execution of lenderd's goes about it; each fifth is closed while it hangs."""
    hangs = number % 5 == 0
    place = f"files.example.org:{port}"
    scratch = workshop.folder / f"scratch-{number}"
    scratch.mkdir(mode=0o700)
    path = workshop.folder / f"{number}.moved"
    meter = NetworkMeter(path)
    meter.allow(1000)
    network = meter.of(Network((place,), pinned={"files.example.org": "127.0.0.1"}))
    if USER is not None:
        for one in (scratch, path):
            os.chown(one, *USER)
    script = (HANGS if hangs else TASK).format(place=place)
    plan = workshop.plan("process", "")._replace(
        lease=f"lease-{number}",
        argv=("bash", "-c", script),
        network=network,
        scratch=scratch,
    )
    sandbox = workshop.sandbox(plan)
    workshop.sandboxes.clear()  # this one is closed here
    await sandbox.prepare()
    running = asyncio.create_task(sandbox.run(0))
    if hangs:
        await until(lambda: meter.read().in_bytes > 0, "it has been served")
        await sandbox.close()
        with pytest.raises(SandboxGoneError):
            await running
    else:
        assert (await running).value == CONTENT
        await sandbox.close()
    assert meter.read().in_bytes == len(CONTENT)
    meter.close()
    scratch.rmdir()


async def test_nothing_is_left_of_many_leases_with_a_network(workshop: Workshop) -> None:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]

    async def some(first: int) -> None:
        for number in range(first, LEASES, AT_ONCE):
            await lease(workshop, number, port)

    await asyncio.gather(*(lease(workshop, LEASES + one, port) for one in range(AT_ONCE)))
    await until(lambda: server.open == 0, "the first connections are over")
    await until(lambda: not tree.children(workshop.launcher.pid), "and their processes")
    before = holdings(workshop)
    await asyncio.gather(*map(some, range(AT_ONCE)))
    await until(lambda: server.open == 0, "all connections are over")
    await until(lambda: not tree.children(workshop.launcher.pid), "no process is left")
    after = holdings(workshop)
    listening.close()
    # Threads for what blocks come as they are needed, up to a bound of the loop's own.
    before["threads"] = max(before["threads"], after["threads"])
    assert after == before
    assert server.served == LEASES + AT_ONCE
