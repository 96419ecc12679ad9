"""What each submitter may have in the broker at once, and what it has."""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Quota(NamedTuple):
    """The most that one submitter may have at once. Each is at least 1, but for what is handed out.

    A job counts from its acceptance to its end, whether it waits or runs, and its tasks with it.
    """

    jobs_max: int = 100_000
    tasks_max: int = 20_000_000
    """Of all its jobs together: what fills RESULTS."""
    running_tasks_max: int | None = None
    """Tasks handed out; None for as many as there is room for. 0 holds all back that waits."""
    bytes_max: int = 256 << 20
    """Of its jobs' specifications, which the broker keeps in memory."""


DEFAULT: Final = Quota()

UNDECIDED_MAX: Final = 200_000
"""Tasks of one submitter that may be kept by themselves since several lenders answer them: 600
bytes each."""

_PLENTY: Final = 1 << 62


class _Used:
    """What one submitter has."""

    __slots__ = ("bytes", "jobs", "running", "tasks", "undecided")

    def __init__(self) -> None:
        self.jobs = self.tasks = self.running = self.bytes = self.undecided = 0


class Quotas:
    """Counts what submitters have, and says when it is enough."""

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        self._used: dict[str, _Used] = {}
        self._passed_over: dict[str, None] = {}
        self.change(quotas)

    def change(self, quotas: Mapping[str, Quota]) -> list[str]:
        """Take other quotas; what is over them already stays.

        Returns:
            Those that were passed over in their turn and need not be any longer.
        """
        self._quotas = quotas
        self._running_max = {
            submitter: quota.running_tasks_max
            for submitter, quota in quotas.items()
            if quota.running_tasks_max is not None
        }
        return [submitter for submitter in self._passed_over if self.room(submitter)]

    def of(self, submitter: str) -> Quota:
        """Return what a submitter may have."""
        return self._quotas.get(submitter, DEFAULT)

    def full(self, submitter: str) -> str | None:
        """Say why a submitter's next job can't be taken, whatever it is; None if it may be."""
        used, quota = self._used.get(submitter), self.of(submitter)
        if used is None or used.jobs < quota.jobs_max:
            return None
        return (
            f"you have {used.jobs} jobs that have not ended, of {quota.jobs_max} that you may have:"
            " wait until some have ended, or send many tasks as one array"
        )

    def refuses(
        self, submitter: str, tasks: int, size_bytes: int, undecided: int, at_once: int
    ) -> str | None:
        """Say why a job of so many tasks and bytes can't be taken, which is not one too many.

        Of these tasks `undecided` at most are out, or wait for more answers, at the same time, and
        `at_once` have to run at the same time.
        """
        used, quota = self._used.get(submitter) or _Used(), self.of(submitter)
        if used.tasks + tasks > quota.tasks_max:
            return (
                f"{tasks} tasks are too many beside the {used.tasks} of your jobs that have not"
                f" ended: you may have {quota.tasks_max}; wait, or make the array smaller"
            )
        if used.bytes + size_bytes > quota.bytes_max:
            return (
                f"{size_bytes} bytes are too many beside the {used.bytes} of your jobs that have"
                f" not ended: you may have {quota.bytes_max}; wait, or send data as inputs"
            )
        if quota.running_tasks_max is not None and at_once > quota.running_tasks_max:
            return (
                f"a gang of {at_once} can't ever run: you may have {quota.running_tasks_max} tasks"
                " handed out at once; make it smaller, or ask the operator for more"
            )
        if undecided and used.undecided + undecided > UNDECIDED_MAX:
            return (
                f"{undecided} tasks that others answer as well are too many at once beside the"
                f" {used.undecided} of your jobs with `verify` that have not ended: you may have"
                f" {UNDECIDED_MAX}; wait until some have ended"
            )
        return None

    def overflows(self, submitter: str) -> bool:
        """Tell whether a start had better leave what more a submitter has asked to the ledger.

        A quota that was lowered below what is usual does not count here: what was taken in goes on.
        """
        used = self._used.get(submitter)
        return used is not None and (
            (used.jobs >= DEFAULT.jobs_max and used.jobs >= self.of(submitter).jobs_max)
            or (used.bytes >= DEFAULT.bytes_max and used.bytes >= self.of(submitter).bytes_max)
            or used.undecided > UNDECIDED_MAX
        )

    def take_up(self, submitter: str, tasks: int, size_bytes: int, undecided: int) -> None:
        """Count a job."""
        used = self._used.get(submitter)
        if used is None:
            used = self._used[submitter] = _Used()
        used.jobs += 1
        used.tasks += tasks
        used.bytes += size_bytes
        used.undecided += undecided

    def end(self, submitter: str, tasks: int, size_bytes: int, undecided: int) -> None:
        """Count a job no longer; its leases have ended."""
        used = self._used[submitter]
        used.jobs -= 1
        used.tasks -= tasks
        used.bytes -= size_bytes
        used.undecided -= undecided
        if not used.jobs:
            del self._used[submitter]
            self._passed_over.pop(submitter, None)

    def lease(self, submitter: str, tasks: int) -> None:
        """Count tasks of a job that were handed out."""
        self._used[submitter].running += tasks

    def release(self, submitter: str, tasks: int) -> bool:
        """Count them no longer; returns whether the submitter is not to be passed over any more."""
        self._used[submitter].running -= tasks
        return submitter in self._passed_over and self.room(submitter) > 0

    def room(self, submitter: str) -> int:
        """Return how many tasks more may be handed out, 0 for a submitter that has its most."""
        most = self._running_max.get(submitter)
        if most is None:
            return _PLENTY
        used = self._used.get(submitter)
        return max(0, most - (used.running if used is not None else 0))

    def pass_over(self, submitter: str) -> None:
        """Note that it was a submitter's turn while it had its most."""
        self._passed_over[submitter] = None

    def comes_back(self, submitter: str) -> None:
        """Note that its turns count again."""
        self._passed_over.pop(submitter, None)
