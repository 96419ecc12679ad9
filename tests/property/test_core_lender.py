"""Whatever owners, machines, brokers and sandboxes do, in any order: the lender's promises hold.

A model shell carries out every effect, checks it against what it knows to be allowed, and feeds
outcomes back at any time, in any order of leases, late, twice, or never.
"""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from core_world import (
    ALICE,
    BLOB,
    BOB,
    BUSY,
    CALM,
    GIB,
    MACHINE,
    START,
    array_spec,
    class_of,
    lease_id,
    make_config,
    make_grant,
    make_lease,
    make_spec,
    results,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lender.core.budget import Usage, parse_budget
from lender.core.consent import Consent, Grant, Intent
from lender.core.effects import (
    AbandonCheckpoint,
    AckLease,
    CloseSandbox,
    Effect,
    Exit,
    ExtendLease,
    ForgetDelivery,
    FreezeSandbox,
    KeepSandbox,
    LetSleep,
    OpenSandbox,
    PullWork,
    PurgeSubmitter,
    ReturnLease,
    RunTasks,
    SendOffer,
    SendReport,
    TerminateSandbox,
    ThawSandbox,
    WriteReceipt,
)
from lender.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    BrokerGreeted,
    CapabilitiesFound,
    CheckpointSaved,
    ClassesOpened,
    ConsentLoaded,
    DrainRequested,
    Event,
    IntentLoaded,
    LeaseDelivered,
    LeaseMalformed,
    LeasesCancelled,
    MachineSampled,
    PreparationFailed,
    PullEnded,
    ReportAnswered,
    SandboxGone,
    SandboxPrepared,
    SleepAnnounced,
    StandstillSeen,
    TasksEnded,
    TaskTerminated,
    TimeAdvanced,
    UsageMetered,
    UsageRecalled,
    WallClockRead,
    WokenUp,
)
from lender.core.kept_sandboxes import KEEP_S
from lender.core.lender import Lender
from lender.core.policy import Rung
from lender.core.pulling import PULL_EXPIRES_S
from lender.core.restraint import GRACE_S
from lender.core.schedule import ALWAYS, When, parse_when
from lender.core.signals import Presence, Signals
from lender.protocol.lease import Lease

# Under coverage, on a busy machine.
pytestmark = pytest.mark.timeout(240)

SIGNERS = {"alice": ALICE, "bob": BOB}
SLOTS = 3
HANDBACK_S = 10.0

names = st.sampled_from(sorted(SIGNERS))
picks = st.integers(0, 5)
whens = st.sampled_from([ALWAYS, ALWAYS, parse_when("idle"), parse_when("away")])
budgets = st.sampled_from(["", "", "0.005cpuh/week"])
durations_s = st.sampled_from([0.5, 2.0, 9.0, 40.0, 500.0])


@dataclass
class Sandbox:
    """What the model shell knows of one sandbox."""

    lease: Lease
    grant: Grant
    cpu: int
    open: bool = True
    frozen: bool = False
    stopped_at: float | None = None
    """When somebody else stopped it."""
    prepared: bool = False
    running: bool = False
    receipts: int = 0
    checkpoint: bool = False
    asked_at: float | None = None
    """When it was asked to end by itself."""
    kept_at: float | None = None
    """Since when it is idle, its lease being over."""
    saving: bool = False
    saved: bool = False
    cpu_s: float = 0.0
    results_s: float = 0.0
    counted: set[int] = field(default_factory=set)


@dataclass
class Told:
    """What the broker was told of one lease."""

    tasks: set[int] = field(default_factory=set)
    numbers: int = 0
    final: int | None = None
    unanswered: list[int] = field(default_factory=list)


