"""What a python task of an array finds and leaves, where the tasks behind it are known."""


# Functions of jobs do as they like.
# ruff: noqa: PTH101, PTH103, PTH108, PTH109, PTH110, PTH123, PTH208, T201

import asyncio
import builtins
import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cloudpickle
import pytest
from python_jobs import needs_python, plan_of, prepared, value
from sandboxes import LIMITS, Workshop, open_folder, until, workshop

from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits, TaskOutcome
from lender.sandbox.processes import tree

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = needs_python


async def run_all(sandbox: LeaseSandbox, count: int) -> list[TaskOutcome]:
    """As lenderd runs a lease."""
    tasks = range(count)
    outcomes = [await sandbox.run(task, tasks[task + 1 :]) for task in tasks]
    assert [outcome.task for outcome in outcomes] == list(tasks)
    return outcomes


async def test_each_has_its_own_outcome(workshop: Workshop) -> None:
    def count(task: int) -> object:
        builtins.calls = getattr(builtins, "calls", 0) + 1  # type: ignore[attr-defined]
        return task, os.environ["LENDER_TASK"], builtins.calls  # type: ignore[attr-defined]

    sandbox = await prepared(workshop, count)
    begun_at = time.monotonic()
    outcomes = await run_all(sandbox, 400)
    assert [value(one) for one in outcomes] == [(t, str(t), t + 1) for t in range(400)]
    times = [(one.started_at, one.started_at + one.duration_s) for one in outcomes]
    assert all(begun_at <= start <= end <= time.monotonic() for start, end in times)
    assert all(end <= start + 1e-6 for (_, end), (start, _) in pairwise(times)), (
        "one after the other"
    )
    assert 0 < sum(one.cpu_s for one in outcomes) <= 2 * (time.monotonic() - begun_at)
    assert all(one.memory_peak_bytes > 1 << 20 for one in outcomes)
    assert {one.stderr_tail for one in outcomes} == {b""}


async def test_what_is_printed_is_of_the_task_that_printed_it(workshop: Workshop) -> None:
    def talk(task: int) -> int:
        if task % 5 == 1:
            print("python", task)
        if task % 5 == 2:
            os.write(2, f"descriptor {task}\n".encode())
        if task % 5 == 3:
            ctypes.CDLL(None).printf(b"c %d\n", task)
        if task % 50 == 4:
            os.system(f"echo child {task}")
        return task

    sandbox = await prepared(workshop, talk)
    words = {1: "python", 2: "descriptor", 3: "c"}
    for task, outcome in enumerate(await run_all(sandbox, 100)):
        assert value(outcome) == task
        word = "child" if task % 50 == 4 else words.get(task % 5)
        assert outcome.stderr_tail.decode() == (f"{word} {task}\n" if word else "")


def _litter(task: int) -> object:  # noqa: C901 - one thing of each kind
    """Leave something of one kind; tell what is there of what others left."""

    def company() -> list[str]:
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in (1, os.getpid()):
                with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                    state = file.read().rpartition(") ")[2][:1]
                    found += [name] if state != "Z" else []
        return found

    found = [os.listdir(place) for place in ("/work", "/tmp", "/dev/shm")]
    seen = found, company(), os.getcwd(), "LITTER" in os.environ, os.umask(0o22)
    kind = task % 10
    if kind == 1:
        with open("/work/file", "w"):
            pass
    elif kind == 2:
        os.makedirs("/tmp/folder/in/folder")
    elif kind == 3:
        with open("/dev/shm/file", "w"):
            pass
    elif kind == 4:
        os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})  # sooner done than a fork
    elif kind == 5:
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(1000)
            os._exit(0)
    elif kind == 6:
        os.chdir("/tmp")
        os.umask(0o77)
        os.environ = {"LITTER": "1"}  # type: ignore[assignment] # noqa: B003 - as tasks may
    elif kind == 7:
        os.environ["LITTER"] = "1"
        sys.stdout = None  # type: ignore[assignment] # as tasks may
    elif kind == 8:
        os.chmod("/work", 0o500)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif kind == 9:
        with open("/work/gone", "w"):
            pass
        os.unlink("/work/gone")
    return seen


