"""The process runtime on macOS: each task is one command inside sandbox-exec, watched from outside.

Written from documentation and not yet run on a Mac; `seatbelt` says what its walls rest on.

How it differs from Linux: there is no /work, the scratch folder has its own path and is the task's
HOME, TMPDIR and working folder; inputs are copies in it; without an account of lenderd's own a task
can't start processes, and its threads are never counted; memory is watched only
(ri_phys_footprint), so a fast bomb is over its limit for a moment; tries to reach a network are
refused but not counted.
"""

from collections.abc import Sequence
from functools import partial

from lender.sandbox.files import checkpoint, scratch
from lender.sandbox.plan import SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import libproc
from lender.sandbox.runtimes import command
from lender.sandbox.runtimes.runner import Reporter
from lender.sandbox.runtimes.seatbelted import Meters, Seatbelt, SeatbeltTask


def preload() -> None:
    """See that libproc is there.

    Raises:
        OSError: this is no Mac.
    """
    libproc.load()


def start(plan: SandboxPlan, reporter: Reporter) -> "SeatbeltRunner":
    """Be the sandbox of one plan; see `runner.serve`.

    Raises:
        PrepareFailedError: see `SeatbeltRunner`; or it brings a root file system.
    """
    if plan.program is not None:
        raise PrepareFailedError("no root file system of a job's own on macOS")
    processes = libproc.load()
    return SeatbeltRunner(plan, Meters(processes.footprint_bytes, processes.cpu_s), reporter)


class SeatbeltRunner:
    """Runs one plan's tasks.

    Args:
        plan: what to run.
        meters: what is told of its processes.
        reporter: the way back to the daemon.

    Raises:
        PrepareFailedError: no command, an input can't be read, no sandbox-exec.
    """

    def __init__(self, plan: SandboxPlan, meters: Meters, reporter: Reporter) -> None:
        self._plan = plan._replace(scratch=plan.scratch.resolve())
        self._seatbelt = Seatbelt(self._plan, meters)
        if not (plan.argv or plan.each):
            raise PrepareFailedError("no command", invalid=True, field="argv")
        self._inputs = scratch.Inputs(self._plan.scratch, plan.inputs)
        self._inputs.restore()
        self._reporter = reporter

    def begin_job(self, job: str, task_count: int, *, separate: bool) -> None:
        """See `Runner`."""
        self._plan = self._plan._replace(job=job, task_count=task_count, separate=separate)

    def run(self, task: int, words: Sequence[str] = ()) -> TaskOutcome:
        """Run one task to its end."""
        reporter, inputs = self._reporter, self._inputs.names
        start = partial(self._start, words)
        return command.run(task, self._plan, start, reporter.soft_stop, inputs, reporter)

    def _start(self, words: Sequence[str], task: int) -> SeatbeltTask:
        """See `command.run`."""
        plan = self._plan
        argv = command.checked(plan.argv_of(task, words))
        self._inputs.restore()
        checkpoint.place(plan, task)
        inputs = [str(plan.scratch / name) for name in sorted(self._inputs.names)]
        return self._seatbelt.start(inputs, plan.env_of(task), argv)
