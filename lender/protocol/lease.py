"""What broker and lenders say to each other: leases, offers, control, and the done report."""

from hashlib import sha256
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lender.protocol import bounds
from lender.protocol.codec import Bytes, ContentType, Open
from lender.protocol.ids import JobId, Label, LeaseId, PublicKey, Sha256, WorkloadName
from lender.protocol.job import BlobRef, Reach, Runtime, TaskRange
from lender.protocol.result import Results

LEASE_TTL_S = 2.5
"""A lender that holds leases offers every 0.5 s; silent for this long, it has lost them."""

TaskCheckpoint = tuple[Annotated[int, Field(ge=0)], BlobRef]
"""A task, and the archive of its checkpoint folder."""


def _check_checkpoints(pairs: tuple[TaskCheckpoint, ...]) -> tuple[TaskCheckpoint, ...]:
    if len({task for task, _ in pairs}) != len(pairs):
        raise ValueError("a task has two checkpoints")
    if any(blob.size_bytes > bounds.CHECKPOINT_BYTES_MAX for _, blob in pairs):
        raise ValueError(f"a checkpoint has at most {bounds.CHECKPOINT_BYTES_MAX} bytes")
    return pairs


_ONE_OF_EACH_TASK = AfterValidator(_check_checkpoints)


def barred_mark(lease: str, lender: str) -> str:
    """Return what stands in a lease for a lender that is not to take it.

    Nobody else learns from it who that is: lenders are not told of each other.
    """
    return sha256(f"{lease}.{lender}".encode()).hexdigest()[:32]


class Lease(Open):
    """A message in a work queue: tasks of one job for whichever lender takes it.

    `lease` is random and known only to the broker and to whoever got this message: it is the
    token that a done report must show. `attempt` grows with every new lease of the same tasks.
    `checkpoints` are those that earlier attempts of its tasks left; the submitter has not signed
    them, so they are for the sandbox alone. `not_for` marks the lenders that are not to
    take it, since they have, or had, the same tasks: the broker would not let them hold it.
    """

    v: Literal[1] = 1
    lease: LeaseId
    job: JobId
    submitter: PublicKey
    attempt: int = Field(ge=1)
    ranges: tuple[TaskRange, ...] = Field(min_length=1)
    spec: Bytes = Field(max_length=bounds.SPEC_BYTES_MAX)
    content_type: ContentType
    signature: str = Field(max_length=100)
    checkpoints: Annotated[
        tuple[TaskCheckpoint, ...], Field(max_length=bounds.CHUNK_RESULTS_MAX), _ONE_OF_EACH_TASK
    ] = ()
    not_for: tuple[Annotated[str, Field(max_length=64)], ...] = Field(
        default=(), max_length=bounds.NOT_FOR_MAX
    )

    def is_barred(self, lender: str) -> bool:
        """Tell whether this lender is not to take it."""
        return bool(self.not_for) and barred_mark(self.lease, lender) in self.not_for

    @property
    def task_count(self) -> int:
        """Number of tasks in the lease."""
        return sum(count for _, count in self.ranges)

    def tasks(self) -> list[int]:
        """Task indices in the order in which they are to be run."""
        return [index for first, count in self.ranges for index in range(first, first + count)]


LenderPhase = Literal["unconsented", "lending", "yielding", "paused", "draining", "offline"]
LeaseState = Literal["assigned", "preparing", "running", "frozen"]


class HeldLease(Open):
    """A lease that a lender holds."""

    lease: LeaseId
    job: JobId
    submitter: PublicKey
    state: LeaseState
    ready: bool = False
    """Of a gang: its task could run, and waits for the others of the gang."""


class OfferedNet(Open):
    """Where the work of a submitter's workload may get to on the network, by one grant."""

    submitter: PublicKey
    workload: WorkloadName
    reach: Reach


