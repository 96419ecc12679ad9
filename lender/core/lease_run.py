"""One lease being worked on: its sandbox, the tasks that are left, and what its receipt says."""

from lender.core.admission import Plan
from lender.core.attempt import AttemptState, step
from lender.core.effects import (
    CloseSandbox,
    Effect,
    FreezeSandbox,
    OpenSandbox,
    RunTasks,
    ThawSandbox,
    WriteReceipt,
)
from lender.protocol.lease import Lease
from lender.protocol.result import TaskResult


class LeaseRun:
    """An attempt from OpenSandbox to CloseSandbox: each is asked for exactly once."""

    def __init__(self, now: float, lease: Lease, plan: Plan) -> None:
        self.lease = lease
        self.plan = plan
        self.started_at = now
        self.state: AttemptState = "assigned"
        self.frozen_since: float | None = None
        self._tasks = tuple(lease.tasks())
        self._left = set(self._tasks)
        self._prepared = False
        self._told_to_run = False
        self.tasks_failed = 0
        self._cpu_s = 0.0
        self._bytes_out = 0

    @property
    def tasks_left(self) -> int:
        """Number of tasks without a result."""
        return len(self._left)

    def open(self) -> Effect:
        """Begin."""
        self.state = step(self.state, "preparing")
        return OpenSandbox(self.lease, self.plan.spec, self.plan.grant.id)

    def prepared(self) -> list[Effect]:
        """Take up that the sandbox stands; while frozen it waits for the thaw."""
        self._prepared = True
        if self.state != "preparing":
            return []
        self.state = step(self.state, "running")
        return self._run()

    def take(self, results: tuple[TaskResult, ...]) -> tuple[TaskResult, ...]:
        """Return those of `results` that end a task that had no result yet."""
        taken = []
        for result in results:
            if not self._told_to_run or result.task not in self._left:
                continue
            self._left.discard(result.task)
            self.tasks_failed += result.state == "failed"
            self._cpu_s += result.cpu_s
            self._bytes_out += _bytes_out(result)
            taken.append(result)
        return tuple(taken)

    def freeze(self, now: float) -> list[Effect]:
        """Stop every process, if it is not so already."""
        if self.state == "frozen":
            return []
        self.state = step(self.state, "frozen")
        self.frozen_since = now
        return [FreezeSandbox(self.lease.lease)]

    def thaw(self) -> list[Effect]:
        """Go on, if it is frozen."""
        if self.state != "frozen":
            return []
        self.state = step(self.state, "running" if self._prepared else "preparing")
        self.frozen_since = None
        return [ThawSandbox(self.lease.lease), *self._run()]

    def end(self, now: float, state: AttemptState, ended: str) -> tuple[Effect, Effect]:
        """Close the sandbox and tell the owner why the attempt ended, in words."""
        self.state = step(self.state, state)
        return CloseSandbox(self.lease.lease), self._receipt(now, ended)

    def _run(self) -> list[Effect]:
        if self._told_to_run or not self._prepared:
            return []
        self._told_to_run = True
        return [RunTasks(self.lease.lease, self._tasks)]

    def _receipt(self, now: float, ended: str) -> WriteReceipt:
        spec = self.plan.spec
        program_bytes = spec.program.size_bytes if spec.program else 0
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
            ended=ended,
            tasks_run=len(self._tasks) - len(self._left),
            tasks_failed=self.tasks_failed,
            started_at=self.started_at,
            ended_at=now,
            cpu_s=self._cpu_s,
            memory_peak_bytes=0,
            gpu_s=0.0,
            vram_peak_bytes=0,
            bytes_in=program_bytes + sum(one.size_bytes for one in spec.inputs),
            bytes_out=self._bytes_out,
            network_attempts_blocked=0,
            energy_wh=0.0,
            energy_method="not measured",
        )


def _bytes_out(result: TaskResult) -> int:
    blob_bytes = result.value_blob.size_bytes if result.value_blob else 0
    outputs_bytes = sum(one.size_bytes for one in result.outputs)
    return len(result.value) + blob_bytes + outputs_bytes
