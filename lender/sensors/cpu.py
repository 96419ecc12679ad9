"""Cores kept busy on this machine, and by given processes (psutil); about 25 µs a reading."""

import time
from typing import NamedTuple

import psutil

MIN_INTERVAL_S = 0.05
"""The kernel counts in ticks of 10 ms: shares of less than a few of them mean nothing."""


class Cpu(NamedTuple):
    """What happened since the reading before.

    Attributes:
        others: cores kept busy by processes that are not ours.
        busy_s: CPU time of everybody; 0 where it is not known.
        elapsed_s: what it is to be divided by.
    """

    others: float
    busy_s: float
    elapsed_s: float


class CpuSensor:
    """The machine's cores, ours taken off. Time that a hypervisor takes counts as others'."""

    def __init__(self) -> None:
        self._cores = float(psutil.cpu_count() or 1)
        self._busy_s = _machine()[0]
        self._ours_s = 0.0
        self._at = time.monotonic()
        # Nothing is known yet: the owner may need it all.
        self._others = self._cores

    def read(self, now: float, ours_s: float) -> Cpu:
        """What happened since the reading before; soon after one its answer still stands.

        Args:
            now: `time.monotonic()`.
            ours_s: CPU time of our own processes since the reading before.
        """
        self._ours_s += ours_s
        elapsed_s = now - self._at
        if elapsed_s < MIN_INTERVAL_S:
            return Cpu(self._others, 0.0, 0.0)
        before_s, self._busy_s = self._busy_s, _machine()[0]
        spent_s = max(0.0, self._busy_s - before_s)
        self._others = min(self._cores, max(0.0, spent_s - self._ours_s) / elapsed_s)
        self._ours_s, self._at = 0.0, now
        return Cpu(self._others, spent_s, elapsed_s)


def _machine() -> tuple[float, float]:
    times = psutil.cpu_times()
    # Linux counts guest time within user and nice as well.
    guest_s = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    total_s = sum(times) - guest_s
    return total_s - times.idle - getattr(times, "iowait", 0.0), total_s
