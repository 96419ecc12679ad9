"""Cores kept busy on this machine, and by given processes (psutil); about 25 µs a reading."""

import time
from collections.abc import Iterable
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


class CpuMeter:
    """Cores busy between two calls of `read`; about 0.1 ms a call, plus the scan of our trees."""

    def __init__(self) -> None:
        self._busy_s, self._total_s = _machine()
        self._ours_s: dict[int, float] = {}

    def read(self, our_pids: Iterable[int]) -> float:
        """Return the cores that processes other than ours kept busy since the last call.

        Args:
            our_pids: roots of the sandboxes' process trees.
        """
        busy_s, total_s = _machine()
        ours_s = _trees(our_pids)
        # A process that has ended takes its time along: count only what grew.
        grown_s = sum(max(0.0, s - self._ours_s.get(pid, 0.0)) for pid, s in ours_s.items())
        elapsed_s = (total_s - self._total_s) / (psutil.cpu_count() or 1)
        spent_s = busy_s - self._busy_s
        self._busy_s, self._total_s, self._ours_s = busy_s, total_s, ours_s
        if elapsed_s <= 0:
            return 0.0
        return max(0.0, spent_s - grown_s) / elapsed_s


def _machine() -> tuple[float, float]:
    times = psutil.cpu_times()
    # Linux counts guest time within user and nice as well.
    guest_s = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    total_s = sum(times) - guest_s
    return total_s - times.idle - getattr(times, "iowait", 0.0), total_s


def _trees(roots: Iterable[int]) -> dict[int, float]:
    seconds: dict[int, float] = {}
    for root in roots:
        try:
            top = psutil.Process(root)
            processes = [top, *top.children(recursive=True)]
        except psutil.Error:
            continue
        for process in processes:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            seconds[process.pid] = times.user + times.system
    return seconds
