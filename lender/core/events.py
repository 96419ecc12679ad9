"""What can happen to a lender: the past-tense events that `Lender.handle` takes."""

from collections.abc import Sequence
from dataclasses import dataclass

from lender.core.budget import Usage
from lender.core.consent import Consent, Intent
from lender.core.jobs_done import JobDone
from lender.core.signals import Signals
from lender.protocol.job import Gpu, Runtime
from lender.protocol.lease import Lease, TaskCheckpoint
from lender.protocol.result import TaskResult


@dataclass(frozen=True, slots=True)
class ConsentLoaded:
    """Grants and tombstones were (re-)read from disk."""

    consent: Consent


@dataclass(frozen=True, slots=True)
class IntentLoaded:
    """The owner's stored intent was (re-)read from disk."""

    intent: Intent


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this machine can run at all, as its self-test has shown.

    Attributes:
        arch: as `uname -m` says.
        os: `linux` or `macos`.
        runtimes: that hold here.
        gpu: whose GPUs it has.
        python: version that the python runtime runs, such as `3.11`; None without that runtime.
        net: runtimes whose sandboxes can be given a network.
    """

    arch: str
    os: str
    runtimes: frozenset[Runtime]
    gpu: Gpu = "none"
    python: str | None = None
    net: frozenset[Runtime] = frozenset()


@dataclass(frozen=True, slots=True)
class CapabilitiesFound:
    """The self-test of the sandboxes ended."""

    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class DevicesFound:
    """The machine was looked through for what can be asked for by name.

    Attributes:
        labels: of what is there and can be used; see `lender.protocol.devices`.
    """

    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MachineSampled:
    """A reading of the machine and of its owner's presence."""

    signals: Signals


@dataclass(frozen=True, slots=True)
class DiskSampled:
    """A reading of the disk that working folders lie on.

    Attributes:
        free_bytes: what could be written there now.
        blobs: SHA-256 of the largest inputs that are kept, at most `OFFERED_BLOBS_MAX`.
    """

    free_bytes: int
    blobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StandstillSeen:
    """These sandboxes stand still, by whoever's order; all others don't.

    `lender pause` stops them before it says a word: it may be cut off in between.
    """

    leases: frozenset[str]


@dataclass(frozen=True, slots=True)
class WallClockRead:
    """The wall clock is `behind_s` (0 or more) behind the core's time: it was set back.

    The owner's words, hours and days go by the wall clock; grants and durations do not, so that
    no clock that is set back prolongs them.
    """

    behind_s: float


NOT_COUNTED = -1
"""Stands for a number of network attempts that could not be counted."""


@dataclass(frozen=True, slots=True)
class UsageMetered:
    """What a lease's sandbox has used up so far, cumulative since it was opened.

    Attributes:
        lease: whose.
        cpu_s: CPU time of all its processes, dead ones included as far as known.
        memory_peak_bytes: the most that was seen at once.
        network_attempts_blocked: tries to reach a network that it does not have, or NOT_COUNTED.
        gpu_s: time that a GPU computed for it.
        vram_peak_bytes: the most GPU memory that was seen at once.
        gpu_joules: energy of the GPUs by its share of their use, an estimate; 0 where they
            don't tell.
        network_in_bytes: what its tasks fetched from the network themselves.
        network_out_bytes: what they sent there.
    """

    lease: str
    cpu_s: float
    memory_peak_bytes: int
    network_attempts_blocked: int = 0
    gpu_s: float = 0.0
    vram_peak_bytes: int = 0
    gpu_joules: float = 0.0
    network_in_bytes: int = 0
    network_out_bytes: int = 0


@dataclass(frozen=True, slots=True)
class UsageRecalled:
    """What receipts of this week say that was used up: grant, end in epoch seconds, amount.

    It comes before any reading, so it brings the owner's local time along.
    """

    entries: tuple[tuple[str, float, Usage], ...]
    utc_offset_s: int


@dataclass(frozen=True, slots=True)
class JobsRecalled:
    """What an earlier run kept of how much of each job was done here, oldest first."""

    done: tuple[JobDone, ...]


@dataclass(frozen=True, slots=True)
class SleepAnnounced:
    """The machine is about to sleep: everything goes back before it does."""