async def test_each_finds_what_the_first_one_found(workshop: Workshop) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    sandbox = await prepared(workshop, _litter)
    outcomes = await run_all(sandbox, 40)
    for outcome in outcomes:
        assert value(outcome) == ([[], [], []], [], "/work", False, 0o022), outcome.task


async def test_what_a_thread_does_later_is_met_by_nobody(workshop: Workshop) -> None:
    def leave(task: int) -> object:
        left = os.listdir("/work")
        if task == 0:

            def write() -> None:
                while True:
                    with contextlib.suppress(OSError), open("/work/of-a-thread", "w"):
                        pass
                    time.sleep(0.05)

            threading.Thread(target=write, daemon=True).start()
        return len(left)

    sandbox = await prepared(workshop, leave)
    met = [value(one) for one in await run_all(sandbox, 100)]
    # It writes when it likes: also between the look and the next task.
    assert sum(count != 0 for count in met) <= 15


def _spin(_task: int) -> None:
    while True:
        pass


def _say_all(_task: int) -> None:
    while True:
        print("x" * 100)


def _hog(_task: int) -> None:
    kept = []
    while True:
        kept.append(bytearray(b"x" * 1_000_000))


def _fill(_task: int) -> None:
    with open("big", "wb") as file:
        while True:
            file.write(b"x" * 1_000_000)


def _flood(_task: int) -> bytes:
    return b"x" * 200_000


def _leave(_task: int) -> None:
    os._exit(3)


def _close(_task: int) -> None:
    os.closerange(3, 256)


def _raise(_task: int) -> None:
    raise ValueError("no")


def _nothing(_task: int) -> object:
    return lambda: None


