"""One live job: its state, which of its tasks wait, and what has been learned about it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import chain
from math import ceil, sqrt
from sys import intern
from typing import Final, Literal, NamedTuple

from broker.core.containers.ranges import RangeSet
from broker.core.copies.shared import SharedTask
from broker.core.intake.admission import Admission
from broker.core.jobs.checkpoints import Checkpoints
from broker.core.jobs.failures import Failures
from broker.core.matching.need import Need
from lender.protocol.bounds import OFFERED_BLOB_BYTES_MIN
from lender.protocol.codec import ContentType
from lender.protocol.job import After, BlobRef, JobSpec, TaskRange, Verify
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

STEPS_LOOK = 4
"""Steps that are closed to some lenders, of those looked at for one lease."""

UNDECIDED_MAX = 10_000
"""While so many tasks of a job are out, or wait for more answers, it begins no others."""


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
    barred: tuple[str, ...] = ()
    """Owners whose lenders are not to make that attempt: they have, or had, the same tasks."""


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
    end, all its tasks are in none of these. Only of `shared` ones there is more to say.
    """

    key: JobKey
    order: int
    """Submission order."""
    rank: float
    """Its turn among the submitter's jobs, the lowest first; never changes, so nothing starves."""
    name: str
    need: Need
    total: int
    tasks: tuple[TaskRange, ...]
    """The indices of all of them."""
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
    leases: dict[str, None] = field(default_factory=dict)
    """Those that are out; a set would take as much memory as most of the job, while it waits."""
    succeeded: int = 0
    failed: int = 0
    failures: Failures = field(default_factory=Failures)
    """Which of an array's have failed."""
    mean_s: float | None = None
    """Mean time of a task as measured; None before the first result."""
    resting: tuple[Resting, ...] = ()
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
    shared: dict[int, SharedTask] = field(default_factory=dict)
    """Tasks that more than one lender has been given."""
    copies: int = 0
    """How many of its tasks were given to one lender more."""
    verify: Verify | None = None
    """How many answers to each task are asked for, and how many have to agree."""
    votes_notes: int = 0
    """How many notes of votes RESULTS has: the number of the next one."""
    retries_notes: int = 0
    """How many notes of retries it has."""
    samples: int = 0
    """How many of its tasks' times were measured; more than 1,000 are not counted."""
    _variance: float = 0.0

    @classmethod
    def of(cls, admission: Admission, order: int) -> "Job":
        """Return the admitted job, none of its tasks pending yet."""
        spec = admission.spec
        return cls(
            key=JobKey(intern(spec.submitter), spec.id),
            order=order,
            rank=max(spec.created_at, spec.not_before or 0.0) - PRIORITY_S * spec.priority,
            name=spec.name,
            need=Need.of(spec),
            total=spec.task_count,
            tasks=spec.task_ranges,
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
            verify=spec.verify,
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
    def may_begin(self) -> int:
        """How many tasks more may be leased that are not closed to anybody.

        The others of a job that is verified are open in leases, or wait for more answers: each of
        those is kept by itself.
        """
        if self.verify is None:
            return self.total
        waiting = chain(self.pending.items(), ((one.step, one.tasks) for one in self.resting))
        begun = self.total - self.settled
        begun -= sum(len(tasks) for step, tasks in waiting if not step.barred)
        return max(0, UNDECIDED_MAX - begun)

    @property
    def may_share(self) -> int:
        """How many tasks more may be given to several lenders: each of those is kept by itself."""
        return max(0, UNDECIDED_MAX - len(self.shared))

    @property
    def undecided_max(self) -> int:
        """How many of its tasks may be out, or wait for more answers, at the same time."""
        return undecided_max(self.verify, self.total)

    @property
    def class_token(self) -> str:
        """The class that its leases are queued in."""
        return self.need.class_token

    @property
    def spread_s(self) -> float:
        """Standard deviation of a task's time as measured."""
        return sqrt(self._variance)

    @property
    def first_rested(self) -> Resting | None:
        """Those of the resting tasks that can be leased first."""
        return min(self.resting, key=_until, default=None)

    @property
    def wake_at(self) -> float | None:
        """When the job is to be looked at again, whatever else happens; None for never."""
        if not self.resting:
            return self.aside_until
        first = min(one.until for one in self.resting)
        return first if self.aside_until is None else min(first, self.aside_until)

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
            self.resting += (Resting(self.not_before, step, tasks, "date"),)
        elif tasks:
            self.pending[step] = tasks

    def put_back(self, tasks_by_step: Mapping[Step, Iterable[TaskRange]]) -> None:
        """Let tasks wait for a lease, each at its step."""
        for step, tasks in tasks_by_step.items():
            waiting = self.pending.setdefault(step, RangeSet())
            waiting.add_all(tasks)
            if not waiting:
                del self.pending[step]

    def steps(self) -> list[Step]:
        """Return the steps of pending tasks in the order in which they are looked at.

        Those that were tried most come first. All are alike for a lender that none is closed to,
        so others come into question only behind such as are closed to some. There are none where
        no task may begin before others are decided.
        """
        if not self.may_begin:
            return nlargest(STEPS_LOOK, [one for one in self.pending if one.barred])
        if len(self.pending) == 1:
            return list(self.pending)
        looked_at = nlargest(STEPS_LOOK, self.pending)
        if not looked_at[0].barred:
            return looked_at[:1]
        if all(one.barred for one in looked_at):
            looked_at += nlargest(1, [one for one in self.pending if not one.barred])
        return looked_at

    def take(self, step: Step, count: int, ranges_max: int) -> RangeSet:
        """Take up to `count` pending tasks of a step."""
        waiting = self.pending[step]
        if waiting.fits(count, ranges_max):
            return self.pending.pop(step)
        return waiting.take(count, ranges_max)

    def take_back(self, task: int) -> None:
        """Let a task wait for a lease no longer."""
        for step in [one for one, tasks in self.pending.items() if task in tasks]:
            self.pending[step].remove(task)
            if not self.pending[step]:
                del self.pending[step]
        for one in self.resting:
            one.tasks.remove(task)
        self.resting = tuple(one for one in self.resting if one.tasks)

    def note_leased(self, lease: str, step: Step, tasks: Iterable[TaskRange]) -> None:
        """Note of shared tasks which lease has them from now on."""
        for first, count in tasks:
            for task in range(first, first + count):
                if (shared := self.shared.get(task)) is not None:
                    shared.leases[lease] = None
                    shared.attempt = max(shared.attempt, step.attempt)
                    shared.waits = False

    def measure(self, durations_s: Iterable[float]) -> None:
        """Learn from the times of tasks, one at least; old ones weigh less from the 1,000th on."""
        samples, mean_s, variance = self.samples, self.mean_s or 0.0, self._variance
        for duration_s in durations_s:
            if samples < _SAMPLES_MAX:
                samples += 1
            # Source: Welford, Technometrics 4 (1962).
            off_s = duration_s - mean_s
            mean_s += off_s / samples
            variance += (off_s * (duration_s - mean_s) - variance) / samples
        self.samples, self.mean_s, self._variance = samples, mean_s, variance

    def set_back(
        self, now: float, refused: Mapping[Step, RangeSet], reason: str, lender: str | None
    ) -> None:
        """Let refused tasks rest, longer each time, and prefer others to `lender` for a while."""
        until = now + _backoff_s(self.setbacks)
        self.resting += _refused(until, refused)
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
                moved = one._replace(step=max(one.step, after))
                self.resting = (*self.resting[:at], moved, *self.resting[at + 1 :])
                return
        self.resting += (Resting(until, after, RangeSet([(task, 1)]), "failed"),)

    def rest(self, until: float, reason: str) -> None:
        """Let no pending task be leased before `until`."""
        self.resting += _refused(until, self.pending)
        self.pending.clear()
        self.setback_reason = reason

    def wake(self, now: float) -> None:
        """Let tasks that have rested wait for a lease again."""
        self.aside_until = None
        for one in self.resting:
            if one.until <= now:
                self.put_back({one.step: one.tasks})
        self.resting = tuple(one for one in self.resting if one.until > now)

    def shift(self, by_s: float) -> None:
        """Move what was noted by the clock, after the clock itself has been moved."""
        self.resting = tuple(
            one if one.cause == "date" else one._replace(until=one.until + by_s)
            for one in self.resting
        )
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


def undecided_max(verify: Verify | None, tasks: int) -> int:
    """Return how many of a job's tasks may have to be kept by themselves: see `may_begin`."""
    return 0 if verify is None else min(tasks, UNDECIDED_MAX)


def _large_inputs(spec: JobSpec) -> tuple[BlobRef, ...]:
    if not spec.inputs and spec.program is None:
        return ()
    blobs = [BlobRef(sha256=one.sha256, size_bytes=one.size_bytes) for one in spec.inputs]
    if spec.program is not None:
        blobs.append(spec.program)
    return tuple(one for one in blobs if one.size_bytes >= OFFERED_BLOB_BYTES_MIN)


def _refused(until: float, tasks_by_step: Mapping[Step, RangeSet]) -> tuple[Resting, ...]:
    return tuple(Resting(until, step, tasks, "refused") for step, tasks in tasks_by_step.items())


def _until(resting: Resting) -> float:
    return resting.until


def _backoff_s(times: int) -> float:
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * (1 << min(times, _BACKOFF_DOUBLINGS_MAX)))
