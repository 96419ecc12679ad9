"""One live job: its state, which of its tasks wait, and what has been learned about it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal, NamedTuple

from broker.core.admission import Admission
from broker.core.checkpoints import Checkpoints
from broker.core.matching.need import Need
from broker.core.ranges import RangeSet
from lender.protocol.bounds import OFFERED_BLOB_BYTES_MIN
from lender.protocol.codec import ContentType
from lender.protocol.job import After, BlobRef, JobSpec
from lender.protocol.lease import TaskRange
from lender.protocol.query import JobState

ENDED: Final[frozenset[JobState]] = frozenset(
    ("succeeded", "failed", "cancelled", "rejected", "expired")
)

TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    "queued": frozenset(("running", "cancelled", "rejected", "expired")),
    "running": ENDED,
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "rejected": frozenset(),
    "expired": frozenset(),
}

PRIORITY_S = 60.0
"""One step of priority is worth so much waiting."""

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
_BACKOFF_DOUBLINGS_MAX = 10

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0
"""A task whose work has failed rests so long before its next attempt; each time twice as long."""

RETRY_PARTS = 8
"""Such a rest ends at a multiple of this part of it: few intervals hold a million tasks."""

_SAMPLES_MAX = 1_000


class JobKey(NamedTuple):
    """Job ids are the submitter's own: only the pair names a job."""

    submitter: str
    job: str


class Step(NamedTuple):
    """Where a task stands: the number of its next attempt, and how often its work has failed.

    Tasks at the same step are interchangeable, so that a million of them are one interval.
    """

    attempt: int
    failures: int


FIRST_STEP = Step(1, 0)


@dataclass(slots=True)
class Avoided:
    """A lender that refused the job: for how long another one is preferred."""

    refusals: int
    until: float


class Resting(NamedTuple):
    """Tasks that are not handed out before `until`.

    `cause` says why: they were refused, their work has failed, or the submitter named a `date`,
    which stays what it is whatever happens to the clock.
    """

    until: float
    step: Step
    tasks: RangeSet
    cause: Literal["refused", "failed", "date"]


