"""A lender's machine: its disk, its sandboxes and their processes, its sleep, and what it shows.

Processes are what counts for the owner: a sandbox runs as soon as it is opened, and until it is
frozen or dead, whatever lenderd believes.
"""

import zlib
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from sim.disk import Disk
from sim.submitter import DEVICE, Job
from sim.world import EPOCH, Actor, World

from lender.core.effects import OpenSandbox
from lender.core.events import (
    CheckpointSaved,
    DevicesFound,
    Event,
    PreparationFailed,
    SandboxGone,
    SandboxPrepared,
    TasksEnded,
    TaskTerminated,
)
from lender.core.signals import GpuSignal, Signals
from lender.protocol.job import BlobRef
from lender.protocol.result import TaskResult

if TYPE_CHECKING:
    from sim.lender_shell import LenderShell

GIB = 1 << 30
FLUSH_S = 0.02
TOLD_S = 0.0005
REUSED_S = 0.002
SAVED_S = (0.05, 1.5)
ENDS_S = (0.05, 3.0)
SLOWER = 5.0
STALL_S = 5.0
"""A slow attempt takes so many times as long, and that much more."""
_PREPARES_S = (0.01, 0.4)
_RESULTS_MAX = 200


class Stretch(NamedTuple):
    """What a sandbox is busy with: tasks that end together, or its preparation."""

    tasks: tuple[int, ...]
    left_s: float


class Sandbox:
    """The processes of one lease, and of those that it is kept for."""

    def __init__(self, effect: OpenSandbox, job: Job) -> None:
        self.turn = 0
        """Of its stretches: an end that was foreseen in an earlier one means nothing."""
        self.take_over(effect)
        self.job = job
        self.frozen = False
        self.stuck = False
        """Its processes wait for a device: they neither run nor die."""
        self.dead = False

    def take_over(self, effect: OpenSandbox) -> None:
        """Work for a lease."""
        self.lease = effect.lease
        self.grant = effect.grant
        self.gpu = bool(effect.gpus)
        self.devices = effect.devices
        self.closed = False
        """lenderd does not listen to it any more."""
        self.idle = self.prepared = self.terminating = False
        self.over = False
        """It has no process any more, or never got one."""
        self.todo: tuple[int, ...] = ()
        self.stretch: Stretch | None = None
        self.since: float | None = None

    @property
    def runs(self) -> bool:
        """Whether any of its processes does anything."""
        return not (self.frozen or self.stuck or self.dead or self.over)


