"""An interpreter that goes on for the next job, shown on real sandboxes."""

# Functions of jobs do as they like.
# ruff: noqa: ARG001, PTH123, PTH208, PTH211

import builtins
import contextlib
import os
import sys
import threading
from collections.abc import Callable

import cloudpickle
import pytest
from python_jobs import needs_python, prepared, value
from sandboxes import LIMITS, Workshop, open_folder, workshop

from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import tree
from lender.sandbox.runtimes import python_inside

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = needs_python


def counter() -> Callable[[int], object]:
    """A function that travels by value: what is in this module is not there."""

    def count(task: int) -> object:
        builtins.calls = getattr(builtins, "calls", 0) + 1  # type: ignore[attr-defined]
        return builtins.calls  # type: ignore[attr-defined]

    return count


count = counter()


async def load(
    workshop: Workshop, sandbox: LeaseSandbox, function: Callable[[int], object] | bytes
) -> None:
    """As another job's."""
    program = function if isinstance(function, bytes) else cloudpickle.dumps(function)
    await sandbox.load("job-00002", 7, workshop.file("another", program))


async def test_the_next_job_meets_what_the_one_before_left_in_memory_and_nothing_else(
    workshop: Workshop,
) -> None:
    def loaded() -> object:
        known = dict(os.environ)
        return lambda task: (known, dict(os.environ), os.listdir("/work"), count(task))

    class Program:
        def __reduce__(self) -> object:
            return loaded, ()

    def begin(task: int) -> object:
        with open("/work/left", "w") as file:
            file.write("left")
        os.environ["LEFT"] = "left"
        return count(task)

    sandbox = await prepared(workshop, begin, env={"OF_BOTH": "jobs"})
    assert value(await sandbox.run(3)) == 1
    await load(workshop, sandbox, cloudpickle.dumps(Program()))
    at_load, now, files, calls = value(await sandbox.run(5))  # type: ignore[misc]
    assert calls == 2, "the interpreter is the same"
    assert (now["LENDER_JOB"], now["LENDER_TASK_COUNT"], now["LENDER_TASK"]) == (
        "job-00002",
        "7",
        "5",
    )
    assert at_load == {name: one for name, one in now.items() if name != "LENDER_TASK"}
    assert now["OF_BOTH"] == "jobs"
    assert "LEFT" not in now
    assert files == []


async def test_each_pays_for_its_own(workshop: Workshop) -> None:
    def work(task: int) -> object:
        return sum(range(2_000_000))

    sandbox = await prepared(workshop, work)
    first = await sandbox.run(0)
    await load(workshop, sandbox, count)
    second = await sandbox.run(0)
    assert value(second) == 1
    assert second.cpu_s < first.cpu_s / 2


async def test_a_program_that_can_not_be_loaded_is_told_as_of_a_new_interpreter(
    workshop: Workshop,
) -> None:
    sandbox = await prepared(workshop, count)
    await sandbox.run(0)
    with pytest.raises(PrepareFailedError) as raised:
        await load(workshop, sandbox, b"no pickle")
    assert (raised.value.invalid, raised.value.field) == (True, "program")


async def test_what_a_job_has_broken_does_not_fail_the_next(workshop: Workshop) -> None:
    def spoil(task: int) -> object:
        sys.modules["pickle"].load = None  # type: ignore[attr-defined]
        return count(task)

    sandbox = await prepared(workshop, spoil)
    await sandbox.run(0)
    (before,) = sandbox.root_pids
    await load(workshop, sandbox, count)
    assert value(await sandbox.run(0)) == 1, "in an interpreter of its own"
    assert not tree.alive(before)


async def test_a_program_that_takes_more_disk_than_a_task_may_gets_an_interpreter_of_its_own(
    workshop: Workshop,
) -> None:
    table = os.urandom(LIMITS.scratch_bytes)
    sandbox = await prepared(workshop, count)
    assert value(await sandbox.run(0)) == 1
    await load(workshop, sandbox, lambda task: (len(table), count(task)))
    assert value(await sandbox.run(0)) == (LIMITS.scratch_bytes, 1)


async def test_a_thread_that_was_left_can_not_have_the_program_written_elsewhere(
    workshop: Workshop,
) -> None:
    aim = workshop.file("aim", b"the owner's")

    def lay_links(task: int) -> object:
        def lay() -> None:
            while True:
                with contextlib.suppress(OSError):
                    os.symlink(str(aim), f"/work/{name}")

        threading.Thread(target=lay, daemon=True).start()
        return count(task)

    name = python_inside.NEXT
    sandbox = await prepared(workshop, lay_links)
    assert value(await sandbox.run(0)) == 1
    await load(workshop, sandbox, count)
    assert (await sandbox.run(0)).state == "succeeded"
    assert aim.read_bytes() == b"the owner's"


async def test_after_a_limit_the_next_task_is_still_of_the_next_job(workshop: Workshop) -> None:
    def endless(task: int) -> object:
        while task == 0:
            pass
        return os.environ["LENDER_JOB"], count(task)

    limits = LIMITS._replace(time_s=1.0)
    sandbox = await prepared(workshop, count, limits=limits)
    assert value(await sandbox.run(0)) == 1
    await load(workshop, sandbox, endless)
    assert (await sandbox.run(0)).limit == "time"
    assert value(await sandbox.run(1)) == ("job-00002", 1)
