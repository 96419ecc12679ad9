"""What `lender status` shows: a read-only view of the core."""

from dataclasses import dataclass

from lender.core.attempt import AttemptState
from lender.core.consent import Grant, Intent
from lender.core.lease_run import LeaseRun
from lender.core.policy import Verdict
from lender.core.signals import Signals
from lender.protocol.lease import LenderPhase


@dataclass(frozen=True, slots=True)
class AttemptStatus:
    """One lease that has a sandbox. Times are seconds since the epoch."""

    lease: str
    job: str
    job_name: str
    submitter: str
    workload: str
    runtime: str
    grant: str
    attempt: int
    state: AttemptState
    started_at: float
    tasks_total: int
    tasks_left: int
    cpu: int
    memory_bytes: int
    gpu: bool
    devices: tuple[str, ...]
    held: str
    cpu_s: float
    memory_peak_bytes: int
    network: tuple[str, ...]
    network_in_bytes: int
    network_out_bytes: int
    network_attempts_blocked: int

    @classmethod
    def of(cls, run: LeaseRun) -> "AttemptStatus":
        """Return the view of a run."""
        spec = run.plan.spec
        return cls(
            lease=run.lease.lease,
            job=spec.id,
            job_name=spec.name,
            submitter=spec.submitter,
            workload=spec.workload,
            runtime=spec.runtime,
            grant=run.plan.grant.id,
            attempt=run.lease.attempt,
            state=run.state,
            started_at=run.started_at,
            tasks_total=run.lease.task_count,
            tasks_left=run.tasks_left,
            cpu=spec.limits.cpu,
            memory_bytes=spec.limits.memory_bytes,
            gpu=run.uses_gpu,
            devices=run.devices,
            held=run.held.reason if run.held else "",
            cpu_s=run.meter.usage.cpu_s,
            memory_peak_bytes=run.meter.memory_peak_bytes,
            network=spec.requires.net,
            network_in_bytes=run.meter.network_in_bytes,
            network_out_bytes=run.meter.network_out_bytes,
            network_attempts_blocked=run.meter.network_attempts_blocked,
        )


@dataclass(frozen=True, slots=True)
class LenderStatus:
    """The lender as of its last event.

    `saving` has the attempts that are over but for their checkpoints, which are on their way;
    `warm` has the job of each idle sandbox that waits for more of it; `leases_unanswered` counts
    the leases whose work is over but whose final report the broker has not answered; `closed` says
    why a grant that holds allows nothing right now, by its id; `intent` goes by the wall clock,
    which is `behind_s` behind all other times.
    """

    phase: LenderPhase
    reason: str
    connected: bool
    slots_total: int
    slots_free: int
    cpu_free: float
    memory_free_bytes: int
    attempts: tuple[AttemptStatus, ...]
    saving: tuple[AttemptStatus, ...]
    warm: tuple[str, ...]
    leases_unanswered: int
    grants: tuple[Grant, ...]
    closed: dict[str, str]
    classes: tuple[str, ...]
    consent_digest: str
    intent: Intent | None
    behind_s: float
    verdict: Verdict
    signals: Signals | None
    asleep: bool
