"""The inside of every sandbox process: one plan, then one task after another, over one socket.

The daemon sends `{"plan": ...}` once and then `{"task": i, "watched": bool}`, with `"words"` where
the task has some of its own; it gets `{"prepared": true}` or `{"unprepared": reason, ...}`, and
`{"outcome": ..., "last": bool}` for each task. `{"job": id, "task_count": n, "separate": bool}`
comes between them where the tasks behind it are another job's that asks for the same; nothing
answers it. Another `{"plan": ...}` is of a job that goes on in the same interpreter, and answered
like the first. Before the outcome of a task that is watched it gets `{"log": i}` with what came on
standard error, as much of it as `TaskLog` lets through. It may send several tasks at once: they are
run one after the other, and outcomes of short ones come together.

SIGTERM to this process asks for a soft end of the task that runs. Nothing is begun after it.
"""

import contextlib
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Protocol, runtime_checkable

from lender.sandbox import frames
from lender.sandbox.frames import Frame
from lender.sandbox.meters.task_log import TaskLog
from lender.sandbox.plan import SandboxPlan, TaskOutcome, outcome_to_wire, plan_from_wire
from lender.sandbox.port import AHEAD_MAX, PrepareFailedError

ASKED_TO_END = "was asked to end"

# How long, how many and how much of them an outcome waits for those behind it: who asked has work
# to look at until then, and each hand-over costs both sides more than many a task. Who hears of
# half of what it has asked for can ask for more before there is nothing left to do.
_HELD_S = 0.001
_HELD_MAX = AHEAD_MAX // 2
_HELD_BYTES_MAX = 1 << 14


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
    """

    def __init__(self, sock: socket.socket) -> None:
        self.soft_stop = SoftStop()
        self.when_idle: Callable[[Ahead | None], None] = lambda _: None
        self._sock = sock
        self._log: tuple[int, TaskLog] | None = None
        self._held = bytearray()
        self._held_since, self._held_count = 0.0, 0
        self._ready = select.poll()
        self._ready.register(sock, select.POLLOUT)

    def begin_log(self, task: int) -> None:
        """Somebody watches this task."""
        self._log = task, TaskLog(time.monotonic())

    def add_log(self, piece: bytes) -> None:
        """The task wrote this to standard error."""
        if self._log is not None:
            self._log[1].add(time.monotonic(), piece)

    def tell(self) -> None:
        """Tell what is due, unless the daemon is too busy to take it; to be called often."""
        now = time.monotonic()
        # What is due fits into the room that makes a socket ready (unix_writable: three quarters).
        if self._held:
            if now - self._held_since >= _HELD_S and self._ready.poll(0):
                self._hand_over()
        elif self._log is not None and self._ready.poll(0):
            task, log = self._log
            if told := log.due(now):
                frames.send(self._sock, Frame({"log": task}, told))

    def send(self, outcome: TaskOutcome, *, last: bool = False, more: bool = False) -> None:
        """Hand over how a task ended.

        Args:
            outcome: how.
            last: this process ends behind it.
            more: other tasks are known: it may wait for their outcomes.
        """
        now = time.monotonic()
        if not self._held:
            self._held_since, self._held_count = now, 0
        self._held_count += 1
        if self._log is not None:
            task, log = self._log
            self._log = None
            if told := log.last():
                self._held += frames.encode(Frame({"log": task}, told))
        header, body = outcome_to_wire(outcome)
        self._held += frames.encode(Frame({"outcome": header, "last": last}, body))
        is_due = now - self._held_since >= _HELD_S or self._held_count >= _HELD_MAX
        if is_due or last or not more or len(self._held) > _HELD_BYTES_MAX:
            self._hand_over()

    def _hand_over(self) -> None:
        held, self._held = self._held, bytearray()
        self._sock.sendall(held)


def serve(sock: socket.socket, start: Callable[[SandboxPlan, Reporter], Runner]) -> None:
    """Work for the daemon until it closes its end.

    Args:
        sock: a blocking stream socket.
        start: prepares a runtime; may raise PrepareFailedError.
    """
    wanted, reporter, runner = _Wanted(sock), Reporter(sock), None
    while (frame := wanted.take()) is not None:
        if runner is not None and "job" in frame.header:
            told = frame.header
            runner.begin_job(told["job"], told["task_count"], separate=told["separate"])
            continue
        if runner is not None and "task" in frame.header:
            task = frame.header["task"]
            asked = reporter.soft_stop.asked
            if frame.header.get("watched"):
                reporter.begin_log(task)
            words = frame.header.get("words", ())
            outcome = _not_begun(task) if asked else runner.run(task, words)
            reporter.send(outcome, more=wanted.are_more())
            reporter.when_idle(wanted.next_task())
            continue
        plan = plan_from_wire(frame.header["plan"])
        try:
            runner = start(plan, reporter) if runner is None else _continued(runner, plan)
        except PrepareFailedError as error:
            why = {"unprepared": error.reason, "invalid": error.invalid, "field": error.field}
            frames.send(sock, Frame(why))
            return
        frames.send(sock, Frame({"prepared": True}))


def _continued(runner: Runner, plan: SandboxPlan) -> Runner:
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
        self._frames = deque[Frame]()
        self._ahead = False

    def take(self) -> Frame | None:
        """The next of it, once it is there; None when nobody asks any more."""
        while not self._frames:
            if not (data := frames.read(self._sock)):
                return None
            self._frames += self._decoder.feed(data)
            self._ahead = len(self._frames) > 1
        return self._frames.popleft()

    def are_more(self) -> bool:
        """Whether there is more of it, or has come meanwhile from who asks ahead."""
        if not self._frames and self._ahead:
            with contextlib.suppress(BlockingIOError):
                self._frames += self._decoder.feed(frames.read(self._sock, wait=False))
        return bool(self._frames)

    def next_task(self) -> Ahead | None:
        """The next of it, where that has come and is a task."""
        header = self._frames[0].header if self._frames else {}
        return (header["task"], header.get("words", ())) if "task" in header else None


def _not_begun(task: int) -> TaskOutcome:
    now = time.monotonic()
    return TaskOutcome(task, "failed", error=ASKED_TO_END, started_at=now, terminated=True)
