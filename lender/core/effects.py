"""What the daemon's shell is to do: the imperative effects that `Lender.handle` returns, in order.

Freeze, thaw and kill are carried out, and verified, before the next effect.
"""

from dataclasses import dataclass

from lender.core.jobs_done import JobDone
from lender.protocol.job import JobSpec
from lender.protocol.lease import Done, Lease, Offer


@dataclass(frozen=True, slots=True)
class SendOffer:
    """Publish what we can run now; also the heartbeat."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class PullWork:
    """Ask a class queue for up to `batch` leases; ends in one `PullEnded`."""

    work_class: str
    batch: int
    expires_s: float


@dataclass(frozen=True, slots=True)
class OpenSandbox:
    """Fetch the inputs and prepare a sandbox; ends in SandboxPrepared or PreparationFailed.

    Attributes:
        lease: what it works for; its checkpoints are fetched like inputs.
        spec: of the lease's job.
        grant: id of the grant that it is under.
        gpus: indices of the GPUs that it may use, in the order of the readings.
        devices: that it may use, by their labels.
        reuse: the lease whose kept sandbox it goes on in, and which is this lease's from now on:
            of the same job, or of one that asks for the same; None makes a new one.
    """

    lease: Lease
    spec: JobSpec
    grant: str
    gpus: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()
    reuse: str | None = None


@dataclass(frozen=True, slots=True)
class RunTasks:
    """Run these tasks one after another; `TasksEnded` tells their results, in parts or at once."""

    lease: str
    tasks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AllowNetwork:
    """Let the lease's tasks move so many bytes over the network in all, both ways together.

    None: without a bound. Before the first of these they may move none.
    """

    lease: str
    moved_bytes: int | None


@dataclass(frozen=True, slots=True)
class FreezeSandbox:
    """Stop every process of the sandbox where it stands."""

    lease: str


@dataclass(frozen=True, slots=True)
class ThawSandbox:
    """Let a frozen sandbox go on."""

    lease: str


@dataclass(frozen=True, slots=True)
class TerminateSandbox:
    """Ask the task in work to end by itself, with a checkpoint; ends in TaskTerminated.

    Asked for at most once. Nothing is waited for: CloseSandbox ends what takes too long.
    """

    lease: str


@dataclass(frozen=True, slots=True)
class KeepSandbox:
    """Have the sandbox of a finished lease wait, idle, for more of its job.

    CloseSandbox under this lease's id ends it, or OpenSandbox takes it over.
    """

    lease: str


@dataclass(frozen=True, slots=True)
class CloseSandbox:
    """Kill what is left of the sandbox, verify, wipe its scratch. No SandboxGone follows.

    Asked for exactly once per OpenSandbox that another one does not take over, also after
    PreparationFailed and SandboxGone.

    Attributes:
        lease: whose it is.
        save: between the kill and the wipe, upload the checkpoint of the task that was in work:
            ends in CheckpointSaved.
    """

    lease: str
    save: bool = False


@dataclass(frozen=True, slots=True)
class AbandonCheckpoint:
    """Stop saving what a closed sandbox left, and wipe it: nothing of it leaves any more."""

    lease: str


@dataclass(frozen=True, slots=True)
class SendReport:
    """Spool the report, ask the broker to commit it until it answers: `ReportAnswered`.

    The reports of a lease are sent in the order of their numbers, which count from 1. `given` is
    the lease as it was delivered: what its results are signed for.
    """

    lease: str
    number: int
    report: Done
    given: Lease


@dataclass(frozen=True, slots=True)
class AckLease:
    """Take the message off the work queue for good."""

    delivery: int


@dataclass(frozen=True, slots=True)
class ReturnLease:
    """Give the message back to the queue untouched (no slot left), after a delay."""

    delivery: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class ForgetDelivery:
    """Nothing is said about this delivery any more: its message was delivered again."""

    delivery: int


@dataclass(frozen=True, slots=True)
class ExtendLease:
    """Tell the queue that the lease is still being worked on."""

    delivery: int


@dataclass(frozen=True, slots=True)
class WriteReceipt:
    """Append a receipt of one attempt to the owner's log.

    Times are seconds since the epoch; `ended` is why it stopped, in words. `inputs` are names and
    SHA-256; `network` is where its tasks might get to; `network_attempts_blocked` may be
    NOT_COUNTED; `energy_wh` is an estimate, and `energy_method` says how it was made; `devices`
    are those that its tasks might use.
    """

    lease: str
    job: str
    job_name: str
    submitter: str
    workload: str
    runtime: str
    program_sha256: str | None
    inputs: tuple[tuple[str, str], ...]
    grant: str
    attempt: int
    outcome: str
    ended: str
    tasks_run: int
    tasks_failed: int
    started_at: float
    ended_at: float
    cpu_s: float
    memory_peak_bytes: int
    gpu_s: float
    vram_peak_bytes: int
    bytes_in: int
    bytes_out: int
    network: tuple[str, ...]
    network_in_bytes: int
    network_out_bytes: int
    network_attempts_blocked: int
    energy_wh: float
    energy_method: str
    traceparent: str | None = None
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeepJobDone:
    """Keep how much of a job was done here, over a restart: `JobsRecalled`."""

    done: JobDone


@dataclass(frozen=True, slots=True)
class PurgeSubmitter:
    """Delete what is kept of a submitter to whom no grant is left: inputs, modules, results.

    Reports of theirs that wait for an answer lose their results; each is still answered.
    """

    submitter: str


@dataclass(frozen=True, slots=True)
class LetSleep:
    """Everything was handed back and answered: the machine may sleep."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The drain is over: nothing runs, everything reported."""


SandboxEffect = (
    OpenSandbox
    | RunTasks
    | AllowNetwork
    | FreezeSandbox
    | ThawSandbox
    | TerminateSandbox
    | KeepSandbox
    | CloseSandbox
)

Effect = (
    SendOffer
    | PullWork
    | SandboxEffect
    | AbandonCheckpoint
    | SendReport
    | AckLease
    | ReturnLease
    | ForgetDelivery
    | ExtendLease
    | WriteReceipt
    | KeepJobDone
    | PurgeSubmitter
    | LetSleep
    | Exit
)