class Machine(Actor):
    """One machine that lends. It outlives lenderd."""

    shell: "LenderShell"

    def __init__(
        self,
        world: World,
        name: str,
        job_of: Callable[[str, str], Job],
        watch: Callable[["Machine", Sandbox], None],
        *,
        gpu: bool,
        lies: bool = False,
    ) -> None:
        super().__init__(world, name)
        self.disk = Disk()
        self.lies = lies
        """Whether it makes up the answers to jobs that are verified."""
        self.wall_ahead_s = 0.0
        self.clock_set_at = -inf
        self.sandboxes: dict[str, Sandbox] = {}
        self.lingering: list[Sandbox] = []
        """Closed, and not dead: what could not be killed."""
        self.saving: dict[str, Sandbox] = {}
        """Closed and dead, their checkpoints on the way to the store."""
        self.busy = self.short = False
        self.has_gpu = self.gpu_there = gpu
        self.devices: tuple[str, ...] = ()
        self.asleep = False
        self._job_of = job_of
        self._watch = watch
        self._rng = world.rng(f"{name}/work")

    # what can be read of it

    def wall(self) -> float:
        """Return what its wall clock shows."""
        return EPOCH + self.world.now + self.wall_ahead_s

    def signals(self) -> Signals:
        """Return a reading of its sensors."""
        gpus = (GpuSignal("GPU-0", 7 * GIB),) if self.gpu_there else ()
        free_bytes = GIB // 2 if self.short else 12 * GIB
        return Signals(3.0 if self.busy else 0.5, free_bytes, gpus=gpus)

    def standing(self) -> frozenset[str]:
        """Return the sandboxes that stand still, by lease."""
        return frozenset(
            lease for lease, box in self.sandboxes.items() if box.frozen and not box.dead
        )

    # what lenderd does with sandboxes; freeze and close tell whether it was verified

    def open(self, effect: OpenSandbox) -> None:
        """Have a sandbox for a lease: the one that was kept, or a new one."""
        lease = effect.lease.lease
        kept = self.sandboxes.get(effect.reuse) if effect.reuse is not None else None
        if kept is not None and not kept.dead:
            del self.sandboxes[effect.reuse or ""]
            kept.take_over(effect)
            kept.job = self._job_of(effect.lease.submitter, effect.lease.job)
            box, takes_s = kept, REUSED_S
            box.frozen = False
        else:
            if effect.reuse is not None:
                self.close(effect.reuse)
            job = self._job_of(effect.lease.submitter, effect.lease.job)
            box, takes_s = Sandbox(effect, job), self._rng.uniform(*_PREPARES_S)
        self.sandboxes[lease] = box
        box.stretch = Stretch((), takes_s)
        if reason := self._owners_word(box):
            # The owner's word came before the record that would have told of its processes.
            box.over = True
            self._tell(box, PreparationFailed(lease, False, "", reason))
        else:
            self._go(box)

    def run(self, lease: str, tasks: tuple[int, ...]) -> None:
        """Run tasks one after another."""
        box = self.sandboxes[lease]
        box.todo = tasks
        self._next_stretch(box)

    def freeze(self, lease: str) -> bool:
        """Stop every process."""
        box = self.sandboxes[lease]
        self._halt(box)
        box.frozen = True
        return not box.stuck

    def thaw(self, lease: str) -> None:
        """Let it go on."""
        box = self.sandboxes[lease]
        if not box.idle:
            box.frozen = False
            self._go(box)

    def terminate(self, lease: str) -> None:
        """Ask the task in work to end by itself."""
        box = self.sandboxes[lease]
        box.terminating = True
        self.after(self._rng.uniform(*ENDS_S), self._ends_as_asked, box, box.lease.lease)

    def keep(self, lease: str) -> None:
        """Have it wait, standing still."""
        self.sandboxes[lease].idle = True
        self.freeze(lease)

    def close(self, lease: str, *, save: bool = False) -> bool:
        """Kill it; with `save` upload what the task in work has left."""
        box = self.sandboxes.pop(lease)
        in_work = box.stretch.tasks[:1] if box.stretch is not None else ()
        verified = self._kill(box)
        if save:
            self.saving[lease] = box
            self.after(self._rng.uniform(*SAVED_S), self._saved, box, in_work if verified else ())
        else:
            box.closed = True
        return verified

    def abandon(self, lease: str) -> None:
        """Stop saving; the sandbox is closed already."""
        self.saving.pop(lease, None)

    def end_all(self) -> None:
        """Lenderd has died, and every sandbox with it."""
        for lease in list(self.sandboxes):
            self.close(lease)
        self.saving.clear()

    # what others do with them

    def freeze_all(self) -> None:
        """Stop all that has a record: `lender pause`, by itself."""
        for lease in self.sandboxes:
            self.freeze(lease)

    def kill(self, box: Sandbox, reason: str) -> None:
        """Kill one from outside; lenderd notices."""
        if not box.dead and self._kill(box) and not box.idle:
            self._tell(box, SandboxGone(box.lease.lease, reason))

    def lose_gpu(self) -> None:
        """The GPU is gone, and with it whatever used it."""
        self.gpu_there = False
        for box in list(self.sandboxes.values()):
            if box.gpu:
                self.kill(box, "its GPU is gone")

    def plug(self, *, there: bool) -> None:
        """Have an accelerator from now on, or none."""
        self.devices = (DEVICE,) if there else ()
        if self.shell.alive:
            self.shell.post(DevicesFound(self.devices))

    def unstick(self) -> None:
        """What waited for a device goes on: to its end, if it was to be killed."""
        for box in self.lingering:
            box.stuck, box.dead = False, True
            if self.sandboxes.get(box.lease.lease) is box and not box.idle:
                self._tell(box, SandboxGone(box.lease.lease, "killed"))
        self.lingering.clear()
        for box in self.sandboxes.values():
            if box.stuck:
                box.stuck = False
                self._go(box)

    def stick(self, box: Sandbox) -> None:
        """Have its processes wait for a device that does not answer."""
        self._halt(box)
        box.stuck = True

    # a sandbox's own doing

    def _kill(self, box: Sandbox) -> bool:
        self._halt(box)
        if box.stuck:
            if box not in self.lingering:
                self.lingering.append(box)
            return False
        box.dead = True
        return True

    def _halt(self, box: Sandbox) -> None:
        if box.since is not None and box.stretch is not None:
            left_s = max(0.0, box.stretch.left_s - (self.world.now - box.since))
            box.stretch = box.stretch._replace(left_s=left_s)
        box.since = None
        box.turn += 1

    def _go(self, box: Sandbox) -> None:
        if not box.runs or box.idle:
            return
        self._watch(self, box)
        if box.stretch is not None and box.since is None:
            box.since = self.world.now
            box.turn += 1
            self.after(box.stretch.left_s, self._stretch_over, box, box.turn)

    def _stretch_over(self, box: Sandbox, turn: int) -> None:
        if turn != box.turn or not box.runs:
            return
        stretch, box.stretch, box.since = box.stretch, None, None
        assert stretch is not None
        if not box.prepared:
            self._prepared(box)
            return
        results = tuple(self._result(box, task) for task in stretch.tasks)
        self._tell(box, TasksEnded(box.lease.lease, results))
        self._next_stretch(box)

    def _prepared(self, box: Sandbox) -> None:
        lease = box.lease.lease
        box.over = True
        if reason := self._owners_word(box):
            self._tell(box, PreparationFailed(lease, False, "", reason))
        elif box.job.plan.broken:
            self._tell(box, PreparationFailed(lease, True, "program", "is no module"))
        elif self.disk.full:
            self._tell(box, PreparationFailed(lease, False, "", "no space left on device"))
        else:
            box.prepared, box.over = True, False
            self._tell(box, SandboxPrepared(lease))

    def _owners_word(self, box: Sandbox) -> str:
        """Return what the owner's files say against it."""
        if box.grant in self.disk.tombstones:
            return f"grant {box.grant} was revoked"
        return "the owner paused lending" if self.disk.intent.stops(self.wall()) else ""

    def _next_stretch(self, box: Sandbox) -> None:
        if not box.todo or box.terminating:
            return
        each_s = box.job.plan.task_s
        count = _RESULTS_MAX if each_s * _RESULTS_MAX <= FLUSH_S else max(1, int(FLUSH_S / each_s))
        tasks, box.todo = box.todo[:count], box.todo[count:]
        box.stretch = Stretch(tasks, sum(self._takes_s(box, task) for task in tasks))
        self._go(box)

    def _takes_s(self, box: Sandbox, task: int) -> float:
        plan = box.job.plan
        slow = self._chance(box, task, "slow") < plan.slow_permille
        return SLOWER * plan.task_s + STALL_S if slow else plan.task_s

    def _chance(self, box: Sandbox, task: int, of: str = "") -> int:
        """Return a number below 1,000, always the same for an attempt of a task."""
        lease = box.lease
        text = f"{self.world.seed}/{box.job.plan.id}/{task}/{lease.attempt}/{lease.lease}{of}"
        return zlib.crc32(text.encode()) % 1000

    def _result(self, box: Sandbox, task: int) -> TaskResult:
        job, takes_s = box.job, self._takes_s(box, task)
        if self._chance(box, task) < job.plan.fails_permille:
            job.failed_runs[task] += 1
            return TaskResult(task=task, state="failed", exit_code=1, duration_s=takes_s)
        return TaskResult(
            task=task,
            state="succeeded",
            exit_code=0,
            value=b"a lie" if self.lies and job.plan.verify else job.value(task),
            cpu_s=takes_s,
            duration_s=takes_s,
        )

    def _ends_as_asked(self, box: Sandbox, lease: str) -> None:
        if box.lease.lease == lease and box.runs and not box.closed:
            self._halt(box)
            box.over = True
            self._tell(box, TaskTerminated(lease))

    def _saved(self, box: Sandbox, tasks: tuple[int, ...]) -> None:
        lease = box.lease.lease
        if self.saving.pop(lease, None) is box:
            saved = tuple((task, _archive(box, task)) for task in tasks)
            self._tell(box, CheckpointSaved(lease, saved))

    def _tell(self, box: Sandbox, event: Event) -> None:
        self.shell.after(TOLD_S, self.shell.told, box, event)


def _archive(box: Sandbox, task: int) -> BlobRef:
    text = f"{box.lease.lease}/{task}"
    return BlobRef(sha256=f"{zlib.crc32(text.encode()):064x}", size_bytes=100)
