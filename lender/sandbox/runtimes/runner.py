"""The inside of every sandbox process: one plan, then one task after another, over one socket.

The daemon sends `{"plan": ..., "watched": bool}` once and then `{"tasks": [i, ...]}`, with
`"words"` beside them where they have some of their own; it gets `{"prepared": true}` or
`{"unprepared": reason, ...}`, and `{"outcomes": [...], "last": bool}`, in the order of the tasks:
those of short ones come together. `{"job": id, "task_count": n, "separate": bool}` comes between
them where the tasks behind it are another job's that asks for the same; nothing answers it. Another
plan is of a job that goes on in the same interpreter, and answered like the first. Where somebody
watches, what came on standard error comes before a task's outcome, as `{"log": i}`, as much of it
as `TaskLog` lets through.

SIGTERM to this process asks for a soft end of the task that runs. Nothing is begun after it.
"""

import contextlib
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, repeat
from types import FrameType
from typing import Protocol, runtime_checkable

from lender.sandbox import frames
from lender.sandbox.frames import Frame
from lender.sandbox.meters.task_log import TaskLog
from lender.sandbox.plan import SandboxPlan, TaskOutcome, outcomes_to_wire, plan_from_wire
from lender.sandbox.port import AHEAD_MAX, KNOWN_MAX, PrepareFailedError

ASKED_TO_END = "was asked to end"

HELD_S = 0.001
HELD_MAX = AHEAD_MAX // 2 + 1
HELD_BYTES_MAX = 1 << 14
"""How long, how many and how much of them an outcome waits for those behind it: who asked has work
to look at until then, and each hand-over costs both sides more than many a task. Who hears of
half of what it has asked for can ask for more before there is nothing left to do."""

Ahead = tuple[int, Sequence[str]]
"""A task and its words."""


class Runner(Protocol):
    """A runtime, prepared for one plan."""

    def run(self, task: int, words: Sequence[str] = ()) -> TaskOutcome:
        """Run one task to its end; `words` follow the plan's command line."""
        ...

    def begin_job(self, job: str, task_count: int, *, separate: bool) -> None:
        """Run tasks of another job from here on, which asks for the same."""
        ...


@runtime_checkable
class Continuing(Runner, Protocol):
    """A runtime whose tasks may meet what those of another job left."""

    def go_on(self, plan: SandboxPlan) -> None:
        """Run the tasks of another job from here on, which asks for the same but its program.

        Raises:
            PrepareFailedError: it can't; it is fit for nothing then.
        """
        ...


@runtime_checkable
class RunsSome(Runner, Protocol):
    """A runtime that can run several tasks at once, as far as they are short."""

    def run_some(self, tasks: Sequence[int]) -> Iterator[TaskOutcome]:
        """Run the first of these tasks to its end, and as many behind it as it thinks fit.

        Args:
            tasks: those that are known, in their order.

        Yields:
            The outcome of each that was begun, in their order: all but the last are there before
            anything is waited for.
        """
        ...


@runtime_checkable
class RunsTogether(Protocol):
    """A runtime that goes from one short task to the next by itself, and tells of them together."""

    def run_together(self, tasks: Sequence[Ahead]) -> int:
        """Run the first of these to its end, and as many behind it as it thinks fit.

        It has their outcomes handed over, none much later than `HELD_S` behind its task's end.

        Args:
            tasks: those that are known, in their order.

        Returns:
            How many have ended.
        """
        ...

    def begin_job(self, job: str, task_count: int, *, separate: bool) -> None:
        """See `Runner`."""
        ...


class SoftStop:
    """Whether SIGTERM asked for a soft end.

    Attributes:
        asked: it did, for good.
        fd: readable since then, also while the main thread sits in a library's call.
    """

    def __init__(self) -> None:
        self.asked = False
        self.fd, wake = os.pipe()
        os.set_blocking(wake, False)
        # Written to by the handler in C, at once; the one in Python waits for the main thread.
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


