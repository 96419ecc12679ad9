"""What a task writes to standard error reaches who watches it, while it runs and bounded."""

import asyncio
import time

import pytest
from sandboxes import LIMITS, Workshop, module, needs_bubblewrap, open_folder, until, workshop

from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.meters.task_log import BURST_BYTES, BYTES_PER_S
from lender.sandbox.plan import Runtime, SandboxPlan

__all__ = ["open_folder", "workshop"]  # fixtures
both = pytest.mark.parametrize("runtime", ["wasm", pytest.param("process", marks=needs_bubblewrap)])

WORKS_ON = {
    "wasm": module(
        "(drop (call $write (i32.const 2) (i32.const 256) (i32.const 5))) (loop $l (br $l))",
        "here\\0a",
    ),
    "process": "echo here >&2; while :; do :; done",
}
FLOODS = {
    "wasm": module(
        "(loop $l (drop (call $write (i32.const 2) (i32.const 0) (i32.const 4096))) (br $l))"
    ),
    "process": "while :; do printf %4096s x >&2; done",
}


def watched(workshop: Workshop, plan: SandboxPlan, told: list[tuple[int, bytes]]) -> LeaseSandbox:
    async def record(_roots: object) -> None:
        """Nobody revokes it."""

    made = LeaseSandbox(
        plan, workshop.launcher, record, on_log=lambda task, piece: told.append((task, piece))
    )
    workshop.sandboxes.append(made)
    return made


@both
async def test_a_line_is_told_while_its_task_runs(workshop: Workshop, runtime: Runtime) -> None:
    told: list[tuple[int, bytes]] = []
    sandbox = watched(workshop, workshop.plan(runtime, WORKS_ON[runtime]), told)
    await sandbox.prepare()
    running = asyncio.create_task(sandbox.run(3))
    await until(lambda: bool(told), "the line comes")
    assert told == [(3, b"here\n")]
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@both
async def test_a_flood_is_bounded_and_says_what_is_missing(
    workshop: Workshop, runtime: Runtime
) -> None:
    told: list[tuple[int, bytes]] = []
    limits = LIMITS._replace(time_s=1.0)
    sandbox = watched(workshop, workshop.plan(runtime, FLOODS[runtime], limits=limits), told)
    await sandbox.prepare()
    started = time.monotonic()
    outcome = await sandbox.run(0)
    took_s = time.monotonic() - started
    assert outcome.limit == "time"
    told_bytes = sum(len(piece) for _, piece in told)
    assert BURST_BYTES <= told_bytes <= BURST_BYTES + (took_s + 1) * BYTES_PER_S + 1000 * len(told)
    assert b"bytes left out]" in told[-1][1]
    assert len(told) <= took_s * 10 + 3


@both
async def test_who_does_not_watch_is_told_nothing(workshop: Workshop, runtime: Runtime) -> None:
    sandbox = await workshop.prepared(runtime, "fail")
    for task in range(2):
        outcome = await sandbox.run(task)
        assert (outcome.task, outcome.stderr_tail) == (task, b"bad")


@both
async def test_all_of_a_short_log_comes_before_its_outcome(
    workshop: Workshop, runtime: Runtime
) -> None:
    told: list[tuple[int, bytes]] = []
    sandbox = watched(workshop, workshop.plan(runtime, "fail"), told)
    await sandbox.prepare()
    for task in range(3):
        assert (await sandbox.run(task)).stderr_tail == b"bad"
        assert b"".join(piece for of, piece in told if of == task) == b"bad"
