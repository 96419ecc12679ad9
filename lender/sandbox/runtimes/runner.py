"""The inside of every sandbox process: one plan, then one task after another, over one socket.

The daemon sends `{"plan": ...}` once and then `{"task": i}`; it gets `{"prepared": true}` or
`{"unprepared": reason, ...}`, and `{"outcome": ..., "last": bool}` for each task.
"""

import socket
from collections.abc import Callable
from typing import Protocol

from lender.sandbox import frames
from lender.sandbox.frames import Frame
from lender.sandbox.plan import SandboxPlan, TaskOutcome, outcome_to_wire, plan_from_wire
from lender.sandbox.port import PrepareFailedError


class Runner(Protocol):
    """A runtime, prepared for one plan."""

    def run(self, task: int) -> TaskOutcome:
        """Run one task to its end."""
        ...


class Reporter:
    """The way back to the daemon."""

    def __init__(self, sock: socket.socket) -> None:
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
    while True:
        data, fds = frames.receive(sock)
        if not data:
            return
        for frame in decoder.feed(data, fds):
            if runner is not None:
                reporter.send(runner.run(frame.header["task"]))
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
