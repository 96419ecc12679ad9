"""Jobs that have ended, remembered compactly and with a bound, to answer queries."""

from collections.abc import Iterator

from broker.core.containers.recent import Recent
from broker.core.jobs.job import JobKey
from lender.protocol.query import JobStatus

PER_SUBMITTER_MAX = 1_000
EARLY_CANCELS_MAX = 10_000


class History:
    """The last jobs of each submitter, and cancellations that came before their job."""

    def __init__(self) -> None:
        self._ended: dict[str, Recent[str, JobStatus]] = {}
        self._early_cancels: Recent[JobKey, None] = Recent(EARLY_CANCELS_MAX)

    def __contains__(self, key: JobKey) -> bool:
        return self.get(key) is not None

    def add(self, submitter: str, status: JobStatus) -> None:
        """Remember how a job ended."""
        self._ended.setdefault(submitter, Recent(PER_SUBMITTER_MAX))[status.job] = status

    def get(self, key: JobKey) -> JobStatus | None:
        """Return how a job ended, if that is remembered."""
        ended = self._ended.get(key.submitter)
        return ended.get(key.job) if ended else None

    def newest(self, submitter: str) -> Iterator[JobStatus]:
        """Yield the submitter's ended jobs, the last ended first."""
        ended = self._ended.get(submitter)
        return ended.newest() if ended else iter(())

    def note_early_cancel(self, key: JobKey) -> None:
        """Remember a cancellation of a job that is not known (yet)."""
        self._early_cancels[key] = None

    def was_cancelled_early(self, key: JobKey) -> bool:
        """Tell whether the job was cancelled before it came."""
        return key in self._early_cancels