class Reporter:
    """The way back to the daemon.

    Attributes:
        soft_stop: its word to end softly.
        when_idle: called once an outcome is on its way, for what can be done ahead; with the next
            task and its words where they have come.
        watched: somebody wants to see what a task writes to standard error.
        task: the one that is run.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.soft_stop = SoftStop()
        self.when_idle: Callable[[Ahead | None], None] = lambda _: None
        self.watched = False
        self.task = 0
        self._sock = sock
        self._log: TaskLog | None = None
        self._held = bytearray()
        self._outcomes: list[TaskOutcome] = []
        self._outcomes_bytes = 0
        self._held_since = 0.0
        self._ready = select.poll()
        self._ready.register(sock, select.POLLOUT)

    def add_log(self, piece: bytes) -> None:
        """The task wrote this to standard error."""
        if self.watched:
            if self._log is None:
                self._log = TaskLog(time.monotonic())
            self._log.add(time.monotonic(), piece)

    def tell(self) -> None:
        """Tell what is due, unless the daemon is too busy to take it; to be called often."""
        now = time.monotonic()
        # What is due fits into the room that makes a socket ready (unix_writable: three quarters).
        if self._outcomes:
            if now - self._held_since >= HELD_S and self._ready.poll(0):
                self.hand_over()
        elif self._log is not None and self._ready.poll(0) and (told := self._log.due(now)):
            frames.send(self._sock, Frame({"log": self.task}, told))

    def send(self, outcome: TaskOutcome, *, last: bool = False, more: bool = False) -> None:
        """Hand over how a task ended.

        Args:
            outcome: how.
            last: this process ends behind it.
            more: other tasks are known: it may wait for their outcomes.
        """
        now = time.monotonic()
        if self._log is not None:
            if told := self._log.last():
                self._close_frame()
                self._held += frames.encode(Frame({"log": self.task}, told))
            self._log = None
        text = outcome.error or ""
        size_bytes = len(outcome.value) + len(outcome.stderr_tail) + len(text)
        self.hold([outcome], size_bytes, now)
        is_due = now - self._held_since >= HELD_S or len(self._outcomes) >= HELD_MAX
        is_much = self._outcomes_bytes + len(self._held) > HELD_BYTES_MAX
        if is_due or is_much or last or not more:
            self.hand_over(last=last)

    def hold(self, outcomes: Sequence[TaskOutcome], size_bytes: int, ended_at: float) -> None:
        """Have outcomes handed over, by `tell` once they are due or with what comes behind them.

        Args:
            outcomes: of tasks without a log.
            size_bytes: their values and tails of standard error; of several no more than
                `HELD_BYTES_MAX`.
            ended_at: when the first of them ended (monotonic clock).
        """
        if not self._outcomes:
            self._held_since = ended_at
        elif self._outcomes_bytes + size_bytes > HELD_BYTES_MAX:
            # A frame carries that, or one outcome as large as it may be.
            self._close_frame()
        self._outcomes += outcomes
        self._outcomes_bytes += size_bytes

    def hand_over(self, *, last: bool = False) -> None:
        """Tell all that is held."""
        self._close_frame(last=last)
        held, self._held = self._held, bytearray()
        self._sock.sendall(held)

    def _close_frame(self, *, last: bool = False) -> None:
        """What has ended so far is one frame; something else comes behind it."""
        if self._outcomes:
            header, body = outcomes_to_wire(self._outcomes)
            self._held += frames.encode(Frame({"outcomes": header, "last": last}, body))
            self._outcomes, self._outcomes_bytes = [], 0


def serve(
    sock: socket.socket, start: Callable[[SandboxPlan, Reporter], Runner | RunsTogether]
) -> None:
    """Work for the daemon until it closes its end.

    Args:
        sock: a blocking stream socket.
        start: prepares a runtime; may raise PrepareFailedError.
    """
    wanted, reporter = _Wanted(sock), Reporter(sock)
    runner: Runner | RunsTogether | None = None
    run: Callable[[Ahead], None] | None = None
    while (asked := wanted.take()) is not None:
        if not isinstance(asked, Frame):
            assert run is not None, "the plan comes first"
            if reporter.soft_stop.asked:
                reporter.send(_not_begun(asked[0]), more=wanted.are_more())
            else:
                run(asked)
            reporter.when_idle(wanted.next_task())
            continue
        told = asked.header
        if runner is not None and "job" in told:
            runner.begin_job(told["job"], told["task_count"], separate=told["separate"])
            continue
        plan = plan_from_wire(told["plan"])
        reporter.watched = told.get("watched", False)
        try:
            runner = start(plan, reporter) if runner is None else _continued(runner, plan)
        except PrepareFailedError as error:
            why = {"unprepared": error.reason, "invalid": error.invalid, "field": error.field}
            frames.send(sock, Frame(why))
            return
        run = _way_of(runner, wanted, reporter)
        frames.send(sock, Frame({"prepared": True}))


def _way_of(
    runner: Runner | RunsTogether, wanted: "_Wanted", reporter: Reporter
) -> Callable[[Ahead], None]:
    """How a task is run by it, and what is known behind that as far as it does so."""

    def run_together(asked: Ahead) -> None:
        wanted.are_more(HELD_MAX)
        ended = together.run_together([asked, *wanted.known(HELD_MAX)])
        wanted.skip(ended - 1)

    def run_some(asked: Ahead) -> None:
        wanted.are_more()
        tasks = [asked[0], *(task for task, _ in wanted.known(KNOWN_MAX))]
        for done, outcome in enumerate(some.run_some(tasks)):
            if done:
                wanted.skip(1)
            reporter.send(outcome, more=wanted.are_more())

    def run_one(asked: Ahead) -> None:
        task, words = asked
        reporter.task = task
        outcome = one.run(task, words)
        reporter.send(outcome, more=wanted.are_more())

    if isinstance(runner, RunsTogether):
        together = runner
        return run_together
    if isinstance(runner, RunsSome):
        some = runner
        return run_some
    one = runner
    return run_one


def _continued(runner: Runner | RunsTogether, plan: SandboxPlan) -> Runner:
    """The same runner, for another job.

    Raises:
        PrepareFailedError: it can't be.
    """
    if not isinstance(runner, Continuing):
        raise PrepareFailedError(f"another program of the runtime {plan.runtime}: not in here")
    runner.go_on(plan)
    return runner


class _Wanted:
    """What the daemon has asked for and nobody has begun."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = frames.Decoder(body_bytes_max=0)
        self._wanted = deque[Ahead | Frame]()
        self._ahead = False

    def take(self) -> Ahead | Frame | None:
        """The next of it, once it is there; None when nobody asks any more."""
        while not self._wanted:
            if not (data := frames.read(self._sock)):
                return None
            self._feed(data)
            self._ahead = len(self._wanted) > 1
        return self._wanted.popleft()

    def are_more(self, enough: int = 1) -> bool:
        """Whether there is more of it: with what has come meanwhile, where it is not enough."""
        if len(self._wanted) < enough and self._ahead:
            with contextlib.suppress(BlockingIOError):
                self._feed(frames.read(self._sock, wait=False))
        return bool(self._wanted)

    def next_task(self) -> Ahead | None:
        """The next of it, where that has come and is a task."""
        if not self._wanted or isinstance(self._wanted[0], Frame):
            return None
        return self._wanted[0]

    def known(self, most: int) -> list[Ahead]:
        """Tasks that have come, as far as nothing else comes between them."""
        found = list[Ahead]()
        for one in islice(self._wanted, most):
            if isinstance(one, Frame):
                break
            found.append(one)
        return found

    def skip(self, count: int) -> None:
        """Forget so many."""
        for _ in range(count):
            self._wanted.popleft()

    def _feed(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            if "tasks" in frame.header:
                tasks = frame.header["tasks"]
                self._wanted += zip(tasks, frame.header.get("words", repeat(())), strict=False)
            else:
                self._wanted.append(frame)


def _not_begun(task: int) -> TaskOutcome:
    now = time.monotonic()
    return TaskOutcome(task, "failed", error=ASKED_TO_END, started_at=now, terminated=True)
