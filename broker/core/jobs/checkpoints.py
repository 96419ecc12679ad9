"""What the tasks of one job would go on from: the newest checkpoint of each, as far as known."""

from collections.abc import Iterable

from broker.core.containers.ranges import RangeSet
from lender.protocol.job import BlobRef
from lender.protocol.lease import TaskCheckpoint

CHECKPOINTS_MAX = 10_000
"""Taken of one job in its life: each leaves a note in RESULTS. A week has 10,080 minutes."""


class Checkpoints:
    """The checkpoints of a job's tasks that have no result yet."""

    def __init__(self) -> None:
        self._newest: dict[int, BlobRef] = {}
        self.taken = 0
        """How many were taken so far: the number of the next note about them."""

    def take(self, reported: Iterable[TaskCheckpoint]) -> tuple[TaskCheckpoint, ...]:
        """Note what was reported, and return what is news; beyond the bound nothing is."""
        news = []
        for task, blob in reported:
            if self.taken < CHECKPOINTS_MAX and self._newest.get(task) != blob:
                self._newest[task] = blob
                self.taken += 1
                news.append((task, blob))
        return tuple(news)

    def restore(self, number: int, noted: tuple[TaskCheckpoint, ...]) -> None:
        """Take up a note of an earlier broker; they come in their order."""
        self._newest.update(noted)
        self.taken = number + len(noted)

    def drop(self, task: int) -> None:
        """Forget that of a task that has its result."""
        self._newest.pop(task, None)

    def keep(self, tasks: RangeSet) -> None:
        """Forget those of all tasks but these."""
        self._newest = {task: blob for task, blob in self._newest.items() if task in tasks}

    def of(self, tasks: RangeSet) -> tuple[TaskCheckpoint, ...]:
        """Return those of these tasks."""
        if not self._newest:
            return ()
        return tuple(
            (task, self._newest[task])
            for first, count in tasks
            for task in range(first, first + count)
            if task in self._newest
        )
