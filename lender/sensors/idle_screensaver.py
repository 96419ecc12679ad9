"""Idle time on KDE, Xfce, LXQt and others: org.freedesktop.ScreenSaver; about 0.3 ms.

`GetSessionIdleTime` is in no specification: KDE's answers in milliseconds, most others' in
seconds, some always 0. So an answer counts only once it was seen growing, at a rate that tells
its unit.
"""

import os
import time

from lender.sensors.dbus import Bus, UnansweredError
from lender.sensors.sighting import Sighting
from lender.sensors.sleep_clocks import read_clocks

PLACES = (
    ("org.freedesktop.ScreenSaver", "/org/freedesktop/ScreenSaver"),
    ("org.freedesktop.ScreenSaver", "/ScreenSaver"),
    ("org.gnome.ScreenSaver", "/org/gnome/ScreenSaver"),
)
_SPAN_S_MIN = 3.0
_SPANS_OF_SECONDS = 3


class Unit:
    """Finds the unit of idle times from how they grow.

    Milliseconds grow by 1,000 a second, and by less where input fell into the span; only by rare
    chance as slowly as seconds do. So seconds want several spans on end, and may be disproved.

    Attributes:
        seconds: length of one unit, 1.0 or 0.001; None: not known yet.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._before: tuple[float, int] | None = None
        self._slow_spans = 0

    def saw(self, at: float, answer: int) -> None:
        """Take one answer.

        Args:
            at: when it was given, in seconds that also pass while the machine sleeps.
            answer: the idle time in the unknown unit.
        """
        before, self._before = self._before, (at, answer)
        if before is None or answer < before[1]:
            self._slow_spans = 0
            return
        if at - before[0] < _SPAN_S_MIN:
            self._before = before
            return
        rate = (answer - before[1]) / (at - before[0])
        self._slow_spans = self._slow_spans + 1 if 0.5 < rate < 2 else 0
        if rate > 10:
            self.seconds = 0.001
        elif self._slow_spans == _SPANS_OF_SECONDS and self.seconds is None:
            self.seconds = 1.0


class ScreenSaverIdle:
    """Asks the first screen saver service that answers."""

    name = "screensaver"
    pace_s = 1.0

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._unit = Unit()

    def read(self) -> list[Sighting]:
        """Return when somebody last touched an input device.

        Raises:
            UnansweredError: there is none, or its unit is not known yet.
        """
        answer = self._ask()
        self._unit.saw(read_clocks().with_sleep_s, answer)
        if self._unit.seconds is None:
            raise UnansweredError("the unit of its idle time is not known yet")
        at = time.monotonic() - answer * self._unit.seconds
        return [Sighting(self.name, uid=os.getuid(), last_input_at=at, desktop=True)]

    def _ask(self) -> int:
        for service, path in PLACES:
            try:
                answer: int = self._bus.call(service, path, f"{service}.GetSessionIdleTime", "u")
            except UnansweredError:
                continue
            return answer
        raise UnansweredError("no screen saver service tells an idle time")