@pytest.mark.parametrize(
    ("function", "limits", "named"),
    [
        (_spin, LIMITS._replace(time_s=0.3), "hit its time limit"),
        (_say_all, LIMITS._replace(time_s=0.3), "hit its time limit"),
        (_hog, LIMITS, "hit its memory limit"),
        (_fill, LIMITS, "hit its disk limit"),
        (_flood, LIMITS._replace(output_bytes=100_000), "hit its output limit"),
        (_leave, LIMITS, "ended its interpreter (exit code 3)"),
        (_close, LIMITS, "ended its interpreter (exit code 1)"),
        (_raise, LIMITS, "ValueError: no"),
    ],
)
async def test_who_ends_badly_is_the_one_that_fails(
    workshop: Workshop, function: Callable[[int], object], limits: Limits, named: str
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def sometimes(task: int) -> object:
        return function(task) if task == 7 else task

    sandbox = await prepared(workshop, sometimes, limits=limits)
    outcomes = await run_all(sandbox, 12)
    assert outcomes[7].error == named
    assert outcomes[7].state == "failed"
    assert outcomes[7].value == b""
    assert [value(one) for one in outcomes if one.task != 7] == [t for t in range(12) if t != 7]


async def test_large_and_small_values_come_in_their_order(workshop: Workshop) -> None:
    sizes = (0, 100, 511, 512, 1000, 5000, 70_000, 1_000_000)
    sandbox = await prepared(workshop, lambda task: bytes([task]) * sizes[task % 8])
    for task, outcome in enumerate(await run_all(sandbox, 40)):
        assert value(outcome) == bytes([task]) * sizes[task % 8]


async def test_who_is_done_is_told_while_the_next_one_runs(workshop: Workshop) -> None:
    def work(task: int) -> int:
        if task == 9:
            print("waits")
        while task == 9 and not os.path.exists("/work/go"):
            time.sleep(0.01)
        return task

    told: list[tuple[int, bytes]] = []
    sandbox = workshop.sandbox(plan_of(workshop, work))
    sandbox._on_log = lambda task, piece: told.append((task, piece))
    await sandbox.prepare()
    for task in range(9):
        assert value(await sandbox.run(task, range(task + 1, 20))) == task
    running = asyncio.create_task(sandbox.run(9, range(10, 20)))
    await until(lambda: bool(told), "its log is told")
    (workshop.scratch / "go").touch()
    outcome = await running
    assert (value(outcome), outcome.stderr_tail) == (9, b"waits\n")
    for task in range(10, 20):
        outcome = await sandbox.run(task, range(task + 1, 20))
        assert (value(outcome), outcome.stderr_tail) == (task, b"")
    assert told == [(9, b"waits\n")]


async def test_asked_to_end_amid_a_lease_it_begins_nothing_more(workshop: Workshop) -> None:
    def work(task: int) -> int:
        if task == 3:
            with open("/work/started", "w"):
                pass
            time.sleep(100)
        return task

    sandbox = await prepared(workshop, work)
    running = asyncio.create_task(run_all(sandbox, 6))
    await until((workshop.scratch / "started").exists, "the task runs")
    (root,) = sandbox.root_pids
    os.kill(root.pid, signal.SIGTERM)
    outcomes = await running
    assert [value(one) for one in outcomes[:3]] == [0, 1, 2]
    assert outcomes[3].error == "was asked to end"
    # Its interpreter goes with it, and those behind it are asked of another one.
    assert [one.task for one in outcomes[4:]] == [4, 5]


async def test_who_hides_what_it_leaves_hides_it_from_its_own_next_tasks_only(
    workshop: Workshop,
) -> None:
    """Its interpreter is its own; the kernel's view is not."""

    def hide(_task: int) -> int:
        inside = sys.modules["__main__"]
        inside._Traces.are_new = lambda _self: False  # type: ignore[attr-defined] # as an attacker
        if os.fork() == 0:
            time.sleep(1000)
        with open(f"/tmp/{time.monotonic_ns()}", "w") as file:
            file.write("x" * 10_000)
        return sum(name.isdigit() for name in os.listdir("/proc"))

    sandbox = await prepared(workshop, hide)
    outcomes = await run_all(sandbox, 60)
    for outcome in outcomes:
        assert outcome.state == "succeeded" or outcome.limit == "processes", outcome.error
    roots = sandbox.root_pids
    await until(lambda: len(tree.members(roots)) <= 5, "nothing is left of what it started")


@pytest.mark.parametrize("lie", ["of others", "of nobody", "no end"])
async def test_who_answers_for_others_does_so_within_its_lease(
    workshop: Workshop, lie: str
) -> None:
    def forge(task: int) -> int:
        if task != 5:
            return task
        (own,) = (one for one in gc.get_objects() if type(one).__name__ == "_Inside")
        forged = sys.modules["__main__"].ANSWER.pack(0, 4, 0) + b"jnot"
        if lie == "of others":
            os.write(own._answers, forged * 4)
        if lie == "of nobody":
            os.write(own._answers, forged * 400)
        if lie == "no end":
            own._traces.are_new = lambda: False
            sys.modules["__main__"].OVER = b""
        return task

    limits = LIMITS._replace(time_s=2.0)
    sandbox = await prepared(workshop, forge, limits=limits)
    outcomes = await asyncio.wait_for(run_all(sandbox, 30), 100)
    assert [value(one) for one in outcomes[:5]] == [0, 1, 2, 3, 4]
    # What it has forged is of its own lease; behind that all is as it should be.
    assert value(await sandbox.run(40)) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells the last process")
@pytest.mark.parametrize(
    "begun", ["threading.Thread(target=int).start()", "os.fork() or os._exit(0)"]
)
def test_who_has_begun_a_process_or_a_thread_is_looked_after(tmp_path: Path, begun: str) -> None:
    """However fast: nothing but the kernel's count of them tells."""
    code = (
        "import os, sys, threading\n"
        "from lender.sandbox.runtimes import python_inside as inside\n"
        "inside._TEMPORARY = ()\n"
        "traces = inside._Traces(sys.argv[1])\n"
        f"traces.note(); {begun}; print(traces.are_new())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.stdout == "True\n", said.stderr
