"""The watcher of a command against a stand-in for what was started: its pipes are real."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lender.sandbox.meters.usage import Usage
from lender.sandbox.plan import Limits, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import command
from lender.sandbox.runtimes.command import End, StartedTask

LIMITS = Limits(1, 1 << 20, 30.0, 100, 1 << 16, 8)
KILLED = End(None, 0.25, 0, 3)


class SoftStop:
    """What a runner has of SIGTERM."""

    def __init__(self) -> None:
        self.asked = False
        self.fd, self._writer = os.pipe()

    def ask(self) -> None:
        self.asked = True
        os.write(self._writer, b"x")

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._writer)


class Task:
    """A started task that does what the test says, tick by tick.

    Attributes:
        done: what was called that ends it.
    """

    def __init__(self, on_tick: Callable[["Task", int], None]) -> None:
        self.stdout, self.out = os.pipe()
        self.stderr, self.err = os.pipe()
        waker, self.wake = os.pipe()
        self.wakers: tuple[int, ...] = (waker,)
        for fd in (self.stdout, self.stderr, waker):
            os.set_blocking(fd, False)
        self._on_tick = on_tick
        self._ticks = 0
        self.end: End | None = None
        self.held = Usage(0, 0)
        self.exact_bytes = 0
        self.reachable = True
        self.on_terminate: End | None = None
        self.done: list[str] = []

    def on_wake(self, fd: int) -> bool:
        assert os.read(fd, 10)
        return True

    def tick(self) -> None:
        self._ticks += 1
        self._on_tick(self, self._ticks)

    def has_ended(self) -> bool:
        return self.end is not None

    def usage(self) -> Usage:
        return self.held

    def memory_bytes(self) -> int:
        return self.exact_bytes

    def unnamed_bytes(self, _device: int, _file_bytes_max: int) -> int:
        return 0

    def terminate(self) -> bool:
        self.done.append("terminate")
        self.end = self.on_terminate
        return self.reachable

    def kill(self) -> None:
        self.done.append("kill")
        self.end = KILLED

    def reap(self) -> End:
        assert self.end is not None, "reaped while it ran"
        self.done.append("reap")
        for fd in (self.out, self.err, self.wake, *self.wakers):
            os.close(fd)
        return self.end

    def fault(self, exit_code: int | None, said: str) -> str | None:
        return said * 100 if exit_code == 127 else None


@pytest.fixture
def soft_stop() -> Iterator[SoftStop]:
    made = SoftStop()
    yield made
    made.close()


@pytest.fixture
def plan(tmp_path: Path) -> SandboxPlan:
    return SandboxPlan(
        *("l", "process", "j", 1, None, ("true",), {}, {}, (), LIMITS, tmp_path), grace_s=0.1
    )


def watched(
    plan: SandboxPlan, soft_stop: SoftStop, on_tick: Callable[[Task, int], None]
) -> tuple[TaskOutcome, Task]:
    task = Task(on_tick)
    started: StartedTask = task
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - without a descriptor of its own
    outcome = command.run(3, plan, lambda _: started, soft_stop)
    assert len(os.listdir("/proc/self/fd")) == before - 6, "all of its descriptors are closed"  # noqa: PTH208
    return outcome, task


def test_its_output_and_its_end_are_the_outcome(plan: SandboxPlan, soft_stop: SoftStop) -> None:
    def on_tick(task: Task, tick: int) -> None:
        os.write(task.out, b"value")
        os.write(task.err, b"words")
        if tick == 3:
            task.end = End(0, 1.5, 1000, 2)

    outcome, task = watched(plan, soft_stop, on_tick)
    assert (outcome.task, outcome.state, outcome.exit_code) == (3, "succeeded", 0)
    assert (outcome.value, outcome.stderr_tail) == (b"value" * 3, b"words" * 3)
    assert (outcome.cpu_s, outcome.memory_peak_bytes) == (1.5, 1000)
    assert (outcome.network_attempts_blocked, outcome.error, outcome.limit) == (2, None, None)
    assert not outcome.terminated
    assert task.done == ["reap"]


def test_what_was_written_piece_by_piece_is_taken_whole(
    plan: SandboxPlan, soft_stop: SoftStop
) -> None:
    def on_tick(task: Task, _tick: int) -> None:
        fcntl.fcntl(task.out, fcntl.F_SETFL, os.O_DIRECT)  # each write is read alone (pipe(2))
        for _ in range(3):
            os.write(task.out, b"value")
        task.end = End(0, 0.0, 0, 0)

    assert watched(plan, soft_stop, on_tick)[0].value == b"value" * 3


def test_a_waker_ends_the_wait(
    plan: SandboxPlan, soft_stop: SoftStop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_TICK_S", 3600.0)

    def on_tick(task: Task, tick: int) -> None:
        os.write(task.wake, b"x")
        if tick == 3:
            task.end = End(0, 0.0, 0, 0)

    task = Task(on_tick)
    os.write(task.wake, b"x")
    assert command.run(3, plan, lambda _: task, soft_stop).state == "succeeded"


@pytest.mark.parametrize(
    ("end", "error"),
    [(End(7, 0, 0, 0), None), (End(127, 0, 0, 0), ("no such file" * 100)[:500])],
)
def test_a_failure_keeps_its_code_and_says_why(
    plan: SandboxPlan, soft_stop: SoftStop, end: End, error: str | None
) -> None:
    def on_tick(task: Task, _tick: int) -> None:
        os.write(task.err, b" no such file\n")
        task.end = end

    outcome, _ = watched(plan, soft_stop, on_tick)
    assert (outcome.state, outcome.exit_code) == ("failed", end.exit_code)
    assert outcome.error == error


def holds(usage: Usage, exact_bytes: int) -> Callable[[Task, int], None]:
    def on_tick(task: Task, _tick: int) -> None:
        task.held, task.exact_bytes = usage, exact_bytes

    return on_tick


def writes(name: str, size_bytes: int) -> Callable[[Task, int], None]:
    def on_tick(task: Task, _tick: int) -> None:
        if name == "stdout":
            with contextlib.suppress(BlockingIOError):
                os.write(task.out, bytes(size_bytes))
        else:
            Path(name).write_bytes(bytes(size_bytes))

    return on_tick


@pytest.mark.parametrize(
    ("limits", "on_tick", "named"),
    [
        (LIMITS._replace(time_s=0.1), lambda _task, _tick: None, "time"),
        (LIMITS, writes("stdout", 101), "output"),
        (LIMITS, writes("big", 1 << 17), "disk"),
        (LIMITS, holds(Usage(10, 1, 2 << 20), 2 << 20), "memory"),
    ],
)
def test_a_limit_that_is_hit_kills_it_and_is_named(
    plan: SandboxPlan,
    soft_stop: SoftStop,
    monkeypatch: pytest.MonkeyPatch,
    limits: Limits,
    on_tick: Callable[[Task, int], None],
    named: str,
) -> None:
    monkeypatch.chdir(plan.scratch)
    outcome, task = watched(plan._replace(limits=limits), soft_stop, on_tick)
    assert (outcome.state, outcome.limit, outcome.exit_code) == ("failed", named, None)
    assert outcome.error == f"hit its {named} limit"
    assert (outcome.cpu_s, outcome.terminated) == (0.25, False)
    assert task.done == ["kill", "reap"]
    assert len(outcome.value) <= LIMITS.output_bytes


def test_shared_pages_alone_are_no_reason(plan: SandboxPlan, soft_stop: SoftStop) -> None:
    def on_tick(task: Task, tick: int) -> None:
        task.held, task.exact_bytes = Usage(1000, 2, 2 << 20), 500
        if tick == 5:
            task.end = End(0, 0.0, 0, 0)

    outcome, _ = watched(plan, soft_stop, on_tick)
    assert (outcome.state, outcome.memory_peak_bytes) == ("succeeded", 1000)


@pytest.mark.parametrize(
    ("end", "held", "named"),
    [
        (End(1, 0, 2 << 20, 0), Usage(0, 0), "memory"),
        (End(0, 0, 2 << 20, 0), Usage(0, 0), None),
        (End(1, 0, 0, 0), Usage(0, 8), "processes"),
        (End(1, 0, 0, 0), Usage(0, 7), None),
        (End(128 + 25, 0, 0, 0), Usage(0, 0), "disk"),
    ],
)
def test_an_end_is_explained_by_the_limit_behind_it(
    plan: SandboxPlan, soft_stop: SoftStop, end: End, held: Usage, named: str | None
) -> None:
    def on_tick(task: Task, tick: int) -> None:
        task.held = held
        if tick == 5:
            task.end = end

    outcome, _ = watched(plan, soft_stop, on_tick)
    assert (outcome.limit, outcome.exit_code) == (named, end.exit_code)


@pytest.mark.parametrize("exit_code", [0, 1, 143])
def test_asked_to_end_it_has_its_grace(
    plan: SandboxPlan, soft_stop: SoftStop, exit_code: int
) -> None:
    def on_tick(task: Task, tick: int) -> None:
        task.on_terminate = None
        if tick == 2:
            soft_stop.ask()
        if task.done == ["terminate"] and tick >= 4:
            os.write(task.out, b"saved")
            # Also with all its processes, and more memory than it may have, at its end.
            task.end = End(exit_code, 0.0, 2 << 20, 0)
        task.held = Usage(0, 8)

    outcome, task = watched(plan._replace(grace_s=60.0), soft_stop, on_tick)
    assert (outcome.state, outcome.exit_code, outcome.terminated) == ("failed", exit_code, True)
    assert (outcome.error, outcome.limit) == ("was asked to end", None)
    assert outcome.value == b"saved"
    assert task.done == ["terminate", "reap"]


def test_whoever_outlives_its_grace_is_killed(plan: SandboxPlan, soft_stop: SoftStop) -> None:
    # Its time limit has passed by then: it is the grace that counts.
    limited = plan._replace(limits=LIMITS._replace(time_s=0.05))

    def on_tick(_task: Task, tick: int) -> None:
        if tick == 1:
            soft_stop.ask()

    outcome, task = watched(limited, soft_stop, on_tick)
    assert (outcome.terminated, outcome.limit, outcome.exit_code) == (True, None, None)
    assert outcome.duration_s >= 0.1
    assert task.done == ["terminate", "kill", "reap"]


def test_where_nobody_can_be_asked_nobody_is_waited_for(
    plan: SandboxPlan, soft_stop: SoftStop
) -> None:
    def on_tick(task: Task, _tick: int) -> None:
        task.reachable = False
        soft_stop.ask()

    outcome, task = watched(plan._replace(grace_s=60.0), soft_stop, on_tick)
    assert outcome.terminated
    assert task.done == ["terminate", "kill", "reap"]


def test_a_limit_hit_in_its_grace_is_named(plan: SandboxPlan, soft_stop: SoftStop) -> None:
    def on_tick(task: Task, tick: int) -> None:
        if tick == 1:
            soft_stop.ask()
        if task.done:
            with contextlib.suppress(BlockingIOError):
                os.write(task.out, bytes(101))

    outcome, task = watched(plan._replace(grace_s=60.0), soft_stop, on_tick)
    assert (outcome.limit, outcome.terminated) == ("output", False)
    assert task.done == ["terminate", "kill", "reap"]


def test_who_ended_before_it_was_asked_is_not_asked(plan: SandboxPlan, soft_stop: SoftStop) -> None:
    def on_tick(task: Task, _tick: int) -> None:
        task.end = End(0, 0.0, 0, 0)
        soft_stop.ask()

    outcome, task = watched(plan, soft_stop, on_tick)
    assert (outcome.state, outcome.terminated) == ("succeeded", False)
    assert task.done == ["reap"]


@pytest.mark.parametrize(
    "error", [OSError("no process"), ValueError("a zero byte"), PrepareFailedError("no input")]
)
def test_what_cannot_be_started_fails_with_the_reason(
    plan: SandboxPlan, soft_stop: SoftStop, error: Exception
) -> None:
    def start(_task: int) -> StartedTask:
        raise error

    outcome = command.run(3, plan, start, soft_stop)
    assert (outcome.task, outcome.state) == (3, "failed")
    assert outcome.error == f"not started: {error}"
