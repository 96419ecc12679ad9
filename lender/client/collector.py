"""Which results of a job have been seen: pure, fed from events and from reads of RESULTS alike.

Events are ephemeral and may be lost, doubled or overtaken; RESULTS holds every record once. What
comes out of here is each task's result exactly once, in the order of arrival.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from lender.protocol.job import TaskRange
from lender.protocol.result import Chunk, TaskResult, Terminal
from lender.protocol.result_run import tasks_of

READS_AT_ONCE_MAX = 256
MISSES_WHILE_RUNNING_MAX = 256

Place = tuple[Sequence[TaskResult], int]
"""Some results, and which of them."""


class TaskRecord:
    """One task's committed result, the lender that ran it, and under which attempt.

    Attributes:
        lender: its public key.
        attempt: the number of that attempt.
        signed: it was shown that this lender has signed this result.
    """

    __slots__ = ("_result", "attempt", "lender", "signed")

    def __init__(
        self,
        result: TaskResult | Place,
        lender: str,
        attempt: int,
        signed: bool = False,  # noqa: FBT001, FBT002 - as a field
    ) -> None:
        """Take a result, or where it stands: it is made, and its chunk let go, when looked at."""
        self._result = result
        self.lender = lender
        self.attempt = attempt
        self.signed = signed

    @property
    def result(self) -> TaskResult:
        """The result: what the task's lender has said."""
        found = self._result
        if isinstance(found, tuple):
            results, at = found
            found = self._result = results[at]
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskRecord):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return "TaskRecord({!r}, {!r}, {!r}, signed={!r})".format(*self._fields())

    def _fields(self) -> tuple[TaskResult, str, int, bool]:
        return self.result, self.lender, self.attempt, self.signed


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
        results: Sequence[TaskResult]
        if isinstance(record, Chunk):
            results = record.results
        else:
            self.terminal = record
            results = (record.result,) if record.result else ()
        tasks = tasks_of(results)
        fresh: Iterable[int] = range(len(tasks))
        if not (isinstance(tasks, range) and self._mark_run(tasks)):
            fresh = [at for at in fresh if self._mark(tasks[at])]
        lender, attempt = record.lender or "", record.attempt or 0
        return [TaskRecord((results, at), lender, attempt, tasks[at] in signed) for at in fresh]

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

    def _mark_run(self, run: range) -> bool:
        """Mark all of these, if all are expected and none was seen; tell whether that is so."""
        if run.stop > len(self._seen) or self._seen.find(1, run.start, run.stop) >= 0:
            return False
        self._seen[run.start : run.stop] = b"\x01" * len(run)
        self._seen_count += len(run)
        return True

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
