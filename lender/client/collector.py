"""Which results of a job have been seen: pure, fed from events and from reads of RESULTS alike.

Events are ephemeral and may be lost, doubled or overtaken; RESULTS holds every record once. What
comes out of here is each task's result exactly once, in the order of arrival.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from lender.protocol.job import TaskRange
from lender.protocol.result import Chunk, TaskResult, Terminal

READS_AT_ONCE_MAX = 256
MISSES_WHILE_RUNNING_MAX = 256


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task's committed result, the lender that ran it, and under which attempt.

    Attributes:
        signed: it was shown that this lender has signed this result.
    """

    result: TaskResult
    lender: str
    attempt: int
    signed: bool = False


class Collector:
    """Folds records into new task results, and knows when none is missing."""

    def __init__(self, tasks: Iterable[TaskRange]) -> None:
        """Expect these, in ascending ranges; takes a byte for each index up to the last."""
        self.terminal: Terminal | None = None
        self._seen = bytearray()
        self._seen_count = 0
        for first, count in tasks:
            self._seen += b"\x01" * (first - len(self._seen)) + bytes(count)

    def take(
        self, record: Chunk | Terminal, signed: frozenset[int] = frozenset()
    ) -> list[TaskRecord]:
        """Return the task results of `record` that were not seen before.

        Args:
            record: what was stored.
            signed: the tasks in it whose results are their lender's for certain.
        """
        if isinstance(record, Chunk):
            results = record.results
        else:
            self.terminal = record
            results = (record.result,) if record.result else ()
        return [
            TaskRecord(result, record.lender or "", record.attempt or 0, result.task in signed)
            for result in results
            if self._mark(result.task)
        ]

    @property
    def complete(self) -> bool:
        """The job has ended and every task result that it counts was seen."""
        ended = self.terminal
        return ended is not None and self._seen_count >= ended.tasks_succeeded + ended.tasks_failed

    def missing(self, first: int) -> Iterator[int]:
        """Yield the tasks from `first` on that have no result yet."""
        while (first := self._seen.find(0, first)) >= 0:
            yield first
            first += 1

    def _mark(self, task: int) -> bool:
        if task >= len(self._seen) or self._seen[task]:
            return False
        self._seen[task] = 1
        self._seen_count += 1
        return True


class Sweep:
    """Which chunks to read next, so that every unseen one is found by its name alone.

    A chunk stands under its smallest task. So each unseen chunk stands under a missing task, and
    of an ended job the smallest missing task that has a result names one: reading under missing
    tasks' names finds all, and needs no right to list a stream that others write to.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._first = 0
        self._width = 1
        self._misses = 0

    def plan(self) -> list[int]:
        """Return the tasks to look for now, empty when the sweep is over.

        While the job runs, the rest is not looked for after 256 misses in a row; once it has
        ended, everything missing is.
        """
        if self._collector.terminal is None and self._misses >= MISSES_WHILE_RUNNING_MAX:
            return []
        return list(islice(self._collector.missing(self._first), self._width))

    def looked(self, tasks: list[int], hits: int) -> None:
        """Note how many of `plan()`'s tasks named a chunk: misses are cheap when read together."""
        self._first = tasks[-1] + 1
        self._width = 1 if hits else min(self._width * 4, READS_AT_ONCE_MAX)
        self._misses = 0 if hits else self._misses + len(tasks)
