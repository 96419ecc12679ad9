"""Which of a job's tasks have failed for good: as ranges, and with a bound."""

from collections.abc import Iterable

from broker.core.containers.ranges import RangeSet
from lender.protocol.job import TaskRange

KEPT_MAX = 10_000
"""Ranges of one job that the broker keeps; beyond that the number of failures alone is known."""


class Failures:
    """The failed tasks of a job, as far as they are kept, and all that its submitter took back."""

    __slots__ = ("_cancelled", "_tasks")

    def __init__(self) -> None:
        self._tasks: RangeSet | None = None  # of most jobs there are none
        self._cancelled: RangeSet | None = None

    def add(self, tasks: Iterable[TaskRange]) -> None:
        """Note failed tasks, while there is room."""
        if self._tasks is None:
            self._tasks = RangeSet()
        for first, count in tasks:
            if self._tasks.range_count >= KEPT_MAX:
                return
            self._tasks.add(first, count)

    def cancel(self, tasks: Iterable[TaskRange]) -> None:
        """Note tasks that count as failed since they were cancelled."""
        noted = tuple(tasks)
        if self._cancelled is None:
            self._cancelled = RangeSet()
        self._cancelled.add_all(noted)
        self.add(noted)

    @property
    def cancelled(self) -> RangeSet:
        """Those that were cancelled: all of them, so no more may be where that is `full`."""
        return RangeSet() if self._cancelled is None else self._cancelled

    @property
    def full(self) -> bool:
        """Whether there is room for no more that were cancelled."""
        return self.cancelled.range_count >= KEPT_MAX

    @property
    def whole(self) -> bool:
        """Whether all failed tasks are kept."""
        return self._tasks is None or self._tasks.range_count < KEPT_MAX

    def __contains__(self, task: int) -> bool:
        return self._tasks is not None and task in self._tasks

    def listed(self, ranges_max: int) -> tuple[TaskRange, ...]:
        """Return the first ranges."""
        return self._tasks.pairs()[:ranges_max] if self._tasks is not None else ()
