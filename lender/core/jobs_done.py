"""How much of each job was done here: what a signature is worth once is not done again.

A submitter's signature holds until its job's `not_after`, and whoever has the broker's part could
show it as often as they like, under ever new leases. So the lender counts by itself, and by job:

- *taken*: successes that the broker has answered as committed. A task has one result, so there are
  no more of them than tasks; of a job whose answers have to agree, one for each try.
- *run*: tasks that were run to an end, or broken off by the broker's word. Answers may be lost on
  the way, so that they are run once more: twice as many as the job stands for, and some more.

docs/decisions/0027-signed-results.md has what that stops, and what it does not.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple

from lender.protocol.job import JobSpec

KEPT_MAX: Final = 65_536
"""Jobs that are remembered; beyond, the one is forgotten that was worked on longest ago."""

RUN_MORE_MAX: Final = 32
"""Tasks whose answers may be lost on the way, beside one of two."""

TAKEN: Final = "its tasks have been run here, and their results were taken"
TOO_OFTEN: Final = "it has been run here more often than its submitter has signed for"

_KEY_BYTES: Final = 16


class JobDone(NamedTuple):
    """What was done here of one job.

    Attributes:
        key: a digest of the submitter's key and the job's id, as hexadecimal.
        taken: successes of its tasks that the broker has answered as committed.
        run: its tasks that were run.
    """

    key: str
    taken: int
    run: int


class JobsDone:
    """A count for each of the jobs that were worked on last."""

    def __init__(self) -> None:
        self._counts: dict[bytes, tuple[int, int]] = {}

    def recall(self, kept: Iterable[JobDone]) -> None:
        """Take up what an earlier run has kept, oldest first; a later count of a job counts."""
        for one in kept:
            self._put(bytes.fromhex(one.key), one.taken, one.run)

    def count(self, spec: JobSpec, *, taken: int, run: int) -> JobDone:
        """Add to what was done of a job; returns what is to be kept."""
        key = _key(spec)
        taken_before, run_before = self._counts.get(key, (0, 0))
        done = taken_before + taken, run_before + run
        self._put(key, *done)
        return JobDone(key.hex(), *done)

    def fault(self, spec: JobSpec, tasks: int, in_work: int) -> str | None:
        """Tell why so many tasks of a job are not run here; None: they may be.

        Args:
            spec: of the job.
            tasks: of the lease that is asked about.
            in_work: tasks in other leases of the job that are held.
        """
        taken, run = self._counts.get(_key(spec), (0, 0))
        tries = 1 + spec.retries
        answers = spec.task_count if spec.verify is None else spec.task_count * tries
        if taken + tasks > answers:
            return TAKEN
        if run + in_work + tasks > 2 * tries * spec.task_count + RUN_MORE_MAX:
            return TOO_OFTEN
        return None

    def _put(self, key: bytes, taken: int, run: int) -> None:
        self._counts.pop(key, None)
        self._counts[key] = taken, run
        if len(self._counts) > KEPT_MAX:
            del self._counts[next(iter(self._counts))]


def _key(spec: JobSpec) -> bytes:
    name = f"{spec.submitter}.{spec.id}"
    return blake2b(name.encode(), digest_size=_KEY_BYTES).digest()
