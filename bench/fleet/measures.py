"""What is counted as it happens, in bins of time."""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

BIN_S = 600.0


class Series:
    """A quantity that is so large from one change to the next; kept as its integral by bin."""

    def __init__(self, bins: int) -> None:
        self.value = 0.0
        self.bins = array("d", bytes(8 * bins))
        self._since_s = 0.0

    def add(self, now_s: float, change: float) -> None:
        """Change the quantity."""
        self.settle(now_s)
        self.value += change

    def settle(self, now_s: float) -> None:
        """Count what there has been up to now."""
        while (end_s := BIN_S * (int(self._since_s / BIN_S) + 1)) <= now_s:
            self._count(end_s)
        self._count(now_s)

    def _count(self, until_s: float) -> None:
        at = int(self._since_s / BIN_S)
        if at < len(self.bins):
            self.bins[at] += self.value * (until_s - self._since_s)
        self._since_s = until_s


class Waits:
    """For how long tasks have waited before they first began."""

    def __init__(self) -> None:
        self._began_s = array("d")
        self._waited_s = array("d")
        self._tasks = array("L")

    def add(self, began_s: float, waited_s: float, tasks: int) -> None:
        """Count some tasks that begin together."""
        self._began_s.append(began_s)
        self._waited_s.append(waited_s)
        self._tasks.append(tasks)

    @property
    def tasks(self) -> int:
        """How many have begun."""
        return sum(self._tasks)

    def percentiles(self, *parts: float) -> list[float]:
        """Return by how many seconds so many of the tasks had begun; none has: not a number."""
        return _percentiles(zip(self._waited_s, self._tasks, strict=True), parts)

    def by_time(self, bin_s: float, part: float) -> list[tuple[float, float]]:
        """Return the same percentile for each bin in which tasks began."""
        found: dict[int, list[tuple[float, int]]] = {}
        for began_s, waited_s, tasks in zip(
            self._began_s, self._waited_s, self._tasks, strict=True
        ):
            found.setdefault(int(began_s / bin_s), []).append((waited_s, tasks))
        return [((at + 0.5) * bin_s, _percentiles(found[at], (part,))[0]) for at in sorted(found)]


def _percentiles(waits: Iterable[tuple[float, int]], parts: Iterable[float]) -> list[float]:
    ordered = sorted(waits)
    sums = list(accumulate(tasks for _, tasks in ordered))
    if not sums:
        return [float("nan") for _ in parts]
    return [ordered[bisect_left(sums, part * sums[-1])][0] for part in parts]


class Reported(NamedTuple):
    """What a report says that is not answered yet."""

    submitter: str
    succeeded: int
    slot_s: float
    """For each of those."""


class Measures:
    """All that is counted."""

    def __init__(self, end_s: float, submitters: Iterable[str]) -> None:
        self.bins = int(end_s / BIN_S) + 1
        self.lent = Series(self.bins)
        """Slots that lenders lend."""
        self.busy = Series(self.bins)
        """Those of them that run something."""
        self.waits = {key: Waits() for key in submitters}
        self.tasks_done: Counter[str] = Counter()
        """Results that the broker has committed, by submitter."""
        self.useful_slot_s: Counter[str] = Counter()
        """What went into them, by submitter."""
        self.wasted: dict[str, array[float]] = {}
        """Slot-seconds whose results nobody has, by cause and bin."""
        self.core_s = array("d", bytes(8 * self.bins))
        """Processor time of the broker's core."""
        self.leases = array("L", bytes(array("L").itemsize * self.bins))
        """Leases that left the core."""
        self.events: Counter[str] = Counter()
        """What the core was told, by kind."""
        self.jobs_ended: Counter[str] = Counter()
        self.handed_back: Counter[str] = Counter()
        """Leases that ended otherwise than finished, by cause."""

    def bin_of(self, now_s: float) -> int:
        """Return the bin of a time."""
        return min(self.bins - 1, int(now_s / BIN_S))

    def waste(self, now_s: float, cause: str, slot_s: float) -> None:
        """Count work that was for nothing."""
        if cause not in self.wasted:
            self.wasted[cause] = array("d", bytes(8 * self.bins))
        self.wasted[cause][self.bin_of(now_s)] += slot_s
