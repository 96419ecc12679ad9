"""A model of the streams and of lenders around the broker's core, for tests without I/O."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from broker.core.broker import Broker
from broker.core.containers.ranges import RangeSet
from broker.core.copies.shared import SharedTask, owner_of
from broker.core.durable.records import CheckpointsSummary
from broker.core.effects import (
    Commit,
    DeleteWork,
    Effect,
    FeedWork,
    PublishEvent,
    Reply,
    SendControl,
    Warn,
)
from broker.core.events import (
    CancelReplayed,
    CancelRequested,
    Committed,
    DoneReported,
    Event,
    JobReplayed,
    JobSubmitted,
    LeaseFed,
    LeaseReplayed,
    LedgerRead,
    OfferReceived,
    QueryReceived,
    ReplayCompleted,
    ResultReplayed,
    TimePassed,
    WorkSeen,
)
from broker.core.leasing.leases import Lease as LiveLease
from lender.protocol import subjects
from lender.protocol.classes import WorkClass
from lender.protocol.codec import (
    CONTENT_TYPE_HEADER,
    MSGPACK,
    ContentType,
    content_type_of,
    decode,
    encode,
)
from lender.protocol.job import Array, BlobRef, JobSpec, Requires
from lender.protocol.lease import Done, DoneReply, HeldLease, Lease, Offer
from lender.protocol.query import Query, QueryReply
from lender.protocol.result import Chunk, TaskResult, Terminal
from lender.protocol.signature import SIGNATURE_HEADER, Signer, seed_from_entropy
from lender.protocol.subjects import (
    parse_checkpoints_subject,
    parse_retries_subject,
    parse_votes_subject,
)

START = 1_000_000.0
ALICE, BOB = (Signer(seed_from_entropy(bytes([n] * 32))) for n in (1, 2))
LENDERS = [Signer(seed_from_entropy(bytes([n] * 32))).public_key for n in range(10, 16)]
L1, L2, L3 = LENDERS[:3]


def job_spec(signer: Signer = ALICE, job: str = "job-0001", **fields: object) -> JobSpec:
    count, separate = fields.pop("count", None), bool(fields.pop("separate", False))
    return JobSpec(
        **{
            "v": 1,
            "id": job,
            "submitter": signer.public_key,
            "workload": "command",
            "runtime": "process",
            "argv": ("true",),
            "array": Array(count=count, separate=separate) if count else None,
            "created_at": START,
            "not_after": START + 86_400.0,
            **fields,
        }
    )


def class_of(signer: Signer = ALICE, workload: str = "command", **requires: object) -> str:
    spec = job_spec(signer, workload=workload, requires=Requires(**requires))
    return WorkClass.of(spec).token


@dataclass
class Queued:
    """A message in WORK."""

    class_token: str
    headers: dict[str, str]
    payload: bytes

    @cached_property
    def lease(self) -> Lease:
        return decode(Lease, self.payload)


@dataclass
class World:
    """The broker and what it sees. Commits land and feeds are acknowledged at once by default."""

    submitters: frozenset[str] = frozenset((ALICE.public_key, BOB.public_key))
    now: float = START
    land_commits: bool = True
    answer_feeds: bool = True
    jobs: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    results: dict[str, tuple[dict[str, str], bytes]] = field(default_factory=dict)
    work: dict[int, Queued] = field(default_factory=dict)
    in_flight: list[Commit] = field(default_factory=list)
    feeds: list[FeedWork] = field(default_factory=list)
    replies: dict[str, DoneReply | QueryReply] = field(default_factory=dict)
    events: list[PublishEvent] = field(default_factory=list)
    controls: list[SendControl] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refused_records: list[str] = field(default_factory=list)
    effects: deque[Effect] = field(default_factory=deque)
    """Those that are yet to be carried out, in their order."""
    deleted: list[int] = field(default_factory=list)
    work_sequence: int = 0
    ids: int = 0
    reply_number: int = 0

    def __post_init__(self) -> None:
        self.start()

    def new_lease_id(self) -> str:
        self.ids += 1
        return f"{self.ids:022d}"

    # the broker's life

    def new_broker(self) -> Broker:
        return Broker(self.new_lease_id, self.submitters)

    def start(self) -> None:
        """Start a broker on what the streams hold."""
        self.take_over(self.stand_by())

    def stand_by(self) -> "Follower":
        return Follower(self, self.new_broker())

    def copy(self) -> "World":
        """The same streams at the same time, and a broker that knows nothing of them."""
        other = World(self.submitters, self.now, self.land_commits, self.answer_feeds)
        other.jobs, other.results = list(self.jobs), dict(self.results)
        other.work, other.work_sequence = dict(self.work), self.work_sequence
        other.ids = self.ids
        return other

    def take_over(self, follower: "Follower") -> None:
        """Let a broker lead, which may have read some of what the streams hold."""
        self.in_flight, self.feeds = [], []
        self.broker = follower.broker
        follower.read_all()
        self.do(ReplayCompleted())

    def do(self, event: Event) -> list[Effect]:
        effects = self.broker.handle(self.now, event)
        first = not self.effects
        self.effects.extend(effects)
        while first and self.effects:
            self._carry_out(self.effects[0])
            self.effects.popleft()
        return effects

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Commit():
                self.in_flight.append(effect)
                if self.land_commits:
                    self.land()
            case FeedWork():
                self.feeds.append(effect)
                if self.answer_feeds:
                    self.store_feed()
            case DeleteWork():
                self.deleted.append(effect.sequence)
                self.work.pop(effect.sequence, None)
            case Reply():
                self.replies[effect.reply_to] = effect.message
            case PublishEvent():
                self.events.append(effect)
            case SendControl():
                self.controls.append(effect)
            case Warn():
                self.warnings.append(effect.text)

    def store(self, commit: Commit) -> None:
        for record in commit.records:
            if record.subject in self.results:
                self.refused_records.append(record.subject)
            else:
                self.results[record.subject] = (dict(record.headers), record.payload)

    def land(self) -> None:
        """Let the oldest commit become durable, and say so."""
        commit = self.in_flight.pop(0)
        self.store(commit)
        self.do(Committed(commit.token))

    def store_feed(self) -> int:
        """Let the oldest feed be stored, and say so."""
        feed = self.feeds.pop(0)
        self.work_sequence += 1
        sequence = self.work_sequence
        self.work[sequence] = Queued(feed.class_token, dict(feed.headers), feed.payload)
        self.do(LeaseFed(feed.lease_id, sequence))
        return sequence

    def look_through_work(self) -> None:
        """Tell the broker what WORK holds, as it is told now and then."""
        self.do(WorkSeen(tuple((number, one.payload) for number, one in self.work.items())))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, from one deadline to the next."""
        end = self.now + seconds
        while (deadline := self.broker.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.do(TimePassed())
        self.now = end
        self.do(TimePassed())

    # submitters

    def submit(
        self,
        spec: JobSpec,
        signer: Signer = ALICE,
        content_type: ContentType = MSGPACK,
    ) -> JobSpec:
        payload = encode(spec, content_type)
        headers = {CONTENT_TYPE_HEADER: content_type, SIGNATURE_HEADER: signer.sign(payload)}
        self.submit_raw(subjects.submit(signer.public_key, spec.id), headers, payload)
        return spec

    def submit_raw(self, subject: str, headers: dict[str, str], payload: bytes) -> None:
        if any(subject == stored for stored, _, _ in self.jobs):
            return  # as the stream does
        self.jobs.append((subject, headers, payload))
        self.do(JobSubmitted(subject, headers, payload))

    def cancel(self, job: str, signer: Signer = ALICE) -> None:
        subject = subjects.cancel(signer.public_key, job)
        if any(subject == stored for stored, _, _ in self.jobs):
            return
        self.jobs.append((subject, {}, b""))
        self.do(CancelRequested(subject))

    def query(
        self, job: str | None = None, signer: Signer = ALICE, task: int | None = None
    ) -> QueryReply:
        reply = self._reply_to()
        question = encode(Query(job=job, task=task))
        self.do(QueryReceived(signer.public_key, {}, question, reply))
        answer = self.replies[reply]
        assert isinstance(answer, QueryReply)
        return answer

    def terminal(self, job: str = "job-0001", signer: Signer = ALICE) -> Terminal | None:
        stored = self.results.get(subjects.result(signer.public_key, job))
        if stored is None:
            return None
        headers, payload = stored
        return decode(Terminal, payload, content_type_of(headers.get(CONTENT_TYPE_HEADER)))

    def chunks(self, job: str = "job-0001", signer: Signer = ALICE) -> list[Chunk]:
        prefix = subjects.result(signer.public_key, job) + "."
        return [
            self.chunk(subject)
            for subject in self.results
            if subject.startswith(prefix) and not is_note(subject)
        ]

    def noted(self, job: str = "job-0001", signer: Signer = ALICE) -> dict[int, BlobRef]:
        """What RESULTS says that the job's tasks would go on from."""
        newest: dict[int, BlobRef] = {}
        for subject, (headers, _) in self.results.items():
            place = parse_checkpoints_subject(subject)
            if place is not None and place[:2] == (signer.public_key, job):
                summary = CheckpointsSummary.load(headers)
                assert summary is not None
                newest.update(summary.checkpoints)
        return newest

    def chunk(self, subject: str) -> Chunk:
        headers, payload = self.results[subject]
        return decode(Chunk, payload, content_type_of(headers.get(CONTENT_TYPE_HEADER)))

    def tasks(self, job: str = "job-0001", signer: Signer = ALICE) -> list[TaskResult]:
        return [result for chunk in self.chunks(job, signer) for result in chunk.results]

    # lenders

    def offer(
        self,
        lender: str = L1,
        *,
        classes: Iterable[str] | None = None,
        slots: int = 2,
        leases: Iterable[Lease] = (),
        phase: str = "lending",
        state: str = "running",
        ready: bool = False,
        **fields: object,
    ) -> None:
        """Say what a lender has: nothing but its slots is scarce, unless `fields` tell so."""
        held = tuple(
            HeldLease(
                lease=lease.lease,
                job=lease.job,
                submitter=lease.submitter,
                state=state,
                ready=ready,
            )
            for lease in leases
        )
        free = max(0, slots - len(held)) if phase == "lending" else 0
        offer = Offer.model_validate(
            {
                "lender": lender,
                "name": "machine",
                "phase": phase,
                "slots_total": max(1, slots),
                "slots_free": free,
                "cpu_free": 1.0,
                "memory_free_bytes": 1 << 40,
                "arch": "x86_64",
                "os": "linux",
                "runtimes": ("process",),
                "classes": tuple(classes if classes is not None else [class_of()]),
                "consent_digest": "",
                "leases": held,
                **fields,
            }
        )
        self.do(OfferReceived(lender, encode(offer)))

    def queued(self, class_token: str | None = None) -> list[Lease]:
        return [
            queued.lease
            for queued in self.work.values()
            if class_token in (None, queued.class_token)
        ]

    def pull(self, class_token: str | None = None) -> Lease:
        """Look at the oldest lease of WORK; it stays there until it is acked."""
        return self.queued(class_token)[0]

    def ack(self, lease: Lease) -> None:
        for sequence, queued in list(self.work.items()):
            if queued.lease.lease == lease.lease:
                del self.work[sequence]

    def report(
        self,
        lease: Lease,
        results: Iterable[TaskResult],
        lender: str = L1,
        *,
        final: bool = True,
        **fields: object,
    ) -> str:
        """Send a report; returns where its answer goes."""
        done = Done(
            **{
                "lease": lease.lease,
                "job": lease.job,
                "submitter": lease.submitter,
                "results": tuple(results),
                "final": final,
                **fields,
            }
        )
        return self.report_raw(encode(done), lender)

    def report_raw(self, payload: bytes, lender: str = L1) -> str:
        reply = self._reply_to()
        self.do(DoneReported(lender, payload, reply))
        return reply

    def verdict(self, reply: str) -> str | None:
        answer = self.replies.get(reply)
        assert answer is None or isinstance(answer, DoneReply)
        return answer.verdict if answer else None

    def run(self, lease: Lease, lender: str = L1, duration_s: float = 1.0) -> str:
        """Report success for every task of a lease and ack it; returns the verdict."""
        reply = self.report(lease, (ok(task, duration_s) for task in lease.tasks()), lender)
        self.ack(lease)
        return self.verdict(reply) or ""

    def cancelled(self, lender: str = L1) -> list[str]:
        return [
            lease
            for sent in self.controls
            if sent.lender == lender and sent.control.kind == "cancel"
            for lease in sent.control.leases
        ]

    def opened(self, lender: str = L1) -> list[str]:
        return [
            token
            for sent in self.controls
            if sent.lender == lender and sent.control.kind == "open"
            for token in sent.control.classes
        ]

    def _reply_to(self) -> str:
        self.reply_number += 1
        return f"_INBOX.{self.reply_number}"


class Follower:
    """A broker that stands by, and how far it has read."""

    def __init__(self, world: World, broker: Broker) -> None:
        self.world = world
        self.broker = broker
        self._records: set[str] = set()
        self._asked: set[str] = set()

    def read_results(self) -> None:
        for subject, (headers, _) in self.world.results.items():
            if subject not in self._records and not subject.startswith(subjects.TERM_PREFIX):
                self.handle(ResultReplayed(subject, headers))
            self._records.add(subject)

    def read_jobs(self) -> None:
        for subject, headers, payload in self.world.jobs:
            if subject in self._asked:
                continue
            self._asked.add(subject)
            if subject.startswith("submit."):
                self.handle(JobReplayed(subject, headers, payload))
            else:
                self.handle(CancelReplayed(subject))

    def follow(self) -> None:
        """Read both to their ends, as a broker does now and then while it stands by."""
        self.read_results()
        self.read_jobs()
        self.handle(LedgerRead())

    def read_all(self) -> None:
        """Read what the streams hold, as a broker does that comes to lead."""
        self.read_results()
        for sequence, queued in self.world.work.items():
            self.handle(LeaseReplayed(sequence, queued.headers, queued.payload))
        self.read_jobs()

    def handle(self, event: Event) -> None:
        assert self.broker.handle(self.world.now, event) == [], "no effect leaves before the end"


def ok(task: int = 0, duration_s: float = 1.0, value: bytes = b"") -> TaskResult:
    return TaskResult(task=task, state="succeeded", exit_code=0, duration_s=duration_s, value=value)


def bad(task: int = 0, **fields: object) -> TaskResult:
    return TaskResult(**{"task": task, "state": "failed", "exit_code": 1, **fields})


def archive(number: int) -> BlobRef:
    """A checkpoint that is told apart from all others, newer than those with lower numbers."""
    return BlobRef(sha256=f"{number:064x}", size_bytes=number)


def is_note(subject: str) -> bool:
    """Whether a record of RESULTS is the broker's own note."""
    return (
        subject.endswith(".begun")
        or parse_checkpoints_subject(subject) is not None
        or parse_votes_subject(subject) is not None
        or parse_retries_subject(subject) is not None
    )


def picture(world: World) -> dict[str, object]:
    """What a broker knows of live jobs, and what the streams hold."""
    state = world.broker.state
    jobs = {
        job.key: (
            job.state,
            {step: list(tasks) for step, tasks in job.pending.items()},
            [(one.until, one.step, list(one.tasks), one.cause) for one in job.resting],
            {one: list(state.leases[one].open) for one in job.leases},
            (job.succeeded, job.failed, job.failures.listed(1_000)),
            list(job.failures.cancelled),
            None if job.checkpoints is None else job.checkpoints.of(RangeSet(job.tasks)),
            {task: dict(shared.votes) for task, shared in job.shared.items()},
            sorted(state.dependencies.left(job.key).items()),
            state.dependencies.separate.left(job.key),
        )
        for job in state.jobs
    }
    used = {
        key.submitter: (state.quotas.room(key.submitter), state.quotas.full(key.submitter))
        for key in jobs
    }
    due = sorted(state.due.items())
    return {"jobs": jobs, "due": due, "used": used, "work": world.work, "results": world.results}


def check_places(world: World) -> None:
    """Each task of a live job is in exactly one place; leases and their counts agree.

    A shared task is where its job says: waiting for a lease at most once, and open in each lease
    that is noted of it, all of different owners. Answers that are wanted are there, under way, or
    asked for; only a copy makes one more.
    """
    state = world.broker.state
    leased = 0
    for job in state.jobs:
        waiting = _counted([*job.pending.values(), *(one.tasks for one in job.resting)])
        leases = [state.leases[lease_id] for lease_id in job.leases]
        leased += len(leases)
        if state.dependencies.left(job.key):
            assert not waiting, f"{job.key} waits for others and is handed out"
            assert not leases, f"{job.key} waits for others and is handed out"
            waiting = _counted([RangeSet(job.tasks)])
            for task in _counted([job.failures.cancelled]):
                del waiting[task]
        open_in: dict[int, list[LiveLease]] = {}
        for lease in leases:
            for task in _counted([lease.open]):
                open_in.setdefault(task, []).append(lease)
        seen = waiting.keys() | open_in.keys()
        assert all(waiting[task] <= 1 for task in seen), f"a task of {job.key} waits twice"
        assert job.shared.keys() <= seen, f"a shared task of {job.key} is lost"
        for task in seen:
            shared, has = job.shared.get(task), open_in.get(task, [])
            if shared is None:
                where = waiting[task] + len(has)
                assert where == 1, f"{job.key}/{task} is in {where} places"
            else:
                _check_shared(shared, waiting[task], has)
        assert len(seen) + job.settled == job.total, f"a task of {job.key} is lost"
        assert len(seen) > 0, f"{job.key} has all results and lives on"
    assert leased == len(state.leases)
    submitters = {job.key.submitter for job in state.jobs}
    assert sum(map(state.shares.leases_of, submitters)) == leased
    live = [state.leases[lease_id] for job in state.jobs for lease_id in job.leases]
    assert state.leases.waiting.total() == sum(lease.holder is None for lease in live)
    for lender in state.fleet:
        for lease_id, need in lender.claims.items():
            assert (state.leases[lease_id].claim, state.leases[lease_id].need) == (lender.id, need)
        assert lender.has_room == (lender.place is not None)
    claims = {lease_id for lender in state.fleet for lease_id in lender.claims}
    assert claims <= {lease_id for job in state.jobs for lease_id in job.leases}


def _counted(places: Iterable[RangeSet]) -> Counter[int]:
    return Counter(
        index for place in places for first, n in place for index in range(first, first + n)
    )


def _check_shared(shared: SharedTask, waiting: int, leases: list[LiveLease]) -> None:
    assert waiting == shared.waits
    assert sorted(shared.leases) == sorted(one.id for one in leases)
    assert shared.wanted >= len(shared.votes) + waiting, "more is waited for than is wanted"
    asked_for = shared.waits or any(one.holder is None for one in leases)
    assert shared.missing <= 0 or asked_for, "an answer is wanted and not asked for"
    assert waiting or leases
    owners = [owner_of(one.holder) for one in leases if one.holder] + list(shared.votes)
    assert len(set(owners)) == len(owners), "an owner has a task twice"
