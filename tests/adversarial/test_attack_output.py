"""Attacks by output: too much of it, too strange, to a reader who is late or not there."""

import asyncio
import fcntl
import json
import socket
import sys
import termios
from pathlib import Path

import pytest
from arena import Arena, in_one_loop
from attacks import Guest, tried_in
from sandboxes import LIMITS, until

from lender.sandbox.plan import STDERR_TAIL_BYTES, Runtime

pytestmark = in_one_loop

SMALL = LIMITS._replace(output_bytes=100)
MUCH = 200 << 20
# What the supervising process may grow by, whatever is written: a few buffers.
GROWTH_BYTES = 16 << 20


@pytest.mark.parametrize("ending", ["", "; sleep 60"])
@tried_in("process")
async def test_a_flood_is_cut(arena: Arena, runtime: Runtime, ending: str) -> None:
    assert runtime == "process"
    outcome = await arena.shell(f"head -c {MUCH} /dev/zero{ending}", SMALL)
    assert (outcome.limit, len(outcome.value)) == ("output", 100)


@tried_in("process")
async def test_a_line_without_an_end_is_a_flood_too(arena: Arena, runtime: Runtime) -> None:
    """On standard error all but its tail is thrown away, without being kept."""
    assert runtime == "process"
    script = f"head -c {MUCH} /dev/zero | tr '\\0' x >&2; printf end >&2"
    growth = asyncio.create_task(_growth_of_supervisor(arena))
    outcome = await arena.shell(script, SMALL)
    assert outcome.state == "succeeded"
    assert outcome.stderr_tail == b"x" * (STDERR_TAIL_BYTES - 3) + b"end"
    assert await _stopped(growth) < GROWTH_BYTES


async def _growth_of_supervisor(arena: Arena) -> int:
    """What memory of its own the newest sandbox's first process wins, until this is cancelled."""
    seen = []
    try:
        while True:
            await asyncio.sleep(0.01)
            seen += [_private_bytes(root.pid) for root in arena.workshop.roots[-1:]]
    except asyncio.CancelledError:
        return max(seen) - min(filter(None, seen))


async def _stopped(growth: "asyncio.Task[int]") -> int:
    growth.cancel()
    return await growth


def _private_bytes(pid: int) -> int:
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * 4096


@tried_in("wasm")
async def test_a_guests_flood_is_cut(arena: Arena, runtime: Runtime) -> None:
    for fd, limit in ((1, "output"), (2, "time")):
        guest = Guest()
        guest.then(
            f"(loop $l (drop (call $write (i32.const {fd}) (i32.const 0) (i32.const 65536)))"
            " (br $l))"
        )
        limits = SMALL._replace(time_s=0.3)
        growth = asyncio.create_task(_growth_of_supervisor(arena))
        sandbox = await arena.prepared(arena.plan(runtime, "", guest, limits=limits))
        outcome = await arena.run(sandbox)
        assert outcome.limit == limit
        assert len(outcome.value) <= 100
        assert len(outcome.stderr_tail) <= STDERR_TAIL_BYTES
        assert await _stopped(growth) < 2 * GROWTH_BYTES


@tried_in("process", "wasm")
async def test_a_reader_who_is_late_loses_nothing(arena: Arena, runtime: Runtime) -> None:
    """While the daemon hangs the sandbox waits with what it has, and no memory grows."""
    limits = LIMITS._replace(output_bytes=8 << 20)
    size = 4 << 20
    guest = Guest()
    for _ in range(size // 65536):
        guest.then("(drop (call $write (i32.const 1) (i32.const 0) (i32.const 65536)))")
    code = f"sys.stdout.write('x' * {size})"
    sandbox = await arena.prepared(arena.plan(runtime, code, guest, limits=limits))
    (root,) = sandbox.root_pids
    talk = sandbox._talk
    assert talk is not None
    child = talk.child
    loop = asyncio.get_running_loop()
    loop.remove_reader(child.channel)
    running = asyncio.create_task(arena.run(sandbox))
    await until(lambda: _readable_bytes(child.channel) > 0, "it has begun to answer")
    assert _private_bytes(root.pid) < 8 * limits.output_bytes
    loop.add_reader(child.channel, talk._on_readable)
    outcome = await running
    assert outcome.state == "succeeded", outcome.error
    assert len(outcome.value) >= size


def _readable_bytes(channel: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(channel, termios.FIONREAD, bytes(4)), sys.byteorder)


@tried_in("process")
async def test_closing_its_output_does_not_hide_it(arena: Arena, runtime: Runtime) -> None:
    """What nobody can hear any more is still watched, and still ends at its limit."""
    assert runtime == "process"
    limits = LIMITS._replace(time_s=0.3)
    outcome = await arena.shell("exec >&- 2>&-; while :; do :; done", limits)
    assert outcome.limit == "time"


NOISE = b"\x1b]0;owned\x07\x1b[2J\x00\xff\xfe\r\n\x9b31m"


@tried_in("process", "python", "oci")
async def test_what_it_says_stays_bytes(arena: Arena, runtime: Runtime) -> None:
    """Codes for a terminal, zeros and broken letters cross every hand unchanged, and harm none."""
    code = f"os.write(2, {NOISE!r}); os._exit(3)"
    plan = arena.plan(runtime, code)
    outcome = await arena.run(await arena.prepared(plan))
    assert outcome.state == "failed"
    if runtime == "process":
        assert outcome.stderr_tail == NOISE
    json.dumps(outcome.error)
    assert "\x1b" not in (outcome.error or "")
