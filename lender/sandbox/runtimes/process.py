"""The process runtime: each task is one command inside bubblewrap, watched from outside.

This process is the sandbox's supervisor and never runs a byte of the job's.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lender.sandbox.files import checkpoint, scratch
from lender.sandbox.plan import WORK_FOLDER, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import bubblewrapped, command, rehearsal
from lender.sandbox.runtimes.bubblewrapped import Bubblewrap, BubblewrappedTask
from lender.sandbox.runtimes.runner import Reporter, Runner
from lender.sandbox.runtimes.walls_ahead import WallsAhead
from lender.sandbox.walls import bubblewrap, confine, device_nodes, enter, gpu_devices

if TYPE_CHECKING:
    from lender.sandbox.files.rootfs import Rootfs


def preload() -> None:
    """Look once at what the forks then know: our walls, and the driver of GPUs."""
    bubblewrapped.preload()
    gpu_devices.preload()


def rehearse() -> None:
    """What a process that is kept ahead does while nobody waits for it."""
    rehearsal.rehearse()


def stand_ahead(place: Path, memory_bytes: int) -> WallsAhead | None:
    """The walls of a task that brings nothing along, where they can be made; see `WallsAhead`."""
    try:
        return WallsAhead(place, memory_bytes)
    except (OSError, PrepareFailedError):
        return None  # they are made for their task then, who can say why they are not


def start(plan: SandboxPlan, reporter: Reporter, ahead: WallsAhead | None = None) -> Runner:
    """Be the sandbox of one plan; see `runner.serve`."""
    confine.adopt_orphans()
    try:
        return _ProcessRunner(plan, reporter, ahead)
    except PrepareFailedError:
        if ahead is not None:
            ahead.let_go()
        raise


class _ProcessRunner:
    def __init__(
        self, plan: SandboxPlan, reporter: Reporter, ahead: WallsAhead | None = None
    ) -> None:
        self._bubblewrap = Bubblewrap(plan.network)
        if not (plan.argv or plan.each):
            raise PrepareFailedError("no command", invalid=True, field="argv")
        scratch.check_inputs(plan.inputs)
        self._plan = plan
        self._reporter = reporter
        self._inputs = {name: str(path) for name, path in plan.inputs.items()}
        gpus = gpu_devices.find(plan.gpus)
        device_nodes.check(plan.devices)
        self._extra = [
            *enter.options(),
            *gpu_devices.options(gpus),
            *device_nodes.options(plan.devices),
        ]
        self._rootfs = None if plan.program is None else _unpacked(plan.program, plan)
        self._view: Iterable[str] = bubblewrap.HOST_VIEW
        if plan.network is not None and self._rootfs is None:
            self._extra += bubblewrap.CERTIFICATES
        self._rules = [
            *enter.RULES,
            *gpu_devices.rules(gpus),
            *device_nodes.rules(plan.devices),
        ]
        if self._rootfs is not None:
            self._view = bubblewrap.rootfs_view(str(self._rootfs.root))
            # It may have its programs anywhere.
            self._rules.insert(0, ("-x", "/"))
        self._limits = bubblewrap.resource_limits(plan.limits, gpus=bool(gpus))
        self._standing = None if ahead is None else _taken(ahead, plan)

    def begin_job(self, job: str, task_count: int, *, separate: bool) -> None:
        """See `Runner`."""
        self._plan = self._plan._replace(job=job, task_count=task_count, separate=separate)

    def run(self, task: int, words: Sequence[str] = ()) -> TaskOutcome:
        scratch.wipe(self._plan.scratch)
        soft_stop, start = self._reporter.soft_stop, partial(self._start, words)
        return command.run(task, self._plan, start, soft_stop, (), self._reporter)

    def _start(self, words: Sequence[str], task: int) -> BubblewrappedTask:
        plan = self._plan
        argv = command.checked(plan.argv_of(task, words))
        checkpoint.place(plan, task)
        standing, self._standing = self._standing, None
        if standing is not None:
            return self._begun(standing, argv, task)
        return self._started(argv, task)

    def _begun(self, standing: BubblewrappedTask, argv: list[str], task: int) -> BubblewrappedTask:
        """Behind walls that stand already, where it is told in few words."""
        env = {**self._plan.env_of(task), "PWD": WORK_FOLDER}
        try:
            words = enter.words(argv, env, self._limits, self._rules)
        except ValueError:
            standing.give_up()
            raise
        if len(words) > enter.HEARD_BYTES_MAX:
            standing.give_up()
            return self._started(argv, task)
        standing.begin(argv[0], words)
        return standing

    def _started(self, argv: list[str], task: int) -> BubblewrappedTask:
        plan = self._plan
        options = bubblewrap.options(
            str(plan.scratch),
            plan.env_of(task),
            self._inputs,
            plan.limits,
            self._bubblewrap.fds,
            self._extra,
            self._view,
        )
        line = enter.command(argv, self._limits, self._rules)
        return self._bubblewrap.start(options, line, argv[0])


def _taken(ahead: WallsAhead, plan: SandboxPlan) -> BubblewrappedTask | None:
    """Who stands ahead, where that is all that the plan wants to see; else it is let go."""
    brings = (plan.program, plan.inputs, plan.gpus, plan.devices, plan.network)
    if any(brings):
        ahead.let_go()
        return None
    return ahead.take(plan.scratch, plan.limits.memory_bytes)


def _unpacked(archive: Path, plan: SandboxPlan) -> "Rootfs":
    """The root file system that a job brings along."""
    # Only jobs with one pay for the import.
    from lender.sandbox.files import rootfs  # noqa: PLC0415

    if enter.find() is None:
        reason = "no root file systems: what sets the limits inside is not built (make walls)"
        raise PrepareFailedError(reason)
    if plan.module_cache is None:
        raise PrepareFailedError("no folder to unpack the root file system into")
    return rootfs.obtain(archive, plan.module_cache.with_name(rootfs.FOLDER))