class Offer(Open):
    """What a lender says that it can run now; its heartbeat.

    `classes` are the class tokens that the owner's grants and the machine's capabilities allow;
    `slots_free` is 0 whenever the lender would take no new lease (paused, yielding, busy).
    `stay_s` is what is left of the hours that its owner gave; whether somebody uses the machine is
    not in it, since that is told to nobody. None: nothing is lent now.
    """

    v: Literal[1] = 1
    lender: PublicKey
    name: str = Field(max_length=120)
    phase: LenderPhase
    reason: str = Field(default="", max_length=400)
    slots_total: int = Field(ge=0, le=bounds.OFFERED_CORES_MAX)
    slots_free: int = Field(ge=0, le=bounds.OFFERED_CORES_MAX)
    cpu_free: float = Field(ge=0, le=bounds.OFFERED_CORES_MAX)
    memory_free_bytes: int = Field(ge=0, le=bounds.OFFERED_BYTES_MAX)
    vram_free_bytes: int = Field(default=0, ge=0, le=bounds.OFFERED_BYTES_MAX)
    disk_free_bytes: int | None = Field(default=None, ge=0, le=bounds.OFFERED_BYTES_MAX)
    stay_s: float | None = Field(default=None, ge=0, le=bounds.OFFERED_STAY_S_MAX)
    arch: str = Field(max_length=32)
    os: str = Field(max_length=32)
    labels: tuple[Label, ...] = Field(default=(), max_length=bounds.LABELS_MAX)
    runtimes: tuple[Runtime, ...]
    classes: tuple[str, ...] = Field(max_length=4096)
    consent_digest: str = Field(max_length=64)
    net: tuple[OfferedNet, ...] = Field(default=(), max_length=bounds.OFFERED_NETS_MAX)
    """Where else than nowhere the work of these classes may get to."""
    blobs: tuple[Sha256, ...] = Field(default=(), max_length=bounds.OFFERED_BLOBS_MAX)
    """The largest inputs that it has at hand."""
    leases: tuple[HeldLease, ...] = Field(default=(), max_length=4096)


class Control(Open):
    """The broker's word to one lender.

    open: these classes have work (`classes`), pull from them for `stand_s` seconds, or, without
    that, for as long as they are lent; cancel: stop these leases (`leases`);
    start: all of their gangs are ready, run these leases (`leases`);
    hello: a broker has started, offer at once.
    """

    v: Literal[1] = 1
    kind: Literal["open", "cancel", "start", "hello"]
    classes: tuple[str, ...] = ()
    stand_s: float | None = Field(default=None, ge=0, le=bounds.STAND_S_MAX)
    leases: tuple[LeaseId, ...] = ()


PREPARE_FIELD = "limits.prepare_s"
"""The `field` of a refusal after preparing for longer than the job allows: it will be as long there
next time."""

Outcome = Literal["finished", "refused", "evicted", "revoked", "invalid"]


class Done(Open):
    """A lender's report on a lease, answered with `DoneReply` after the commit.

    Partial reports carry results and checkpoints only. A final one also gives the outcome for the
    tasks of the lease that have no result: `finished` leaves none; `refused`, `evicted` and
    `revoked` hand them back at no cost to the job; `invalid` says that the job can't be run
    anywhere (`field` and `reason` tell its submitter why).

    `signature` is the lender's own over the results, for those who read them: `signed_results`.

    `checkpoints`, in any report, are what tasks without a result would go on from in another
    attempt: only of a job that declares them. The blobs are stored before the report is sent.
    """

    v: Literal[1] = 1
    lease: LeaseId
    job: JobId
    submitter: PublicKey
    results: Results = Field(default=(), max_length=bounds.CHUNK_RESULTS_MAX)
    signature: str | None = Field(default=None, max_length=100)
    checkpoints: Annotated[
        tuple[TaskCheckpoint, ...], Field(max_length=bounds.CHECKPOINTS_MAX), _ONE_OF_EACH_TASK
    ] = ()
    final: bool
    outcome: Outcome = "finished"
    field: str = Field(default="", max_length=200)
    reason: str = Field(default="", max_length=2000)

    @property
    def is_untouched(self) -> bool:
        """Whether it hands the lease back, and nothing is known to have been done for it."""
        handed_back = self.final and self.outcome in ("refused", "evicted", "revoked")
        return handed_back and not self.results and not self.checkpoints


class DoneReply(Open):
    """committed: the results are durable; stale: the lease is no longer the lender's to answer."""

    v: Literal[1] = 1
    verdict: Literal["committed", "stale", "malformed"]
    reason: str = ""
