"""One lease being worked on: its sandbox, the tasks that are left, and what its receipt says."""

import math
from collections.abc import Sequence

from lender.core.admission import Plan
from lender.core.attempt import AttemptState, step
from lender.core.effects import (
    AllowNetwork,
    CloseSandbox,
    Effect,
    FreezeSandbox,
    KeepSandbox,
    OpenSandbox,
    RunTasks,
    TerminateSandbox,
    ThawSandbox,
    WriteReceipt,
)
from lender.core.hold import Hold
from lender.core.metering import EnergyRate, Meter
from lender.protocol.devices import devices_of
from lender.protocol.lease import Lease
from lender.protocol.result import TaskResult
from lender.protocol.result_run import ResultRun


class LeaseRun:
    """An attempt from OpenSandbox to CloseSandbox or KeepSandbox: each is asked for once.

    Its processes stand still while it is held (frozen: a state that is told) and while it rests
    (the pause of a duty cycle: it still runs, at less than full speed).

    Attributes:
        gpu: index of the GPU that it may use; None: it uses none.
        devices: that it may use, and nobody else meanwhile, by their labels.
        ending: why it was asked to end by itself; None: it was not.
        end_by: until when it may take to do so; infinity while it was not asked.
        held: why it is frozen; None while it is not.
        frozen_since: when that began, seconds since the epoch.
        stopped_since: when it was first seen to stand still although it may run: by a pause of
            the owner's that was cut off. Only a word of the owner's lets it go on.
        meter: what it has used up.
    """

    def __init__(self, now: float, lease: Lease, plan: Plan, gpu: int | None = None) -> None:
        self.lease = lease
        self.plan = plan
        self.gpu = gpu
        self.devices = devices_of(plan.spec.requires.labels)
        self.started_at = now
        self.ended_at = now
        self.ending: Hold | None = None
        self.end_by = math.inf
        self.state: AttemptState = "assigned"
        self.held: Hold | None = None
        self.frozen_since: float | None = None
        self.stopped_since: float | None = None
        self.tasks_failed = 0
        self.meter = Meter(_bytes_in(lease, plan))
        self._tasks = tuple(lease.tasks())
        self._left = set(self._tasks)
        self._prepared = False
        self._gathered = not plan.spec.gang
        self._told_to_run = False
        self._network_bytes: int | None = 0
        self._rests = False
        self._ended = ""

    @property
    def tasks_left(self) -> int:
        """Number of tasks without a result."""
        return len(self._left)

    @property
    def is_at_work(self) -> bool:
        """Whether one of its tasks was begun and has no result."""
        return self._told_to_run and bool(self._left)

    @property
    def prepare_by(self) -> float:
        """Until when its preparing may take; infinity once it is over, or stands still."""
        if self.state != "preparing" or self._prepared:
            return math.inf
        return self.started_at + self.plan.spec.limits.prepare_s

    @property
    def waits_for_others(self) -> bool:
        """Whether nothing but the other members of its gang keeps it from running."""
        return self._prepared and not self._gathered

    @property
    def uses_gpu(self) -> bool:
        """Whether it holds GPU memory, which no freezing gives back."""
        return self.plan.spec.requires.gpu != "none"

    @property
    def has_network(self) -> bool:
        """Whether its tasks may get to the network."""
        return bool(self.plan.spec.requires.net)

    @property
    def still_since(self) -> float | None:
        """Since when it stands still for good, by our order or by another's."""
        return self.stopped_since if self.frozen_since is None else self.frozen_since

    @property
    def leaves_checkpoint(self) -> bool:
        """Whether the task in work, if there is one, may have kept its state in a folder."""
        return self.plan.spec.checkpoint and self._told_to_run

    @property
    def may_end_softly(self) -> bool:
        """Whether a task is there to be asked; what stands still is not let go for it."""
        return self.leaves_checkpoint and not self._stands_still and self.stopped_since is None

    @property
    def may_be_kept(self) -> bool:
        """Whether its sandbox is as good as new for more tasks of the job.

        Not where a task failed in it, or could hold GPU memory or an older checkpoint.
        """
        as_planned = not self.tasks_failed and self.ending is None and not self._stands_still
        return (
            as_planned
            and self.stopped_since is None
            and not self.uses_gpu
            and not self.devices
            and not self.lease.checkpoints
        )

    def open(self, reuse: str | None = None) -> Effect:
        """Begin, in the sandbox that was kept of the lease `reuse`, or in one of its own."""
        self.state = step(self.state, "preparing")
        gpus = () if self.gpu is None else (self.gpu,)
        grant = self.plan.grant.id
        return OpenSandbox(self.lease, self.plan.spec, grant, gpus, self.devices, reuse)

    def prepared(self) -> list[Effect]:
        """Take up that the sandbox stands; while it stands still it waits for the thaw."""
        self._prepared = True
        return self._begin()

    def gathered(self) -> list[Effect]:
        """Take up that the other members of its gang are ready; before, it waits."""
        self._gathered = True
        return self._begin()

    def take(self, results: Sequence[TaskResult], rate: EnergyRate) -> Sequence[TaskResult]:
        """Return those of `results` that end a task that had no result yet."""
        if not self._told_to_run:
            return ()
        left = self._left
        if isinstance(results, ResultRun) and left.issuperset(results.tasks):
            left.difference_update(results.tasks)
            self.meter.results(sum(results.cpu_s), sum(map(len, results.values)), rate)
            return results
        taken, cpu_s, out_bytes = list[TaskResult](), 0.0, 0
        for result in results:
            try:
                left.remove(result.task)
            except KeyError:
                continue
            self.tasks_failed += result.state == "failed"
            cpu_s += result.cpu_s
            out_bytes += _bytes_out(result)
            taken.append(result)
        self.meter.results(cpu_s, out_bytes, rate)
        return tuple(taken)

    def freeze(self, now: float, hold: Hold) -> list[Effect]:
        """Stop every process, if it is not frozen already."""
        self.held = hold
        if self.state == "frozen":
            return []
        self.stopped_since = None
        self.state = step(self.state, "frozen")
        self.frozen_since = now
        # Also where it rests: a pause is answered with what was verified now.
        return [FreezeSandbox(self.lease.lease)]

    def seen_still(self, now: float, *, still: bool) -> None:
        """Take up whether its processes stand still, by whoever's order."""
        if not still or self._stands_still:
            self.stopped_since = None
        elif self.stopped_since is None:
            self.stopped_since = now

    def take_over(self) -> None:
        """Count what somebody else stopped as stopped by us: from now on it may go on."""
        self._rests = self._rests or self.stopped_since is not None
        self.stopped_since = None

    def rest(self) -> list[Effect]:
        """Stand still for a part of the duty cycle; ends a freeze without letting it run yet."""
        stands = self._stands_still
        self._release()
        self._rests = True
        return [] if stands else [FreezeSandbox(self.lease.lease)]

    def go(self) -> list[Effect]:
        """Run, if it stands still."""
        if not self._stands_still:
            return []
        self._release()
        self._rests = False
        return [ThawSandbox(self.lease.lease), *self._run()]

    def allow_network(self, moved_bytes: int | None) -> list[Effect]:
        """Let its tasks move so much over the network, from its beginning on; None: any amount."""
        if moved_bytes == self._network_bytes:
            return []
        self._network_bytes = moved_bytes
        return [AllowNetwork(self.lease.lease, moved_bytes)]

    def ask_to_end(self, now: float, hold: Hold) -> list[Effect]:
        """Have the task in work end by itself within the grace; what was asked is not taken back.

        Asked again, the shorter time counts.
        """
        asked, self.ending = self.ending, self.ending or hold
        self.end_by = min(self.end_by, now + hold.grace_s)
        return [] if asked else [TerminateSandbox(self.lease.lease)]

    def end(
        self,
        now: float,
        state: AttemptState,
        ended: str,
        *,
        keep: bool = False,
        save: bool = False,
    ) -> Effect:
        """Close the sandbox, or keep it idle; `ended` tells the owner why, in words."""
        self.state = step(self.state, state)
        self.ended_at, self._ended = now, ended
        lease = self.lease.lease
        return KeepSandbox(lease) if keep else CloseSandbox(lease, save)

    @property
    def _stands_still(self) -> bool:
        return self.state == "frozen" or self._rests

    @property
    def _ready(self) -> bool:
        return self._prepared and self._gathered

    def _begin(self) -> list[Effect]:
        if self._ready and self.state == "preparing":
            self.state = step(self.state, "running")
        return self._run()

    def _release(self) -> None:
        if self.state == "frozen":
            self.state = step(self.state, "running" if self._ready else "preparing")
            self.held, self.frozen_since = None, None

    def _run(self) -> list[Effect]:
        if self._told_to_run or not self._ready or self._stands_still:
            return []
        self._told_to_run = True
        return [RunTasks(self.lease.lease, self._tasks)]

    def receipt(self) -> WriteReceipt:
        """Return what is told of it, once it has ended."""
        spec, meter = self.plan.spec, self.meter
        return WriteReceipt(
            lease=self.lease.lease,
            job=spec.id,
            job_name=spec.name,
            submitter=spec.submitter,
            workload=spec.workload,
            runtime=spec.runtime,
            program_sha256=spec.program.sha256 if spec.program else None,
            inputs=tuple((one.name, one.sha256) for one in spec.inputs),
            grant=self.plan.grant.id,
            attempt=self.lease.attempt,
            outcome=self.state,
            ended=self._ended,
            tasks_run=len(self._tasks) - len(self._left),
            tasks_failed=self.tasks_failed,
            started_at=self.started_at,
            ended_at=self.ended_at,
            cpu_s=meter.usage.cpu_s,
            memory_peak_bytes=meter.memory_peak_bytes,
            gpu_s=meter.gpu_s,
            vram_peak_bytes=meter.vram_peak_bytes,
            bytes_in=meter.bytes_in,
            bytes_out=meter.bytes_out,
            network=spec.requires.net,
            devices=self.devices,
            network_in_bytes=meter.network_in_bytes,
            network_out_bytes=meter.network_out_bytes,
            network_attempts_blocked=meter.network_attempts_blocked,
            energy_wh=meter.usage.energy_wh,
            energy_method=meter.energy_method,
            traceparent=spec.traceparent,
        )


def _bytes_in(lease: Lease, plan: Plan) -> int:
    program_bytes = plan.spec.program.size_bytes if plan.spec.program else 0
    inputs_bytes = sum(one.size_bytes for one in plan.spec.inputs)
    left = lease.checkpoints if plan.spec.checkpoint else ()
    return program_bytes + inputs_bytes + sum(blob.size_bytes for _, blob in left)


def _bytes_out(result: TaskResult) -> int:
    blob, outputs = result.value_blob, result.outputs
    blob_bytes = blob.size_bytes if blob else 0
    outputs_bytes = sum(one.size_bytes for one in outputs) if outputs else 0
    return len(result.value) + blob_bytes + outputs_bytes