@dataclass(slots=True, eq=False)
class Job:
    """A job between its admission and its terminal record.

    Each task is in exactly one place: pending at some step, resting, open in one lease, or
    settled (its result committed, or on its way into a commit). While the job waits for others to
    end, all its tasks are in none of these.
    """

    key: JobKey
    order: int
    """Submission order."""
    rank: float
    """Its turn among the submitter's jobs, the lowest first; never changes, so nothing starves."""
    name: str
    need: Need
    total: int
    is_array: bool
    is_gang: bool
    retries: int
    submitted_at: float
    not_before: float
    not_after: float
    after: tuple[After, ...]
    """The jobs that have to have ended before."""
    queue_s: float | None
    """How long it may wait for its first task to begin."""
    prepare_s: float
    """How long a lender may prepare for it."""
    expected_s: float | None
    """What its submitter thinks that a task takes."""
    inputs: tuple[BlobRef, ...]
    """The larger ones."""
    payload: bytes
    content_type: ContentType
    signature: str
    verified: bool
    """Whether the signature is known to hold; nothing is leased before."""
    state: JobState = "queued"
    pending: dict[Step, RangeSet] = field(default_factory=dict)
    leases: set[str] = field(default_factory=set)
    succeeded: int = 0
    failed: int = 0
    mean_s: float | None = None
    """Mean time of a task as measured; None before the first result."""
    resting: list[Resting] = field(default_factory=list)
    setbacks: int = 0
    """Refusals since the last result."""
    setback_reason: str = ""
    avoided: dict[str, Avoided] = field(default_factory=dict)
    aside_until: float | None = None
    """While only lenders have room that it avoids: until when it avoids the first of them."""
    listed: bool = False
    """Whether it stands in the line of its group."""
    checkpoints: Checkpoints | None = None
    """None for a job that declares none."""
    _samples: int = 0

    @classmethod
    def of(cls, admission: Admission, order: int) -> "Job":
        """Return the admitted job, none of its tasks pending yet."""
        spec = admission.spec
        return cls(
            key=JobKey(spec.submitter, spec.id),
            order=order,
            rank=max(spec.created_at, spec.not_before or 0.0) - PRIORITY_S * spec.priority,
            name=spec.name,
            need=Need.of(spec),
            total=spec.task_count,
            is_array=spec.array is not None,
            is_gang=spec.gang,
            retries=spec.retries,
            submitted_at=spec.created_at,
            not_before=spec.not_before or 0.0,
            not_after=spec.not_after,
            after=spec.after,
            queue_s=spec.queue_s,
            prepare_s=spec.limits.prepare_s,
            expected_s=spec.expected_s,
            inputs=_large_inputs(spec),
            payload=admission.payload,
            content_type=admission.content_type,
            signature=admission.signature,
            verified=admission.verified,
            checkpoints=Checkpoints() if spec.checkpoint else None,
        )

    @property
    def settled(self) -> int:
        """Number of tasks that have their result."""
        return self.succeeded + self.failed

    @property
    def pending_count(self) -> int:
        """Number of tasks that can be leased now."""
        return sum(len(tasks) for tasks in self.pending.values())

    @property
    def class_token(self) -> str:
        """The class that its leases are queued in."""
        return self.need.class_token

    @property
    def first_rested(self) -> Resting | None:
        """Those of the resting tasks that can be leased first."""
        return min(self.resting, key=_until, default=None)

    @property
    def wake_at(self) -> float | None:
        """When the job is to be looked at again, whatever else happens; None for never."""
        first = self.first_rested
        if first is None or self.aside_until is None:
            return self.aside_until if first is None else first.until
        return min(first.until, self.aside_until)

    def enter(self, state: JobState) -> None:
        """Go to `state`.

        Raises:
            RuntimeError: the table forbids it.
        """
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"job {self.key}: {self.state} -> {state}")
        self.state = state

    def begin(self, now: float, step: Step, tasks: RangeSet) -> None:
        """Let tasks wait for a lease at `step`, from the day on that the submitter named."""
        if now < self.not_before:
            self.resting.append(Resting(self.not_before, step, tasks, "date"))
        elif tasks:
            self.pending[step] = tasks

    def put_back(self, step: Step, tasks: Iterable[TaskRange]) -> None:
        """Let tasks wait for a lease at `step`."""
        waiting = self.pending.setdefault(step, RangeSet())
        waiting.add_all(tasks)
        if not waiting:
            del self.pending[step]

    def take(self, count: int, ranges_max: int) -> tuple[Step, RangeSet]:
        """Take up to `count` pending tasks of one step: those that were tried most come first."""
        step = max(self.pending)
        waiting = self.pending[step]
        taken = waiting.take(count, ranges_max)
        if not waiting:
            del self.pending[step]
        return step, taken

    def measure(self, duration_s: float) -> None:
        """Learn from one task's time; old ones weigh less from the 1,000th on."""
        self._samples = min(self._samples + 1, _SAMPLES_MAX)
        mean_s = self.mean_s or 0.0
        self.mean_s = mean_s + (duration_s - mean_s) / self._samples

    def set_back(
        self, now: float, step: Step, tasks: RangeSet, reason: str, lender: str | None
    ) -> None:
        """Let refused tasks rest, longer each time, and prefer others to `lender` for a while."""
        self.resting.append(Resting(now + _backoff_s(self.setbacks), step, tasks, "refused"))
        self.setbacks += 1
        self.setback_reason = reason
        if lender is not None:
            avoided = self.avoided.setdefault(lender, Avoided(0, 0.0))
            avoided.until = now + 2 * _backoff_s(avoided.refusals)
            avoided.refusals += 1

    def try_again(self, now: float, step: Step, task: int) -> None:
        """Let a task whose work has failed at `step` rest, and go on at the next."""
        rest_s = min(RETRY_MAX_S, RETRY_FIRST_S * (1 << step.failures))
        part_s = rest_s / RETRY_PARTS
        until = ceil((now + rest_s) / part_s) * part_s
        after = Step(step.attempt + 1, step.failures + 1)
        for at in reversed(range(len(self.resting))):
            one = self.resting[at]
            if (one.until, one.cause, one.step.failures) == (until, "failed", after.failures):
                one.tasks.add(task, 1)
                self.resting[at] = one._replace(step=max(one.step, after))
                return
        self.resting.append(Resting(until, after, RangeSet([(task, 1)]), "failed"))

    def rest(self, until: float, reason: str) -> None:
        """Let no pending task be leased before `until`."""
        self.resting += [
            Resting(until, step, tasks, "refused") for step, tasks in self.pending.items()
        ]
        self.pending.clear()
        self.setback_reason = reason

    def wake(self, now: float) -> None:
        """Let tasks that have rested wait for a lease again."""
        self.aside_until = None
        for one in self.resting:
            if one.until <= now:
                self.put_back(one.step, one.tasks)
        self.resting = [one for one in self.resting if one.until > now]

    def shift(self, by_s: float) -> None:
        """Move what was noted by the clock, after the clock itself has been moved."""
        self.resting = [
            one if one.cause == "date" else one._replace(until=one.until + by_s)
            for one in self.resting
        ]
        if self.aside_until is not None:
            self.aside_until += by_s
        for avoided in self.avoided.values():
            avoided.until += by_s

    def avoid(self, lender: str, until: float) -> None:
        """Prefer others to a lender that has just refused the job until then at least."""
        avoided = self.avoided[lender]
        avoided.until = max(avoided.until, until)

    def avoids(self, lender: str, now: float) -> bool:
        """Tell whether another lender is to be preferred to `lender`."""
        avoided = self.avoided.get(lender)
        return avoided is not None and now < avoided.until

    def progressed(self) -> None:
        """A result came: earlier refusals say nothing about the next lease."""
        self.setbacks = 0


def _large_inputs(spec: JobSpec) -> tuple[BlobRef, ...]:
    blobs = [BlobRef(sha256=one.sha256, size_bytes=one.size_bytes) for one in spec.inputs]
    if spec.program is not None:
        blobs.append(spec.program)
    return tuple(one for one in blobs if one.size_bytes >= OFFERED_BLOB_BYTES_MIN)


def _until(resting: Resting) -> float:
    return resting.until


def _backoff_s(times: int) -> float:
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * (1 << min(times, _BACKOFF_DOUBLINGS_MAX)))
