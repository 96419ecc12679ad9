"""SIGTERM to a wasm sandbox ends the task that runs, at once, and lets nothing begin any more."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from sandboxes import LIMITS, Workshop, module, open_folder, until, workshop

from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import TaskOutcome
from lender.sandbox.processes import tree

__all__ = ["open_folder", "workshop"]  # fixtures


async def stopped(sandbox: LeaseSandbox, task: int) -> TaskOutcome:
    """Run a task without end, and ask for its end once it was begun."""
    running = asyncio.create_task(sandbox.run(task))
    (root,) = sandbox.root_pids
    before = _wake_ups(root.pid)
    # The watcher wakes 200 times a second while a task runs, and not at all while none does.
    await until(lambda: _wake_ups(root.pid) > before + 3, "it is watched")
    os.kill(root.pid, signal.SIGTERM)
    return await running


def _wake_ups(pid: int) -> int:
    """How often its threads have waited for something."""
    status = [thread / "status" for thread in Path(f"/proc/{pid}/task").iterdir()]
    lines = [line for file in status for line in file.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


@pytest.mark.parametrize("program", ["spin", "sleep"])
async def test_a_task_is_ended_and_says_so(workshop: Workshop, program: str) -> None:
    sandbox = await workshop.prepared("wasm", program)
    outcome = await stopped(sandbox, 3)
    assert (outcome.task, outcome.state, outcome.terminated) == (3, "failed", True)
    assert (outcome.exit_code, outcome.limit, outcome.error) == (None, None, "was asked to end")
    assert outcome.duration_s < LIMITS.time_s


async def test_nothing_is_begun_after_the_word_to_end(workshop: Workshop) -> None:
    sandbox = await workshop.prepared("wasm", "hello")
    (root,) = sandbox.root_pids
    assert (await sandbox.run(0)).value == b"hello"
    os.kill(root.pid, signal.SIGTERM)
    outcome = await sandbox.run(1)
    assert (outcome.state, outcome.terminated, outcome.value) == ("failed", True, b"")
    assert tree.alive(root)


async def test_what_the_task_wrote_by_then_stays_for_its_checkpoint(workshop: Workshop) -> None:
    sandbox = await workshop.prepared(
        "wasm",
        module(
            "(drop (call $open (i32.const 256) (i32.const 4) (i32.const 1) (i64.const 64)))"
            "(drop (call $write (i32.load (i32.const 28)) (i32.const 256) (i32.const 4)))"
            "(loop $l (br $l))",
            "kept",
        ),
    )
    running = asyncio.create_task(sandbox.run(0))
    kept = workshop.scratch / "kept"
    await until(lambda: kept.exists() and kept.read_bytes() == b"kept", "it wrote")
    os.kill(sandbox.root_pids[0].pid, signal.SIGTERM)
    assert (await running).terminated
    assert kept.read_bytes() == b"kept"