@dataclass(frozen=True, slots=True)
class WokenUp:
    """The machine slept for `slept_s` seconds, announced or not."""

    slept_s: float


@dataclass(frozen=True, slots=True)
class BrokerConnected:
    """The NATS connection is up (again)."""


@dataclass(frozen=True, slots=True)
class BrokerDisconnected:
    """The NATS connection is down; running work goes on, nothing new comes."""


@dataclass(frozen=True, slots=True)
class BrokerGreeted:
    """A broker started and asks for an offer."""


@dataclass(frozen=True, slots=True)
class TokenRead:
    """What the server lets us in by names these classes; None: it names all of them."""

    classes: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class ClassesOpened:
    """The broker says that these classes have work.

    Attributes:
        classes: their tokens, or our own queue.
        stand_s: for how long they are to be pulled from; None: without end.
    """

    classes: tuple[str, ...]
    stand_s: float | None = None


@dataclass(frozen=True, slots=True)
class LeasesCancelled:
    """The broker says that these leases are no longer ours."""

    leases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GangGathered:
    """The broker says that all members of these leases' gangs are ready: they may run."""

    leases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeaseDelivered:
    """A pull brought a lease. `delivery` is the shell's handle of the queue message.

    `times` is how often the queue has given it to anybody so far, as far as it knows; `ends_pull`:
    the pull has brought with it all that was asked for.
    """

    work_class: str
    delivery: int
    lease: Lease
    times: int = 1
    ends_pull: bool = False


@dataclass(frozen=True, slots=True)
class LeaseMalformed:
    """A pull brought something that is no lease."""

    work_class: str
    delivery: int
    reason: str


@dataclass(frozen=True, slots=True)
class PullEnded:
    """The pull of a class is over: satisfied, expired, refused or cut off."""

    work_class: str
    refused: bool
    """The server had no such consumer: don't pull again until the class is opened."""


@dataclass(frozen=True, slots=True)
class SandboxPrepared:
    """The inputs are there, the program is compiled, the sandbox stands."""

    lease: str


@dataclass(frozen=True, slots=True)
class PreparationFailed:
    """The sandbox could not be prepared.

    `invalid`: the job itself is at fault (an input whose hash doesn't match, a module that
    doesn't parse), with the field that is wrong; otherwise this machine is.
    """

    lease: str
    invalid: bool
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class TasksEnded:
    """Some tasks of a lease ended, in the order of the lease; `used` has been until then."""

    lease: str
    results: Sequence[TaskResult]
    used: UsageMetered | None = None


@dataclass(frozen=True, slots=True)
class TaskTerminated:
    """The task in work ended because it was asked to; it has no result, and none begins after."""

    lease: str


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """The saving that a CloseSandbox asked for is over: blobs, by task, that were stored.

    Empty where there was nothing to save, or it could not be saved.
    """

    lease: str
    checkpoints: tuple[TaskCheckpoint, ...]


@dataclass(frozen=True, slots=True)
class SandboxGone:
    """The sandbox is dead and was not closed by us (killed from outside, or crashed)."""

    lease: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportAnswered:
    """The broker answered report `number` of a lease."""

    lease: str
    number: int
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Take no new work, finish what runs by `deadline` (seconds, the clock of `now`)."""

    deadline: float


@dataclass(frozen=True, slots=True)
class TimeAdvanced:
    """Nothing happened but time: `next_deadline()` has come."""


Event = (
    ConsentLoaded
    | IntentLoaded
    | CapabilitiesFound
    | MachineSampled
    | DevicesFound
    | DiskSampled
    | StandstillSeen
    | WallClockRead
    | UsageMetered
    | UsageRecalled
    | JobsRecalled
    | SleepAnnounced
    | WokenUp
    | BrokerConnected
    | BrokerDisconnected
    | BrokerGreeted
    | TokenRead
    | ClassesOpened
    | LeasesCancelled
    | GangGathered
    | LeaseDelivered
    | LeaseMalformed
    | PullEnded
    | SandboxPrepared
    | PreparationFailed
    | TasksEnded
    | TaskTerminated
    | CheckpointSaved
    | SandboxGone
    | ReportAnswered
    | DrainRequested
    | TimeAdvanced
)
