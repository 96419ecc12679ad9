"""A command is asked to end before it is killed: SIGTERM to the root of its sandbox."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from sandboxes import Workshop, needs_bubblewrap, open_folder, until, workshop

from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import TaskOutcome
from lender.sandbox.processes import tree

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = needs_bubblewrap


async def started(
    workshop: Workshop, script: str, grace_s: float, inputs: dict[str, Path] | None = None
) -> LeaseSandbox:
    plan = workshop.plan("process", script, inputs=inputs)._replace(grace_s=grace_s)
    sandbox = workshop.sandbox(plan)
    await sandbox.prepare()
    return sandbox


async def asked_to_end(
    workshop: Workshop,
    script: str,
    grace_s: float = 30.0,
    inputs: dict[str, Path] | None = None,
) -> TaskOutcome:
    """Run a script, and send SIGTERM once it has made the file `ready`."""
    sandbox = await started(workshop, script, grace_s, inputs)
    running = asyncio.create_task(sandbox.run(0))
    await until(lambda: running.done() or (workshop.scratch / "ready").exists(), "it is ready")
    (root,) = sandbox.root_pids
    os.kill(root.pid, signal.SIGTERM)
    return await running


async def test_it_saves_what_it_has_and_ends(workshop: Workshop) -> None:
    outcome = await asked_to_end(
        workshop, "trap 'echo half > saved; exit 0' TERM; : > ready; while :; do sleep 0.05; done"
    )
    assert (outcome.state, outcome.exit_code, outcome.terminated) == ("failed", 0, True)
    assert (outcome.error, outcome.limit) == ("was asked to end", None)
    assert (workshop.scratch / "saved").read_text() == "half\n"


async def test_who_does_not_care_ends_at_once(workshop: Workshop) -> None:
    outcome = await asked_to_end(workshop, ": > ready; exec sleep 3600")
    assert (outcome.state, outcome.exit_code, outcome.terminated) == ("failed", 143, True)


async def test_who_ignores_it_is_killed_with_all_that_it_started(workshop: Workshop) -> None:
    script = "trap '' TERM; setsid sleep 3600 & : > ready; while :; do :; done"
    outcome = await asked_to_end(workshop, script, grace_s=0.3)
    assert (outcome.state, outcome.exit_code, outcome.terminated) == ("failed", None, True)
    assert outcome.cpu_s > 0
    (root,) = workshop.roots
    assert tree.members([root]) == (root,)


async def test_each_of_its_processes_is_asked(workshop: Workshop) -> None:
    child = b"trap 'echo > heard-$1; exit' TERM; : > up-$1; while :; do sleep 0.05; done"
    script = (
        "sh child a & setsid sh child b & (setsid sh child c &)\n"
        "trap : TERM\n"
        "while [ ! -e up-a -o ! -e up-b -o ! -e up-c ]; do sleep 0.05; done; : > ready\n"
        "while [ ! -e heard-a -o ! -e heard-b -o ! -e heard-c ]; do sleep 0.05; done; exit 5"
    )
    given = {"child": workshop.file("child", child)}
    outcome = await asked_to_end(workshop, script, inputs=given)
    assert (outcome.exit_code, outcome.terminated) == (5, True), outcome


async def test_time_spent_frozen_is_no_part_of_its_grace(workshop: Workshop) -> None:
    script = "trap ': > heard; sleep 0.5; : > saved; exit 0' TERM; : > ready; while :; do :; done"
    sandbox = await started(workshop, script, grace_s=4.0)
    running = asyncio.create_task(sandbox.run(0))
    await until((workshop.scratch / "ready").exists, "it is ready")
    (root,) = sandbox.root_pids
    os.kill(root.pid, signal.SIGTERM)
    await until((workshop.scratch / "heard").exists, "it was asked")
    assert (await asyncio.to_thread(tree.freeze, [root])).verified
    await asyncio.sleep(5)  # the length of the freeze is what is tested
    assert not running.done()
    assert (await asyncio.to_thread(tree.thaw, [root])).verified
    outcome = await running
    assert (outcome.terminated, outcome.limit, outcome.exit_code) == (True, None, 0), outcome
    assert (workshop.scratch / "saved").exists()


async def test_nothing_is_begun_after_it(workshop: Workshop) -> None:
    sandbox = await started(workshop, ": > begun", grace_s=1.0)
    (root,) = sandbox.root_pids
    os.kill(root.pid, signal.SIGTERM)
    outcome = await sandbox.run(0)
    assert (outcome.state, outcome.terminated) == ("failed", True)
    assert list(workshop.scratch.iterdir()) == []


@pytest.mark.parametrize("grace_s", [0.0, 30.0])
async def test_asked_before_there_is_a_command_it_ends(workshop: Workshop, grace_s: float) -> None:
    sandbox = await started(workshop, "sleep 3600", grace_s)
    running = asyncio.create_task(sandbox.run(0))
    (root,) = sandbox.root_pids
    await until(lambda: len(tree.members([root])) > 1, "bubblewrap is there")
    os.kill(root.pid, signal.SIGTERM)
    outcome = await running
    assert (outcome.state, outcome.terminated) == ("failed", True)
