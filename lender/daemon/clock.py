"""The daemon's clock: seconds since the epoch, never going back while the process lives."""

import sys
import time


class Clock:
    """Counts on from the wall clock, sleep of the machine included.

    A wall clock that was set back moves no deadline, and `behind_s` tells it: people speak by it.
    One that was set forward is followed with `reread`: what ends at a time of day must not outlive
    it because the clock was wrong at the start, as on a machine without a battery for it.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - _steady_s()

    def __call__(self) -> float:
        """Return now."""
        return self._offset_s + _steady_s()

    def behind_s(self) -> float:
        """Return how far the wall clock is behind, in tenths of a second; follow it forward."""
        self.reread()
        return round(max(0.0, self() - time.time()), 1)

    def reread(self) -> None:
        """Follow the wall clock forward."""
        self._offset_s = max(self._offset_s, time.time() - _steady_s())


def _steady_s() -> float:
    """Seconds that go on while the machine sleeps.

    CLOCK_BOOTTIME on Linux (clock_gettime(2)); macOS counts sleep in CLOCK_MONOTONIC, which
    Python's own monotonic clock there does not read.
    """
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.clock_gettime(time.CLOCK_BOOTTIME)
