"""The oci runtime: each task is one container made by crun from the job's own image.

This process is the sandbox's supervisor and never runs a byte of the job's: it unpacks the image
into the submitter's cache, and starts crun once for each task. Of what an image says, its command,
environment and folder are heeded, and its user is not: nobody runs in there.

podman is no substitute: it keeps a process of its own outside of our tree (conmon), leaves state
behind when it is killed, and moves its containers to cgroups where our freeze and kill don't reach.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lender.sandbox.files import checkpoint, rootfs, scratch
from lender.sandbox.files.images import Image
from lender.sandbox.files.rootfs import Rootfs
from lender.sandbox.plan import WORK_FOLDER, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import command
from lender.sandbox.runtimes.contained import ContainedTask, Crun
from lender.sandbox.runtimes.runner import Reporter, Runner
from lender.sandbox.walls import confine, container, enter, seccomp

# An image may have its programs anywhere.
_RULES = (("-x", "/"), *enter.RULES)
# What the self-test sees in place of an image, as a process sandbox does.
_HOST_FILES = tuple(
    path for path in ("/usr", "/etc/ld.so.cache", "/etc/alternatives") if Path(path).exists()
)


def preload() -> None:
    """Look once whether our own program holds: the forks know it then."""
    enter.find()


def start(plan: SandboxPlan, reporter: Reporter) -> Runner:
    """Be the sandbox of one plan; see `runner.serve`."""
    confine.adopt_orphans()
    return _OciRunner(plan, reporter)


class _OciRunner:
    def __init__(self, plan: SandboxPlan, reporter: Reporter) -> None:
        self._crun = Crun()
        if plan.gpus:
            raise PrepareFailedError("containers are given no GPUs")
        if plan.devices:
            raise PrepareFailedError("containers are given no devices")
        scratch.check_inputs(plan.inputs)
        self._plan = plan
        self._reporter = reporter
        self._filter = seccomp.program()
        self._inputs = {name: os.path.realpath(path) for name, path in plan.inputs.items()}
        self._rootfs, self._image = _unpacked(plan)
        if not (plan.argv or plan.each or self._image.argv):
            reason = "neither the job nor its image has a command"
            raise PrepareFailedError(reason, invalid=True, field="argv")
        needed = [os.path.realpath(plan.scratch), self._crun.path, *self._inputs.values()]
        if self._rootfs is not None:
            needed.append(os.path.realpath(self._rootfs.root))
        folder = container.state_folder(needed)
        if folder is None:
            raise PrepareFailedError("no folder is left for crun's state")
        self._state_folder = folder
        self._brought = {} if self._rootfs is not None else {path: path for path in _HOST_FILES}
        if (program := enter.find()) is not None:
            self._brought[enter.PLACE] = program

    def begin_job(self, job: str, task_count: int, *, separate: bool) -> None:
        """See `Runner`."""
        self._plan = self._plan._replace(job=job, task_count=task_count, separate=separate)

    def run(self, task: int, words: Sequence[str] = ()) -> TaskOutcome:
        scratch.wipe(self._plan.scratch)
        soft_stop, start = self._reporter.soft_stop, partial(self._start, words)
        return command.run(task, self._plan, start, soft_stop, (), self._reporter)

    def _start(self, words: Sequence[str], task: int) -> ContainedTask:
        plan, image = self._plan, self._image
        argv = command.checked(plan.argv_of(task, words) or [*image.argv])
        checkpoint.place(plan, task)
        host_view = self._rootfs is None
        configuration = container.configuration(
            root=container.HOST_VIEW if self._rootfs is None else str(self._rootfs.root),
            scratch=os.path.realpath(plan.scratch),
            argv=self._entered(argv),
            env={"PATH": container.PATH, **image.env, "HOME": WORK_FOLDER, **plan.env_of(task)},
            folder=image.folder if image.folder.rstrip("/") else WORK_FOLDER,
            inputs=self._inputs,
            limits=plan.limits,
            seccomp=self._filter,
            brought=self._brought,
        )
        return self._crun.start(configuration, self._state_folder, argv[0], host_view=host_view)

    def _entered(self, argv: list[str]) -> list[str]:
        """The command behind the second wall around its files, where there is one."""
        return argv if enter.find() is None else enter.command(argv, {}, _RULES)


def _unpacked(plan: SandboxPlan) -> tuple[Rootfs | None, Image]:
    """The job's image; without one there is the host's own /usr."""
    if plan.program is None:
        return None, Image((), {}, "")
    if plan.module_cache is None:
        raise PrepareFailedError("no folder to unpack the image into")
    found = rootfs.obtain(plan.program, plan.module_cache.with_name(rootfs.FOLDER))
    if found.image is None:
        raise PrepareFailedError("no container image", invalid=True, field="program")
    return found, found.image
