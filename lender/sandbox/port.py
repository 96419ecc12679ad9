"""The interface between the daemon and any sandbox."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from lender.sandbox.plan import Limits, SandboxPlan, TaskOutcome
from lender.sandbox.processes.tree import Root

__all__ = [
    "AHEAD_MAX",
    "KNOWN_MAX",
    "Limits",
    "PrepareFailedError",
    "RecordRoots",
    "RefusedError",
    "Root",
    "Sandbox",
    "SandboxGoneError",
    "SandboxPlan",
    "TaskOutcome",
]

RecordRoots = Callable[[tuple[Root, ...]], Awaitable[None]]
"""Called with the root processes before any of them may run; must have written them durably when
it returns, so that `lender revoke` finds them without the daemon."""


AHEAD_MAX: Final = 128
"""A sandbox is told of no more tasks behind the one that it works at."""
KNOWN_MAX: Final = 2 * AHEAD_MAX
"""Of those behind the one that is waited for so many may be known to it, or have an outcome."""


class PrepareFailedError(Exception):
    """The sandbox could not be made ready.

    Attributes:
        reason: in words, for the submitter.
        invalid: the job itself is at fault (its module doesn't parse); another machine would
            refuse it too. Otherwise this machine is.
        field: the field of the specification that is wrong, when `invalid`.
    """

    def __init__(self, reason: str, *, invalid: bool = False, field: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.invalid = invalid
        self.field = field


class RefusedError(Exception):
    """The owner's word came first: `path` appeared between the launch and the go."""

    def __init__(self, path: str) -> None:
        super().__init__(f"not started: {path} exists")
        self.path = path


class SandboxGoneError(Exception):
    """The sandbox was killed, or died, under a call. Its task has no outcome."""


class Sandbox(Protocol):
    """One lease's sandbox. One task at a time."""

    @property
    def cgroup(self) -> Path | None:
        """The cgroup v2 folder that holds every process of it; None where there is none."""
        ...

    @property
    def root_pids(self) -> tuple[Root, ...]:
        """The processes to freeze, thaw or kill (`lender.sandbox.processes`); () when none."""
        ...

    async def prepare(self) -> None:
        """Start it, place the inputs, compile the program. Not execution time.

        Raises:
            PrepareFailedError: the module doesn't parse, an input can't be read, no process.
            RefusedError: a path of `abort_if_exists` was there right before the start.
            SandboxGoneError: it was killed meanwhile.
        """
        ...

    async def run(self, task_index: int, ahead: Sequence[int] = ()) -> TaskOutcome:
        """Run one task in a scratch folder that holds the inputs and nothing else.

        What the task wrote stays there until the next `run` or `close`, unless others were named.

        Args:
            task_index: its number.
            ahead: tasks that will be run next, in this order and before any other: they may be
                begun as soon as this one has ended, and run twice where a sandbox ends.

        Raises:
            SandboxGoneError: it was killed, closed or crashed.
            RefusedError: a sandbox that ended with its last task was not started again.
        """
        ...

    async def run_together(self, tasks: Sequence[int]) -> Sequence[TaskOutcome]:
        """Run the first of these, and as many behind it as have come to an end meanwhile.

        Args:
            tasks: what is to be run, in this order; see `run` for those ahead.

        Returns:
            One outcome or more, of the first tasks.

        Raises:
            SandboxGoneError: as for `run`.
            RefusedError: as for `run`.
        """
        ...

    def begin_job(
        self,
        job: str,
        task_count: int,
        *,
        separate: bool = False,
        each: Sequence[Sequence[str]] = (),
    ) -> None:
        """Have the tasks that follow be another job's, which asks for the same as the one before.

        None of that is under way any more. Not for runtimes whose tasks meet what others left.

        Args:
            job: see `SandboxPlan`, as for all of them.
            task_count: of that job.
            separate: its tasks are jobs of their own.
            each: the words of each of its tasks.
        """
        ...

    async def load(self, job: str, task_count: int, program: Path) -> None:
        """Have the tasks that follow be another job's, of another program, in the same interpreter.

        Only of the python runtime, for a job that asks for the same as the one before but for the
        program; none of that one's is under way any more. Where the program can't be loaded
        there, another interpreter is started.

        Raises:
            PrepareFailedError, RefusedError, SandboxGoneError: as `prepare`.
        """
        ...

    async def close(self) -> None:
        """Kill what is left and wipe the scratch folder's contents, nothing else. Idempotent."""
        ...
