"""Tells that the machine slept from two clocks, one of which stands still meanwhile."""

import sys
import time
from dataclasses import dataclass

JITTER_S = 1.0
"""A difference below this is no sleep: the clocks are read one after the other."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """One reading.

    Attributes:
        with_sleep_s: runs on while the machine sleeps.
        awake_s: stands still while it sleeps.
    """

    with_sleep_s: float
    awake_s: float


def read_clocks() -> Clocks:
    """Read both: clock_gettime(2); on macOS its man page names the other pair."""
    if sys.platform == "darwin":
        awake_s = time.clock_gettime(time.CLOCK_UPTIME_RAW)
        return Clocks(time.clock_gettime(time.CLOCK_MONOTONIC), awake_s)
    awake_s = time.clock_gettime(time.CLOCK_MONOTONIC)
    return Clocks(time.clock_gettime(time.CLOCK_BOOTTIME), awake_s)


def slept_s(before: Clocks, after: Clocks) -> float:
    """Return how long the machine slept between two readings; 0.0: not at all."""
    asleep_s = (after.with_sleep_s - before.with_sleep_s) - (after.awake_s - before.awake_s)
    return asleep_s if asleep_s > JITTER_S else 0.0
