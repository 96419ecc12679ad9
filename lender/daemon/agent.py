"""The agent of one user's session: tells a lenderd of another user whether this one is there.

lenderd as a system service can't see a session's bus or display; this process can, and tells it
over the control socket. It holds no rights: lenderd takes it as this user's word on his own
session.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lender.daemon.control_client import UnreachableError
from lender.sensors.sighting import Surroundings

LOOK_S = 1.0
TELL_S = 30.0
"""Told at least this often; lenderd forgets a report after 90 s."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is told; fields of the control verb `presence`."""

    idle_s: float | None
    locked: bool | None
    inhibited_by: str
    game: bool
    source: str

    @classmethod
    def of(cls, surroundings: Surroundings) -> "Report":
        """Make a report of what this session's sources see."""
        presence = surroundings.presence
        return cls(
            idle_s=None if presence.idle_s is None else round(presence.idle_s, 1),
            locked=presence.locked,
            inhibited_by=surroundings.inhibited_by,
            game=surroundings.game,
            source=", ".join(presence.sources),
        )

    def differs(self, before: "Report", elapsed_s: float) -> bool:
        """Tell whether lenderd would be wrong to let `before` just grow older."""
        if (self.idle_s is None) != (before.idle_s is None):
            return True
        came_back = (
            self.idle_s is not None
            and before.idle_s is not None
            and self.idle_s < before.idle_s + elapsed_s - 2 * LOOK_S
        )
        rest = (self.locked, self.inhibited_by, self.game, self.source)
        return came_back or rest != (before.locked, before.inhibited_by, before.game, before.source)


class Telling:
    """Decides when to tell. Pure."""

    def __init__(self) -> None:
        self._told: tuple[float, Report] | None = None

    def due(self, now: float, report: Report) -> bool:
        """Tell whether this report should go out now.

        Args:
            now: seconds of any steady clock.
            report: what is seen now.
        """
        if self._told is None:
            return True
        at, before = self._told
        return now - at >= TELL_S or report.differs(before, now - at)

    def tried(self, now: float, report: Report) -> None:
        """Note that it was told, or could not be: that is tried again after `TELL_S`."""
        self._told = (now, report)


def tell_forever(
    look: Callable[[], Surroundings],
    ask: Callable[[dict[str, Any]], dict[str, Any]],
    stopping: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Look and tell until `stopping`; a lenderd that is gone or refuses is told again later.

    Args:
        look: what this session's sources see now.
        ask: sends a request to lenderd; raises UnreachableError.
        stopping: ends the loop.
        say: takes a line for the log whenever the outcome changes.
    """
    telling, outcome = Telling(), ""
    while not stopping.is_set():
        report, now = Report.of(look()), time.monotonic()
        if telling.due(now, report):
            telling.tried(now, report)
            before, outcome = outcome, _tell(ask, report)
            if outcome != before:
                say(outcome)
        stopping.wait(LOOK_S)


def _tell(ask: Callable[[dict[str, Any]], dict[str, Any]], report: Report) -> str:
    try:
        reply = ask({"verb": "presence", **asdict(report)})
    except UnreachableError as error:
        return f"lenderd does not answer: {error}"
    if reply["ok"]:
        return "lenderd is told whether you are here"
    refusal = reply.get("error")
    return f"lenderd refuses: {refusal.get('message') if isinstance(refusal, dict) else refusal}"
