"""How often the work of tasks has failed that are tried again.

A lease says so of its tasks (its header `Lender-Failures`), yet a task that rests or waits stands
in no lease. So it is noted in RESULTS, before the failure is answered: a task is tried as often as
was asked for, and no more, whatever crashes.
"""

from collections.abc import Iterator

from broker.core.containers.ranges import RangeSet
from broker.core.durable.records import RetriesSummary, retries_record
from broker.core.effects import Record
from broker.core.jobs.job import Job, Step

_RANGES_MAX = 1_000
"""In one note: a stream takes headers of up to 64 KiB."""


def notes(job: Job, step: Step, tasks: RangeSet) -> list[Record]:
    """Return what keeps that the work of these tasks has failed at `step`, to be tried again."""
    records = []
    ranges = tasks.pairs()
    for first in range(0, len(ranges), _RANGES_MAX):
        some = ranges[first : first + _RANGES_MAX]
        summary = RetriesSummary(some, step.failures + 1, step.attempt)
        records.append(retries_record(*job.key, job.retries_notes, summary))
        job.retries_notes += 1
    return records


class Retries:
    """What RESULTS holds of it, of one job."""

    def __init__(self) -> None:
        self._tasks: dict[int, RangeSet] = {}
        self.notes = 0
        """How many notes there are: the number of the next one."""

    def restore(self, number: int, summary: RetriesSummary) -> None:
        """Take up a note."""
        self.notes = number + 1
        tasks = RangeSet(summary.tasks)
        tasks.remove_all(self.beyond(summary.failures))
        for fewer in self._tasks.values():
            fewer.remove_all(tasks)
        self._tasks.setdefault(summary.failures, RangeSet()).add_all(tasks)

    def beyond(self, failures: int) -> RangeSet:
        """Return the tasks whose work has failed more often than that."""
        found = RangeSet()
        for times, tasks in self._tasks.items():
            if times > failures:
                found.add_all(tasks)
        return found

    def take_from(self, tasks: RangeSet) -> Iterator[tuple[int, RangeSet]]:
        """Take those of these tasks that have failed out of them, by how often they have."""
        for times, failed in self._tasks.items():
            found = tasks.overlap(failed)
            if found:
                tasks.remove_all(found)
                yield times, found
