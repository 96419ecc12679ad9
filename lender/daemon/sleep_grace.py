"""The machine's sleep waits until everything was handed back, and no longer than it may."""

import asyncio
import logging
from collections.abc import Callable

from lender.core.events import Event, SleepAnnounced, WokenUp
from lender.daemon.clock import Clock
from lender.sensors.sleep import SleepWatch

log = logging.getLogger(__name__)

SLEEP_GRACE_S = 4.0
"""After the announcement of a sleep; logind waits 5 s (logind.conf(5), InhibitDelayMaxSec)."""


class SleepGrace:
    """Tells the core of a sleep and of its end.

    Attributes:
        watch: of the machine's sleep; `watch.release` lets it go on at once.
    """

    def __init__(self, post: Callable[[Event], None], clock: Clock) -> None:
        self._post = post
        self._clock = clock
        self._grace: asyncio.TimerHandle | None = None
        self.watch = SleepWatch(self._on_sleep, self._on_woken)

    def _on_sleep(self) -> None:
        self._post(SleepAnnounced())
        # Without a broker nothing answers: the machine sleeps all the same.
        self._end()
        self._grace = asyncio.get_running_loop().call_later(SLEEP_GRACE_S, self.watch.release)

    def _on_woken(self, slept_s: float) -> None:
        log.info("the machine slept for %.0f s", slept_s)
        # The loop's clock stood still: what is left of the grace would end the next inhibitor.
        self._end()
        self._clock.reread()
        self._post(WokenUp(slept_s))

    def _end(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
