"""What goes on over a network after the owner's word: a task fills whatever holds bytes before it.

`lender pause` and `lender revoke` as commands, with a lenderd that is dead, stopped or deaf.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from attacks import PYTHON
from owner_machine import ALICE, Machine, grant
from sandboxes import Workshop, needs_bubblewrap, open_folder, until, workshop

from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import PROXY_PORT, Network, SandboxPlan
from lender.sandbox.port import SandboxGoneError
from lender.sandbox.processes.tree import Root
from lender.state.attempt_records import AttemptRecord, AttemptRecords

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = [
    needs_bubblewrap,
    pytest.mark.skipif(PYTHON is None, reason="no python3 in /usr/bin"),
]

ASK = f"""
import socket, sys
made = socket.create_connection(("127.0.0.1", {PROXY_PORT}), 20)
made.sendall(f"CONNECT {{sys.argv[1]}} HTTP/1.1\\r\\n\\r\\n".encode())
assert made.recv(39).split()[1] == b"200"
made.settimeout(None)
"""
SENDS = "while True: made.sendall(b'x' * 65536)"
TAKES = "while True: made.recv(65536)"

LET_BY_BYTES = 512 << 10
"""Of a connection, at most: what the kernel takes in for a proxy that stands still, and a piece."""


class Peer:
    """A server of one connection, whose own buffers are small."""

    def __init__(self) -> None:
        self.door = socket.socket()
        self.door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
        self.door.bind(("127.0.0.1", 0))
        self.door.listen(1)
        self.door.setblocking(False)
        self.met: socket.socket | None = None

    @property
    def place(self) -> str:
        return f"files.example.org:{self.door.getsockname()[1]}"

    @property
    def network(self) -> Network:
        return Network((self.place,), pinned={"files.example.org": "127.0.0.1"})

    async def meet(self) -> socket.socket:
        self.met, _ = await asyncio.get_running_loop().sock_accept(self.door)
        return self.met

    def unread_bytes(self) -> int:
        assert self.met is not None
        (count,) = struct.unpack("i", fcntl.ioctl(self.met, termios.FIONREAD, bytes(4)))
        return int(count)

    def unacknowledged_bytes(self) -> int:
        assert self.met is not None
        (count,) = struct.unpack("i", fcntl.ioctl(self.met, termios.TIOCOUTQ, bytes(4)))
        return int(count)

    def read_all(self, quiet_s: float = 1.0) -> tuple[int, str]:
        """How many bytes still come, and how it ends: `reset`, `end` or `quiet`."""
        assert self.met is not None
        self.met.settimeout(quiet_s)
        came = 0
        try:
            while piece := self.met.recv(1 << 16):
                came += len(piece)
        except TimeoutError:
            return came, "quiet"
        except ConnectionResetError:
            return came, "reset"
        return came, "end"

    def close(self) -> None:
        self.door.close()
        if self.met is not None:
            self.met.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


@pytest_asyncio.fixture
async def machine(open_folder: Path) -> AsyncIterator[Machine]:
    made = Machine(open_folder / "state")
    yield made
    made.close()


@pytest.fixture(params=["dead", "stopped", "deaf"])
def daemon(request: pytest.FixtureRequest, machine: Machine) -> str:
    """What is left of lenderd."""
    if request.param != "dead":
        process = machine.daemon()
        if request.param == "stopped":
            os.kill(process.pid, signal.SIGSTOP)
        else:
            machine.state.control_socket.unlink()
    return str(request.param)


async def begin(workshop: Workshop, machine: Machine, peer: Peer, code: str) -> LeaseSandbox:
    """A task at work that has met its peer, with a record as lenderd writes it."""
    agreed = grant(machine.state, "G-1", ALICE, "command")
    plan: SandboxPlan = workshop.plan("process", "")
    argv = ("python3", "-I", "-c", ASK + code, peer.place)

    def record(root: Root) -> None:
        AttemptRecords(machine.state.attempts).write(
            AttemptRecord(
                "lease-0", "job-1", ALICE, "command", agreed.id, (root,),
                str(machine.state.scratch / "lease-0"),
            )
        )  # fmt: skip

    sandbox = workshop.sandbox(plan._replace(argv=argv, network=peer.network), record)
    await sandbox.prepare()
    return sandbox


async def standing_still(read: partial[int]) -> int:
    """A figure that does not change any more."""
    figure, since = read(), time.monotonic()
    while time.monotonic() - since < 0.5:
        await asyncio.sleep(0.05)
        if (now := read()) != figure:
            figure, since = now, time.monotonic()
    return figure


@contextlib.asynccontextmanager
async def at_work(sandbox: LeaseSandbox) -> AsyncIterator[None]:
    running = asyncio.create_task(sandbox.run(0))
    try:
        yield
    finally:
        await sandbox.close()
        with contextlib.suppress(SandboxGoneError):
            await running


async def test_nothing_that_a_revoked_task_has_sent_ahead_goes_on(
    workshop: Workshop, machine: Machine, peer: Peer, daemon: str
) -> None:
    """Its server reads slowly: everything between the two is full when the owner revokes."""
    sandbox = await begin(workshop, machine, peer, SENDS)
    async with at_work(sandbox):
        await peer.meet()
        await standing_still(partial(peer.unread_bytes))
        said = await asyncio.to_thread(machine.lender, "revoke", "--all")
        assert said.returncode == 0, said.stdout + said.stderr
        came, how = peer.read_all()
    assert how == "reset", f"the connection of a revoked task ({daemon}): {how}"
    assert came < LET_BY_BYTES


async def test_a_paused_task_sends_and_takes_next_to_nothing(
    workshop: Workshop, machine: Machine, peer: Peer, daemon: str
) -> None:
    sandbox = await begin(workshop, machine, peer, SENDS)
    async with at_work(sandbox):
        await peer.meet()
        await standing_still(partial(peer.unread_bytes))
        said = await asyncio.to_thread(machine.lender, "pause")
        assert "verified" in said.stdout, f"{daemon}: {said.stdout}{said.stderr}"
        came, how = peer.read_all()
    assert how == "quiet"
    assert came < LET_BY_BYTES


async def test_a_paused_task_is_sent_next_to_nothing(
    workshop: Workshop, machine: Machine, peer: Peer
) -> None:
    """Its server sends as fast as it can: the kernel takes little in for who stands still."""
    sandbox = await begin(workshop, machine, peer, TAKES)
    async with at_work(sandbox):
        met = await peer.meet()
        met.setblocking(False)
        sent = 0

        def send() -> None:
            nonlocal sent
            with contextlib.suppress(BlockingIOError):
                sent += met.send(bytes(1 << 16))

        loop = asyncio.get_running_loop()
        loop.add_writer(met, send)
        await until(lambda: sent > 64 << 20, "it flows, and the kernel has made room")
        said = await asyncio.to_thread(machine.lender, "pause")
        assert "verified" in said.stdout
        before = sent - peer.unacknowledged_bytes()
        after = await standing_still(partial(lambda: sent - peer.unacknowledged_bytes()))
        loop.remove_writer(met)
    assert after - before < LET_BY_BYTES
