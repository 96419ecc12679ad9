"""Arrays whose tasks are jobs that were submitted together: each ends by itself, under its name."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from broker.core.containers.ranges import RangeSet
from broker.core.durable.records import ChunkSummary
from broker.core.jobs.job import JobKey
from lender.protocol.bounds import EACH_MAX
from lender.protocol.ids import task_name, task_named
from lender.protocol.job import TaskRange
from lender.protocol.result import TerminalState


def key_of_task(array: JobKey, task: int) -> JobKey:
    """Return what a task is called as a job."""
    return JobKey(array.submitter, task_name(array.job, task))


def keys_of_tasks(array: JobKey, tasks: Iterable[TaskRange]) -> Iterator[JobKey]:
    """Yield what they are called; more than a message may hold are none of ours."""
    indices = chain.from_iterable(range(first, first + count) for first, count in tasks)
    for task in islice(indices, EACH_MAX):
        yield key_of_task(array, task)


def ended_in(array: JobKey, chunk: ChunkSummary) -> Iterator[tuple[JobKey, TerminalState]]:
    """Yield what a replay learns of tasks that are jobs: which of them have ended, and how."""
    if chunk.ended_at is None:
        return
    failed, others = RangeSet(chunk.failed_tasks), RangeSet(chunk.tasks)
    others.remove_all(failed)
    for one in keys_of_tasks(array, failed):
        yield one, "failed" if chunk.attempt else "cancelled"
    for one in keys_of_tasks(array, others):
        yield one, "succeeded"


class Separate:
    """The live ones: which of their tasks have not ended."""

    def __init__(self) -> None:
        self._left: dict[JobKey, RangeSet] = {}

    def __contains__(self, array: JobKey) -> bool:
        return array in self._left

    def add(self, array: JobKey, tasks: Iterable[TaskRange]) -> None:
        """Take up an array."""
        self._left[array] = RangeSet(tasks)

    def settle(self, array: JobKey, tasks: Iterable[TaskRange]) -> None:
        """Note that tasks have their results, of any job."""
        if (left := self._left.get(array)) is not None:
            left.remove_all(tasks)

    def left(self, array: JobKey, without: Iterable[int] = ()) -> tuple[TaskRange, ...] | None:
        """Return the tasks that have not ended, but for these; None for any other job."""
        if array not in self._left:
            return None
        left = RangeSet(self._left[array])
        for task in without:
            left.remove(task)
        return left.pairs()

    def drop(self, array: JobKey) -> tuple[TaskRange, ...]:
        """Forget a job that has ended; returns the tasks that had not, where those are jobs."""
        left = self._left.pop(array, None)
        return () if left is None else left.pairs()

    def array_of(self, task: JobKey) -> JobKey | None:
        """Return the live array that a job was submitted in."""
        named = task_named(task.job)
        array = None if named is None else JobKey(task.submitter, named[0])
        return array if array in self._left else None
