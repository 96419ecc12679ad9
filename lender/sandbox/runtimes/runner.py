"""The inside of every sandbox process: one plan, then one task after another, over one socket.

The daemon sends `{"plan": ...}` once and then `{"task": i}`; it gets `{"prepared": true}` or
`{"unprepared": reason, ...}`, and `{"outcome": ..., "last": bool}` for each task.

SIGTERM to this process asks for a soft end of the task that runs. Nothing is begun after it.
"""

import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from lender.sandbox import frames
from lender.sandbox.frames import Frame
from lender.sandbox.plan import SandboxPlan, TaskOutcome, outcome_to_wire, plan_from_wire
from lender.sandbox.port import PrepareFailedError

ASKED_TO_END = "was asked to end"


class Runner(Protocol):
    """A runtime, prepared for one plan."""

    def run(self, task: int) -> TaskOutcome:
        """Run one task to its end."""
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
        when_idle: called once an outcome is on its way, for what can be done ahead.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.soft_stop = SoftStop()
        self.when_idle: Callable[[], None] = lambda: None
        self._sock = sock

    def send(self, outcome: TaskOutcome, *, last: bool = False) -> None:
        """Hand over how a task ended; after the last one this process ends."""
        header, body = outcome_to_wire(outcome)
        frames.send(self._sock, Frame({"outcome": header, "last": last}, body))


def serve(sock: socket.socket, start: Callable[[SandboxPlan, Reporter], Runner]) -> None:
    """Work for the daemon until it closes its end.

    Args:
        sock: a blocking stream socket.
        start: prepares a runtime; may raise PrepareFailedError.
    """
    decoder, reporter, runner = frames.Decoder(body_bytes_max=0), Reporter(sock), None
    while data := frames.read(sock):
        for frame in decoder.feed(data):
            if runner is not None:
                task = frame.header["task"]
                asked = reporter.soft_stop.asked
                reporter.send(_not_begun(task) if asked else runner.run(task))
                reporter.when_idle()
                continue
            try:
                runner = start(plan_from_wire(frame.header["plan"]), reporter)
            except PrepareFailedError as error:
                frames.send(
                    sock,
                    Frame(
                        {
                            "unprepared": error.reason,
                            "invalid": error.invalid,
                            "field": error.field,
                        }
                    ),
                )
                return
            frames.send(sock, Frame({"prepared": True}))


def _not_begun(task: int) -> TaskOutcome:
    now = time.monotonic()
    return TaskOutcome(task, "failed", error=ASKED_TO_END, started_at=now, terminated=True)
