"""Attacks by a sandbox's own process, should a guest ever take it over: it answers what it likes.

The daemon must neither hang nor break nor keep what it was sent, and must call the sandbox dead.
"""

import array
import asyncio
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import msgpack
import pytest
from arena import Arena, in_one_loop
from attacks import Guest, tried_in
from sandboxes import LIMITS

from lender.sandbox.frames import Frame, encode
from lender.sandbox.launcher import Child, Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Runtime, TaskOutcome, outcomes_to_wire
from lender.sandbox.port import SandboxGoneError

pytestmark = in_one_loop

HANGS_S = 40  # killed and reaped on a machine that is busy

GOOD, _ = outcomes_to_wire([TaskOutcome(task=0, state="succeeded", exit_code=0)])


def answer(body: bytes = b"", *, last: object = False, **changed: object) -> bytes:
    """An answer as a runner would give it, with some fields of its outcome changed."""
    columns = dict(zip(TaskOutcome._fields, GOOD, strict=True))
    columns |= {name: [value] for name, value in changed.items()}
    return encode(Frame({"outcomes": [*columns.values()], "last": last}, body))


def raw(header: bytes) -> bytes:
    """A frame with this header, whatever it is."""
    return struct.pack("!IIB", len(header), 0, 0) + header


ANSWERS = {
    "noise": os.urandom(1000),
    "a header without end": struct.pack("!IIB", 0xFFFFFFFF, 0, 0) + bytes(1000),
    "a body over its limit": struct.pack("!IIB", 2, 1 << 31, 0) + b"{}",
    "a body a little over its limit": encode(Frame({}, bytes(LIMITS.output_bytes + 10_000))),
    "descriptors that are not there": struct.pack("!IIB", 2, 0, 4) + b"{}",
    "no header": raw(b"\xc1"),
    "a header that is cut": raw(b"\x82"),
    "no text": raw(b"\x81\xa2\xff\xfe\x00"),
    "nested without end": raw(b"\x91" * 200_000),
    "nested names": raw(b"\x81\xa1a" * 200_000),
    "an array that would be huge": raw(b"\xdd\xff\xff\xff\xff"),
    "a type of its own": raw(b"\x81\xa4last\xc7\x04\x05abcd"),
    "names that are none": raw(msgpack.packb({1: 2})),
    "no object": raw(msgpack.packb([])),
    "nothing": raw(msgpack.packb({})),
    "no outcome": raw(msgpack.packb({"last": False})),
    "an outcome of another kind": raw(msgpack.packb({"last": False, "outcomes": [{"task": 0}]})),
    "outcomes of another kind": raw(msgpack.packb({"last": False, "outcomes": {"task": 0}})),
    "an empty outcome": raw(msgpack.packb({"last": False, "outcomes": [[]] * len(GOOD)})),
    "not one outcome": raw(msgpack.packb({"last": False, "outcomes": []})),
    "values in place of columns": raw(msgpack.packb({"last": False, "outcomes": [0] * len(GOOD)})),
    "columns of two lengths": raw(
        msgpack.packb({"last": False, "outcomes": [[0, 1, 2], [*GOOD[1], *GOOD[1]], *GOOD[2:]]})
    ),
    "a field that is none": answer(owner="me"),
    "a field too few": raw(msgpack.packb({"last": False, "outcomes": GOOD[:-1]})),
    "no word whether it is the last": raw(msgpack.packb({"outcomes": GOOD})),
    "a last of another kind": answer(last="no"),
    "another task": answer(task=7),
    "an unknown state": answer(state="owned"),
    "an unknown limit": answer(state="failed", limit="patience"),
    "a length of another kind": answer(value="x"),
    "a length below zero": answer(b"abc", value=-2),
    "more bytes than are an outcome's": answer(b"abc", value=2),
    "fewer bytes than are an outcome's": answer(b"abc", value=2, stderr_tail=2),
    "an exit code of another kind": answer(exit_code=[1]),
    "a duration that is no number": answer(duration_s=float("nan")),
    "a start that never was": answer(started_at=float("inf")),
    "a time below zero": answer(cpu_s=-1.0),
    "a time of another kind": answer(cpu_s="much"),
    "an error without end": answer(state="failed", error="x" * 3_000_000),
    "an error of another kind": answer(state="failed", error={"a": 1}),
}