class ModelShell(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        config = make_config(slots=SLOTS, frozen_handback_s=HANDBACK_S)
        self.lender = Lender(config)
        self.now = START
        self.grants: dict[str, Grant] = {}
        self.revoked: set[str] = set()
        self.used_s: Counter[str] = Counter()
        self.said = Intent(paused=True)
        """By the wall clock, as it is stored."""
        self.behind_s = 0.0
        self.asleep = False
        self.connected = False
        self.busy = False
        self.drain_deadline: float | None = None
        self.exits = 0
        self.sandboxes: dict[str, Sandbox] = {}
        self.told: dict[str, Told] = {}
        self.leases: dict[str, Lease] = {}
        self.delivered = 0
        self.deliveries: dict[int, str] = {}
        """Deliveries that wait for their end: handle to lease."""
        self.pulls: set[str] = set()
        self.produced: dict[str, set[int]] = {}

    # Carrying out effects, each held against what is allowed at that moment.

    @property
    def word(self) -> Intent:
        return self.said.by_clock(self.behind_s)

    def tell(self, event: Event) -> None:
        for effect in self.lender.handle(self.now, event):
            self.carry_out(effect)
        deadline = self.lender.next_deadline()
        assert deadline is None or deadline > self.now, "the shell would spin"

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case OpenSandbox(lease=lease, spec=spec, grant=grant, reuse=reuse):
                assert not self.word.holds(self.now)
                assert not self.asleep
                assert self.drain_deadline is None
                assert lease.lease not in self.sandboxes, "run twice"
                assert self.allows(self.grants[grant])
                assert self.lets_run(self.grants[grant])
                if reuse is not None:
                    self.take_over(self.sandboxes[reuse], lease, grant)
                self.sandboxes[lease.lease] = Sandbox(
                    lease, self.grants[grant], spec.limits.cpu, checkpoint=spec.checkpoint
                )
            case RunTasks(lease=lease_, tasks=tasks):
                sandbox = self.sandboxes[lease_]
                assert not self.stopped_by_word()
                assert sandbox.open
                assert sandbox.prepared
                assert not sandbox.running
                assert not sandbox.frozen or sandbox.stopped_at is not None
                assert self.allows(sandbox.grant)
                assert list(tasks) == sandbox.lease.tasks()
                sandbox.running = True
            case FreezeSandbox(lease=lease_):
                assert self.sandboxes[lease_].open
                self.sandboxes[lease_].frozen = True
                self.sandboxes[lease_].stopped_at = None
            case ThawSandbox(lease=lease_):
                assert not self.stopped_by_word()
                assert self.lets_run(self.sandboxes[lease_].grant)
                assert self.sandboxes[lease_].open
                assert self.sandboxes[lease_].frozen
                assert self.sandboxes[lease_].stopped_at is None, "not without a word"
                self.sandboxes[lease_].frozen = False
            case WriteReceipt(lease=lease_):
                self.sandboxes[lease_].receipts += 1
                assert not self.sandboxes[lease_].open
            case _:
                self.carry_out_at_the_end(effect)

    def take_over(self, kept: Sandbox, lease: Lease, grant: str) -> None:
        """Consent, submitter and job are the same, to the byte."""
        assert kept.kept_at is not None, "of what stands idle alone"
        assert kept.grant.id == grant
        assert (kept.lease.submitter, kept.lease.spec) == (lease.submitter, lease.spec)
        assert not lease.checkpoints
        kept.kept_at = None

    def carry_out_at_the_end(self, effect: Effect) -> None:
        match effect:
            case TerminateSandbox(lease=lease_):
                sandbox = self.sandboxes[lease_]
                assert sandbox.open
                assert sandbox.running
                assert not sandbox.frozen or sandbox.stopped_at is not None
                assert sandbox.checkpoint
                assert sandbox.asked_at is None, "asked twice"
                sandbox.asked_at = self.now
            case KeepSandbox(lease=lease_):
                sandbox = self.sandboxes[lease_]
                assert sandbox.open
                assert not sandbox.frozen or sandbox.stopped_at is not None
                assert sandbox.asked_at is None
                sandbox.open, sandbox.kept_at = False, self.now
            case CloseSandbox(lease=lease_, save=save):
                sandbox = self.sandboxes[lease_]
                assert sandbox.open or sandbox.kept_at is not None, "closed twice"
                sandbox.open, sandbox.kept_at = False, None
                if save:
                    assert sandbox.checkpoint
                    assert sandbox.running
                    assert self.allows(sandbox.grant)
                    sandbox.saving = True
            case AbandonCheckpoint(lease=lease_):
                assert self.sandboxes[lease_].saving
                self.sandboxes[lease_].saving = False
            case _:
                self.carry_out_on_the_wire(effect)

    def carry_out_on_the_wire(self, effect: Effect) -> None:
        match effect:
            case SendReport():
                self.report(effect)
            case (
                AckLease(delivery=delivery)
                | ReturnLease(delivery=delivery)
                | ForgetDelivery(delivery=delivery)
            ):
                assert delivery in self.deliveries, "ended twice"
                del self.deliveries[delivery]
            case ExtendLease(delivery=delivery):
                assert delivery in self.deliveries
            case PullWork(work_class=work_class, batch=batch):
                assert not self.word.holds(self.now)
                assert not self.asleep
                assert self.connected
                assert work_class not in self.pulls
                assert 0 < batch <= SLOTS - self.cpu_open()
                self.pulls.add(work_class)
            case SendOffer(offer=offer):
                assert self.connected
                if self.stopped_by_word():
                    assert (offer.phase, offer.slots_free) == ("paused", 0)
                if self.word.holds(self.now) or self.asleep:
                    assert offer.slots_free == 0
                if not any(self.allows(grant) for grant in self.grants.values()):
                    assert (offer.slots_free, offer.classes) == (0, ())
            case _:
                self.carry_out_on_the_machine(effect)

    def report(self, effect: SendReport) -> None:
        lease_, number, report = effect.lease, effect.number, effect.report
        told = self.told.setdefault(lease_, Told())
        assert told.final is None, "a report after the last word"
        told.numbers += 1
        assert number == told.numbers
        tasks = [one.task for one in report.results]
        assert len(set(tasks)) == len(tasks)
        assert not told.tasks & set(tasks), "reported twice"
        assert set(tasks) <= self.produced.get(lease_, set())
        told.tasks |= set(tasks)
        told.unanswered.append(number)
        if report.final:
            told.final = number
            complete = told.tasks == set(self.leases[lease_].tasks())
            assert report.outcome != "finished" or complete
            assert report.outcome == "finished" or report.reason
            assert report.outcome != "revoked" or not tasks, "its results are dropped"
        if report.checkpoints:
            assert (report.final, report.outcome) == (True, "evicted")
            assert self.sandboxes[lease_].saved
            assert self.allows(self.sandboxes[lease_].grant)

    def carry_out_on_the_machine(self, effect: Effect) -> None:
        match effect:
            case PurgeSubmitter(submitter=submitter):
                theirs = [
                    one for one in self.sandboxes.values() if one.grant.submitter == submitter
                ]
                assert not any(one.open for one in theirs), "purged under running work"
                assert not any(one.saving or one.kept_at is not None for one in theirs)
            case LetSleep():
                assert self.asleep
            case Exit():
                assert self.drain_deadline is not None
                assert not any(one.open or one.saving for one in self.sandboxes.values())
                self.exits += 1
            case _:
                raise AssertionError(effect)

    def allows(self, grant: Grant) -> bool:
        return grant.id not in self.revoked and self.now < grant.not_after

    def lets_run(self, grant: Grant) -> bool:
        """Whether the grant's own times and budget hold, by the presence that is believed."""
        presence = self.lender.status(self.now).verdict.presence
        bounds = [bound for bound in grant.budget if self.used_s[grant.id] >= bound.amount]
        return not bounds and grant.when.holds(presence, 0.0)

    def stopped_by_word(self) -> bool:
        return self.word.holds(self.now) and not self.word.finishing(self.now)

    def cpu_open(self) -> int:
        return sum(one.cpu for one in self.sandboxes.values() if one.open)

    # The owner.

    @initialize(duration_s=durations_s)
    def start(self, duration_s: float) -> None:
        self.tell(CapabilitiesFound(MACHINE))
        self.tell(CALM)
        self.connected = True
        self.tell(BrokerConnected())
        self.grant("alice", duration_s)
        self.resume()
        self.tell(ClassesOpened((class_of(),)))

    @rule(name=names, duration_s=durations_s, when=whens, budget=budgets)
    def grant(self, name: str, duration_s: float, when: When = ALWAYS, budget: str = "") -> None:
        id_ = f"G-{len(self.grants)}"
        self.grants[id_] = make_grant(
            id_,
            SIGNERS[name],
            not_after=self.now + duration_s,
            cpu=2,
            when=when,
            budget=parse_budget([budget] if budget else []),
        )
        self.load_consent()

    @rule(pick=picks)
    def revoke(self, pick: int) -> None:
        self.revoked.add(f"G-{pick % len(self.grants)}")
        self.load_consent()

    def load_consent(self) -> None:
        self.tell(ConsentLoaded(Consent(tuple(self.grants.values()), frozenset(self.revoked))))

    @rule(
        until_s=st.none() | st.floats(0.0, 60.0),
        finish_s=st.none() | st.floats(0.0, 60.0),
    )
    def pause(self, until_s: float | None = None, finish_s: float | None = None) -> None:
        now = self.now - self.behind_s
        until = None if until_s is None else now + until_s
        finish_by = None if finish_s is None else now + finish_s
        self.say(Intent(True, now, until, finish_by))

    @rule()
    def resume(self) -> None:
        self.say(Intent(False, self.now - self.behind_s))

    def say(self, word: Intent) -> None:
        self.look()
        if word != self.said:
            for sandbox in self.sandboxes.values():
                sandbox.stopped_at = None
        self.said = word
        self.tell(IntentLoaded(word))

    @precondition(lambda self: self.sandboxes)
    @rule(pick=picks, looks=st.booleans())
    def pause_that_is_cut_off(self, pick: int, *, looks: bool) -> None:
        sandbox = self.picked(pick)
        if sandbox.open and not sandbox.frozen:
            sandbox.frozen, sandbox.stopped_at = True, self.now
        if looks:
            self.look()

    def look(self) -> None:
        still = {lease for lease, one in self.sandboxes.items() if one.open and one.frozen}
        self.tell(StandstillSeen(frozenset(still)))

    @precondition(lambda self: self.drain_deadline is None)
    @rule(duration_s=st.floats(0.0, 30.0), really=st.integers(0, 9))
    def drain(self, duration_s: float, really: int) -> None:
        if really == 9:
            self.drain_deadline = self.now + duration_s
            self.tell(DrainRequested(self.drain_deadline))

    @rule(duration_s=durations_s)
    def lend_again(self, duration_s: float) -> None:
        """The owner resumes, the machine is awake and calm, a broker is there with work."""
        self.resume()
        self.wake(0.0)
        self.sample(busy=False)
        self.wait(6.0)
        self.sample(busy=False)
        self.connection(up=True)
        self.grant("alice", duration_s)
        self.open_class("alice")

    # The machine and time.

    @rule(busy=st.booleans())
    def sample(self, *, busy: bool) -> None:
        self.busy = busy
        self.tell(BUSY if busy else CALM)

    @rule(
        cpu_others=st.floats(0.0, 4.0),
        memory_bytes=st.sampled_from([GIB // 2, 12 * GIB, 12 * GIB]),
        idle_s=st.sampled_from([0.0, 600.0, 6000.0]),
    )
    def sample_people(self, cpu_others: float, memory_bytes: int, idle_s: float) -> None:
        """Somebody comes and goes, others need more or less, memory runs short."""
        self.busy = False
        presence = Presence(idle_s=idle_s, desktop=True, sources=("mutter",))
        self.tell(MachineSampled(Signals(cpu_others, memory_bytes, presence=presence)))

    @rule()
    def sleep(self) -> None:
        self.asleep = True
        self.tell(SleepAnnounced())
        for one in self.sandboxes.values():
            assert not one.open or one.asked_at is not None

    @rule(slept_s=st.sampled_from([0.0, 1.0, 3000.0]))
    def wake(self, slept_s: float) -> None:
        """Announced or not; the sleep may have been long enough for all leases to expire."""
        self.asleep = False
        self.now += slept_s
        self.tell(WokenUp(slept_s))
        assert slept_s < 2.5 or not any(one.open for one in self.sandboxes.values())

    @precondition(lambda self: self.sandboxes)
    @rule(pick=picks, cpu_s=st.floats(0.0, 40.0))
    def meter(self, pick: int, cpu_s: float) -> None:
        sandbox = self.picked(pick)
        if sandbox.open and cpu_s > sandbox.cpu_s:
            self.spend(sandbox, cpu_s)
            self.tell(UsageMetered(sandbox.lease.lease, cpu_s, 1))

    def spend(self, sandbox: Sandbox, cpu_s: float) -> None:
        self.used_s[sandbox.grant.id] += max(0.0, cpu_s - sandbox.cpu_s)
        sandbox.cpu_s = max(sandbox.cpu_s, cpu_s)

    @rule(intent_first=st.booleans())
    def crash(self, *, intent_first: bool) -> None:
        """lenderd dies and its sandboxes with it; the next one knows what is on disk."""
        self.now, self.behind_s = max(START, self.now - self.behind_s), 0.0
        self.sandboxes, self.produced = {}, {}
        self.lender = Lender(make_config(slots=SLOTS, frozen_handback_s=HANDBACK_S))
        self.told, self.deliveries, self.pulls = {}, {}, set()
        self.connected, self.drain_deadline, self.exits, self.asleep = False, None, 0, False
        used = tuple((id_, self.now, Usage(cpu_s)) for id_, cpu_s in self.used_s.items())
        self.tell(UsageRecalled(used, 0))
        self.tell(CapabilitiesFound(MACHINE))
        words = [self.load_consent, lambda: self.tell(IntentLoaded(self.said))]
        for load in reversed(words) if intent_first else words:
            load()
        self.sample(busy=False)
        self.connection(up=True)

    @rule(behind_s=st.sampled_from([0.0, 0.1, 90.0, 7200.0]))
    def set_clock(self, behind_s: float) -> None:
        """The wall clock is set back, or forward again as far as the core's time."""
        self.behind_s = behind_s
        self.tell(WallClockRead(behind_s))

    @rule(duration_s=st.floats(0.001, 20.0))
    def wait(self, duration_s: float) -> None:
        end = self.now + duration_s
        while (at := self.lender.next_deadline()) is not None and at <= end:
            self.now = at
            self.tell(TimeAdvanced())
        self.now = end

    @rule(duration_s=st.floats(0.001, 60.0))
    def oversleep(self, duration_s: float) -> None:
        """Time passes and the shell was not scheduled: the next event comes first."""
        self.now += duration_s

    # The broker.

    @rule(
        name=st.sampled_from(["alice", "alice", "alice", "bob"]),
        tasks=st.integers(1, 5),
        cpu=st.integers(1, 3),
        forged=st.booleans(),
        checkpoint=st.booleans(),
    )
    def deliver(
        self, name: str, tasks: int, cpu: int, *, forged: bool, checkpoint: bool = False
    ) -> None:
        limits = {"cpu": cpu}
        spec = array_spec(tasks, limits=limits, checkpoint=checkpoint)
        if name == "bob":
            spec = make_spec(BOB, array={"count": tasks}, limits=limits)
        signer = SIGNERS[name] if not (forged and tasks == 1) else ALICE
        lease = make_lease(spec, len(self.leases), signer=signer)
        self.leases[lease.lease] = lease
        self.hand_over(lease, class_of(spec))

    @rule(cpus=st.lists(st.integers(1, 2), min_size=2, max_size=4))
    def deliver_many(self, cpus: list[int]) -> None:
        for cpu in cpus:
            self.deliver("alice", 3, cpu, forged=False)

    @rule(checkpoint=st.booleans(), leases=st.integers(1, 3))
    def deliver_more_of_the_same(self, leases: int, *, checkpoint: bool) -> None:
        """Leases that run to their end, one after another."""
        for _ in range(leases):
            self.deliver("alice", 1, 1, forged=False, checkpoint=checkpoint)
            self.work(0.0, answered=True)
            self.work(0.0, answered=True)

    def deliver_again(self, pick: int) -> None:
        """The queue's ack wait ran out, or an ack was lost: the older message is void."""
        lease = self.leases[lease_id(pick % len(self.leases))]
        self.hand_over(lease, class_of())
        assert list(self.deliveries.values()).count(lease.lease) <= 1

    def hand_over(self, lease: Lease, work_class: str) -> None:
        self.delivered = self.delivered + 1
        self.deliveries[self.delivered] = lease.lease
        self.tell(LeaseDelivered(work_class, self.delivered, lease))

    def deliver_junk(self) -> None:
        self.delivered = self.delivered + 1
        self.deliveries[self.delivered] = "junk"
        self.tell(LeaseMalformed(class_of(), self.delivered, "junk"))
        assert self.delivered not in self.deliveries

    @precondition(lambda self: self.told)
    @rule(pick=picks, accepted=st.integers(0, 4))
    def answer(self, pick: int, accepted: int) -> None:
        """Answers come in order per lease, and now and then twice."""
        lease = sorted(self.told)[pick % len(self.told)]
        told = self.told[lease]
        number = told.unanswered[0] if told.unanswered else max(1, told.numbers)
        told.unanswered = told.unanswered[1:]
        self.tell(ReportAnswered(lease, number, accepted > 0, "" if accepted else "stale"))

    def cancel(self, pick: int) -> None:
        self.tell(LeasesCancelled((lease_id(pick % (len(self.leases) + 1)),)))

    def connection(self, *, up: bool) -> None:
        if up:
            self.connected = True
            self.tell(BrokerConnected())
        else:
            self.connected = False
            self.tell(BrokerDisconnected())
            for work_class in sorted(self.pulls):
                self.end_pull(work_class, refused=False)

    def greet(self) -> None:
        if self.connected:
            self.tell(BrokerGreeted())

    def open_class(self, name: str) -> None:
        self.tell(ClassesOpened((class_of(make_spec(SIGNERS[name])),)))

    @precondition(lambda self: self.pulls)
    @rule(pick=picks, refused=st.booleans())
    def pull_ended(self, pick: int, *, refused: bool) -> None:
        self.end_pull(sorted(self.pulls)[pick % len(self.pulls)], refused=refused)

    def end_pull(self, work_class: str, *, refused: bool) -> None:
        self.pulls.discard(work_class)
        self.tell(PullEnded(work_class, refused))

    @precondition(lambda self: self.leases)
    @rule(pick=picks, kind=st.integers(0, 6))
    def disturb(self, pick: int, kind: int) -> None:
        match kind:
            case 0:
                self.greet()
            case 1:
                self.deliver_junk()
            case 2:
                self.deliver_again(pick)
            case 3:
                self.cancel(pick)
            case 4:
                self.connection(up=pick % 2 == 0)
            case 5:
                self.open_class(sorted(SIGNERS)[pick % 2])
            case _:
                self.sandbox_gone(pick)

    # The sandboxes; what they tell may come after they were closed.

    def picked(self, pick: int) -> Sandbox:
        return self.sandboxes[sorted(self.sandboxes)[pick % len(self.sandboxes)]]

    @precondition(lambda self: any(not one.prepared for one in self.sandboxes.values()))
    @rule(pick=picks, fails=st.integers(0, 3), invalid=st.booleans())
    def prepared(self, pick: int, fails: int, *, invalid: bool) -> None:
        waiting = [one for one in self.sandboxes.values() if not one.prepared]
        sandbox = waiting[pick % len(waiting)]
        lease = sandbox.lease.lease
        if fails == 0:
            self.tell(PreparationFailed(lease, invalid, "argv", "broken"))
        else:
            sandbox.prepared = True
            self.tell(SandboxPrepared(lease))

    @precondition(lambda self: any(one.running for one in self.sandboxes.values()))
    @rule(pick=picks, count=st.integers(1, 3), failed=st.booleans())
    def tasks_ended(self, pick: int, count: int, *, failed: bool) -> None:
        running = sorted(name for name, one in self.sandboxes.items() if one.running)
        lease = self.sandboxes[running[pick % len(running)]].lease
        self.end_tasks(lease, count, "failed" if failed else "succeeded")

    def end_tasks(self, lease: Lease, count: int, state: str) -> None:
        produced = self.produced.setdefault(lease.lease, set())
        left = [task for task in lease.tasks() if task not in produced][:count]
        again = sorted(produced)[:1]  # told twice
        produced |= set(left)
        sandbox = self.sandboxes[lease.lease]
        if sandbox.open and sandbox.running:
            sandbox.results_s += 0.5 * len(set(left) - sandbox.counted)
            sandbox.counted |= set(left)
            self.spend(sandbox, sandbox.results_s)
        self.tell(TasksEnded(lease.lease, results(*again, *left, state=state)))

    @rule(late_s=st.sampled_from([0.0, 0.2, 0.2, 3.0, 60.0]), answered=st.booleans())
    def work(self, late_s: float, *, answered: bool) -> None:
        """Every sandbox makes a step, and the broker may answer all that it was told."""
        self.now += late_s
        for lease, sandbox in list(self.sandboxes.items()):
            if sandbox.open and not sandbox.prepared:
                sandbox.prepared = True
                self.tell(SandboxPrepared(lease))
            elif sandbox.open and sandbox.running and not sandbox.frozen:
                self.end_tasks(sandbox.lease, 1, "succeeded")
        for lease, told in list(self.told.items()) if answered else ():
            while told.unanswered:
                self.tell(ReportAnswered(lease, told.unanswered.pop(0), True, ""))

    @rule(
        why=st.sampled_from(["memory", "sleep", "finish"]),
        steps=st.integers(0, 2),
        paused=st.booleans(),
    )
    def what_leaves_checkpoints_has_to_go(self, why: str, steps: int, *, paused: bool) -> None:
        """It is asked, it may end, and what it left may be saved."""
        self.deliver("alice", 3, 1, forged=False, checkpoint=True)
        self.work(0.0, answered=True)
        match why:
            case "memory":
                self.sample_people(0.5, GIB // 2, 6000.0)
            case "sleep":
                self.sleep()
            case _:
                self.pause(finish_s=9.0)
        if paused:
            self.pause()
        if steps > 0 and self.asked():
            self.ended_as_asked(0)
        if steps > 1 and self.saving():
            self.checkpoint_saved(0, left=True)

    def asked(self) -> list[Sandbox]:
        return [one for one in self.sandboxes.values() if one.open and one.asked_at is not None]

    def saving(self) -> list[Sandbox]:
        return [one for one in self.sandboxes.values() if one.saving]

    @precondition(asked)
    @rule(pick=picks)
    def ended_as_asked(self, pick: int) -> None:
        asked = self.asked()
        self.tell(TaskTerminated(asked[pick % len(asked)].lease.lease))

    @precondition(saving)
    @rule(pick=picks, left=st.booleans())
    def checkpoint_saved(self, pick: int, *, left: bool) -> None:
        sandbox = self.saving()[pick % len(self.saving())]
        sandbox.saved = left
        self.tell(CheckpointSaved(sandbox.lease.lease, ((0, BLOB),) if left else ()))
        sandbox.saving = False

    @rule(pick=picks, kind=st.integers(0, 2))
    def late_word_of_an_end(self, pick: int, kind: int) -> None:
        if self.sandboxes and kind == 2:
            lease = self.picked(pick).lease.lease
            if not self.sandboxes[lease].saving and not self.sandboxes[lease].open:
                self.tell(CheckpointSaved(lease, ()))
                self.tell(TaskTerminated(lease))

    def sandbox_gone(self, pick: int) -> None:
        if self.sandboxes:
            self.tell(SandboxGone(self.picked(pick).lease.lease, "killed"))

    # What must hold between events.

    @invariant()
    def nothing_is_open_outside_consent(self) -> None:
        if self.lender.next_deadline() is None or self.lender.next_deadline() > self.now:  # type: ignore[operator]  # checked on the left
            for sandbox in self.sandboxes.values():
                stands = sandbox.open or sandbox.saving or sandbox.kept_at is not None
                assert not stands or self.allows(sandbox.grant)

    @invariant()
    def idle_sandboxes_stand_under_plain_lending_alone(self) -> None:
        deadline = self.lender.next_deadline()
        if deadline is not None and deadline <= self.now:
            return  # the shell is about to say that time has passed
        kept = [one for one in self.sandboxes.values() if one.kept_at is not None]
        assert len(kept) <= SLOTS
        for one in kept:
            assert one.kept_at is not None
            assert self.now < one.kept_at + KEEP_S
            assert self.connected
            assert not self.asleep
            assert not self.busy
            assert not self.word.holds(self.now)
            assert self.drain_deadline is None
            assert self.lets_run(one.grant)
            assert self.lender.status(self.now).phase == "lending"

    @invariant()
    def nothing_that_was_asked_to_end_takes_longer_than_its_grace(self) -> None:
        deadline = self.lender.next_deadline()
        if deadline is None or deadline > self.now:
            for one in self.sandboxes.values():
                assert not one.open or one.asked_at is None or self.now < one.asked_at + GRACE_S

    @invariant()
    def the_last_owner_word_wins(self) -> None:
        opened = [one for one in self.sandboxes.values() if one.open]
        if self.lender.next_deadline() is not None and self.lender.next_deadline() <= self.now:  # type: ignore[operator]  # checked on the left
            return  # the shell is about to say that time has passed
        status = self.lender.status(self.now)
        if self.stopped_by_word() or self.busy:
            assert all(one.frozen for one in opened)
        elif status.verdict.rung == Rung.FULL:
            assert not any(
                one.frozen for one in opened if self.lets_run(one.grant) and one.stopped_at is None
            )
        for sandbox in opened:
            assert sandbox.frozen or self.lets_run(sandbox.grant)

    @rule()
    def look_for_as_long_as_frozen_work_is_kept(self) -> None:
        """Every second, as the shell does; what others stopped is not kept either."""
        for _ in range(int(HANDBACK_S) + 1):
            self.look()
            self.wait(1.0)
        for sandbox in self.sandboxes.values():
            assert not sandbox.open or sandbox.stopped_at is None

    @invariant()
    def no_more_cores_are_lent_than_there_are_slots(self) -> None:
        assert self.cpu_open() <= SLOTS

    @invariant()
    def every_attempt_that_ended_has_one_receipt(self) -> None:
        for sandbox in self.sandboxes.values():
            assert sandbox.receipts == (not sandbox.open and not sandbox.saving)

    @invariant()
    def the_lender_exits_once(self) -> None:
        assert self.exits <= 1

    def teardown(self) -> None:
        """Shut down: whatever came before, every delivery ends, and nothing stays open."""
        self.now += PULL_EXPIRES_S
        self.drain_deadline = self.now + 1.0
        self.tell(DrainRequested(self.drain_deadline))
        self.now = self.drain_deadline
        self.tell(TimeAdvanced())
        assert self.exits == 1
        assert not any(one.open for one in self.sandboxes.values())
        for lease, told in list(self.told.items()):
            for number in told.unanswered:
                self.tell(ReportAnswered(lease, number, True, ""))
        assert not self.deliveries, "a delivery that was neither acked nor returned"


ModelShell.TestCase.settings = settings(
    max_examples=250, stateful_step_count=50, deadline=None, print_blob=True
)
test_any_sequence_keeps_the_promises = ModelShell.TestCase