class TakenOver:
    """A launcher whose child answers with these bytes; all else is the real one's."""

    def __init__(self, launcher: Launcher, said: bytes, descriptors: Sequence[int] = ()) -> None:
        self.launcher = launcher
        self.said, self.descriptors = said, descriptors
        self.opened: list[socket.socket] = []
        self.looks_ahead = False
        self._prepared = False
        self._saying: asyncio.Task[None] | None = None

    async def spawn(self, runtime: Runtime, cgroup: Path | None = None) -> Child:
        """A real held process, and a socket that leads elsewhere."""
        child = await self.launcher.spawn(runtime, cgroup)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.opened += [child.channel, theirs]
        asyncio.get_running_loop().add_reader(theirs, self._reply, theirs)
        return child._replace(channel=ours)

    async def go(self, child: Child, abort_if_exists: Sequence[Path] = ()) -> None:
        """Let it run: it waits for a plan for ever."""
        await self.launcher.go(child, abort_if_exists)

    def _reply(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if not sock.recv(1 << 20):
            loop.remove_reader(sock)
            return
        said, self._prepared = self.said if self._prepared else _PREPARED, True
        if self.descriptors and said is self.said:
            rights = array.array("i", self.descriptors)
            sent = sock.sendmsg([said[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            said = said[sent:]
        sock.setblocking(False)
        self._saying = loop.create_task(loop.sock_sendall(sock, said))

    def close(self) -> None:
        """Close all ends."""
        if self._saying is not None:
            self._saying.cancel()
        for sock in self.opened:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()


_PREPARED = encode(Frame({"prepared": True}))


async def _run(arena: Arena, runtime: Runtime, taken: TakenOver) -> None:
    made = LeaseSandbox(
        arena.plan(runtime, "", Guest()),
        taken,
        _forget,
        (),
        arena.workshop.cgroups,  # type: ignore[arg-type] # as Launcher
    )
    try:
        await made.prepare()
        await asyncio.wait_for(made.run(0), HANGS_S)
    finally:
        await made.close()
        taken.close()


async def _forget(_roots: object) -> None:
    """Nobody revokes it."""


@pytest.mark.parametrize("way", ANSWERS)
@tried_in("wasm")
async def test_a_false_answer_is_the_end_of_the_sandbox(
    arena: Arena, runtime: Runtime, way: str
) -> None:
    taken = TakenOver(arena.workshop.launcher, ANSWERS[way])
    with pytest.raises(SandboxGoneError):
        await _run(arena, runtime, taken)


@tried_in("wasm")
async def test_a_true_answer_passes(arena: Arena, runtime: Runtime) -> None:
    """The control: by the same way, what a runner says is heard."""
    await _run(arena, runtime, TakenOver(arena.workshop.launcher, answer()))


@tried_in("wasm")
async def test_descriptors_that_come_along_are_not_kept(arena: Arena, runtime: Runtime) -> None:
    """The arena counts the daemon's own."""
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        for said in (answer(), raw(b"[]")):
            taken = TakenOver(arena.workshop.launcher, said, [null] * 3)
            try:
                await _run(arena, runtime, taken)
            except SandboxGoneError:
                continue
    finally:
        os.close(null)


@tried_in("wasm")
async def test_answers_that_nobody_asked_for_are_dropped(arena: Arena, runtime: Runtime) -> None:
    many = answer() + answer(task=5) * 2000
    await _run(arena, runtime, TakenOver(arena.workshop.launcher, many))
