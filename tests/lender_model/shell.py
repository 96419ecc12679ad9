"""Carries out every effect of the core, and holds it against what is allowed at that moment."""

from collections import Counter
from dataclasses import dataclass, field

from core_world import (
    START,
    make_config,
)
from hypothesis.stateful import RuleBasedStateMachine

from lender.core import effects
from lender.core.consent import Grant, Intent
from lender.core.events import Event
from lender.core.lender import Lender
from lender.protocol.codec import decode
from lender.protocol.job import JobSpec
from lender.protocol.lease import Lease

SLOTS = 3
HANDBACK_S = 10.0


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

    def carry_out(self, effect: effects.Effect) -> None:
        match effect:
            case effects.OpenSandbox(lease=lease, spec=spec, grant=grant, reuse=reuse):
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
            case effects.RunTasks(lease=lease_, tasks=tasks):
                sandbox = self.sandboxes[lease_]
                assert not self.stopped_by_word()
                assert sandbox.open
                assert sandbox.prepared
                assert not sandbox.running
                assert not sandbox.frozen or sandbox.stopped_at is not None
                assert self.allows(sandbox.grant)
                assert list(tasks) == sandbox.lease.tasks()
                sandbox.running = True
            case effects.FreezeSandbox(lease=lease_):
                assert self.sandboxes[lease_].open
                self.sandboxes[lease_].frozen = True
                self.sandboxes[lease_].stopped_at = None
            case effects.ThawSandbox(lease=lease_):
                assert not self.stopped_by_word()
                assert self.lets_run(self.sandboxes[lease_].grant)
                assert self.sandboxes[lease_].open
                assert self.sandboxes[lease_].frozen
                assert self.sandboxes[lease_].stopped_at is None, "not without a word"
                self.sandboxes[lease_].frozen = False
            case effects.WriteReceipt(lease=lease_):
                self.sandboxes[lease_].receipts += 1
                assert not self.sandboxes[lease_].open
            case _:
                self.carry_out_at_the_end(effect)

    def take_over(self, kept: Sandbox, lease: Lease, grant: str) -> None:
        """Consent and submitter are the same, and the job, or whatever its tasks could see."""
        assert kept.kept_at is not None, "of what stands idle alone"
        assert kept.grant.id == grant
        assert kept.lease.submitter == lease.submitter
        if kept.lease.spec != lease.spec:
            old, new = (decode(JobSpec, one.spec, one.content_type) for one in (kept.lease, lease))
            of_its_own = {"id", "name", "array", "retries", "priority", "created_at", "not_after"}
            assert old.model_dump(exclude=of_its_own) == new.model_dump(exclude=of_its_own)
            assert old.runtime != "python"
        assert not lease.checkpoints
        kept.kept_at = None

    def carry_out_at_the_end(self, effect: effects.Effect) -> None:
        match effect:
            case effects.TerminateSandbox(lease=lease_):
                sandbox = self.sandboxes[lease_]
                assert sandbox.open
                assert sandbox.running
                assert not sandbox.frozen or sandbox.stopped_at is not None
                assert sandbox.checkpoint
                assert sandbox.asked_at is None, "asked twice"
                sandbox.asked_at = self.now
            case effects.KeepSandbox(lease=lease_):
                sandbox = self.sandboxes[lease_]
                assert sandbox.open
                assert not sandbox.frozen or sandbox.stopped_at is not None
                assert sandbox.asked_at is None
                sandbox.open, sandbox.kept_at = False, self.now
            case effects.CloseSandbox(lease=lease_, save=save):
                sandbox = self.sandboxes[lease_]
                assert sandbox.open or sandbox.kept_at is not None, "closed twice"
                sandbox.open, sandbox.kept_at = False, None
                if save:
                    assert sandbox.checkpoint
                    assert sandbox.running
                    assert self.allows(sandbox.grant)
                    sandbox.saving = True
            case effects.AbandonCheckpoint(lease=lease_):
                assert self.sandboxes[lease_].saving
                self.sandboxes[lease_].saving = False
            case _:
                self.carry_out_on_the_wire(effect)

    def carry_out_on_the_wire(self, effect: effects.Effect) -> None:
        match effect:
            case effects.SendReport():
                self.report(effect)
            case (
                effects.AckLease(delivery=delivery)
                | effects.ReturnLease(delivery=delivery)
                | effects.ForgetDelivery(delivery=delivery)
            ):
                assert delivery in self.deliveries, "ended twice"
                del self.deliveries[delivery]
            case effects.ExtendLease(delivery=delivery):
                assert delivery in self.deliveries
            case effects.PullWork(work_class=work_class, batch=batch):
                assert not self.word.holds(self.now)
                assert not self.asleep
                assert self.connected
                assert work_class not in self.pulls
                assert 0 < batch <= SLOTS - self.cpu_open()
                self.pulls.add(work_class)
            case effects.SendOffer(offer=offer):
                assert self.connected
                if self.stopped_by_word():
                    assert (offer.phase, offer.slots_free) == ("paused", 0)
                if self.word.holds(self.now) or self.asleep:
                    assert offer.slots_free == 0
                if not any(self.allows(grant) for grant in self.grants.values()):
                    assert (offer.slots_free, offer.classes) == (0, ())
            case _:
                self.carry_out_on_the_machine(effect)

    def report(self, effect: effects.SendReport) -> None:
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

    def carry_out_on_the_machine(self, effect: effects.Effect) -> None:
        match effect:
            case effects.PurgeSubmitter(submitter=submitter):
                theirs = [
                    one for one in self.sandboxes.values() if one.grant.submitter == submitter
                ]
                assert not any(one.open for one in theirs), "purged under running work"
                assert not any(one.saving or one.kept_at is not None for one in theirs)
            case effects.KeepJobDone(done=done):
                assert 0 <= done.taken <= done.run
            case effects.LetSleep():
                assert self.asleep
            case effects.Exit():
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

    def picked(self, pick: int) -> Sandbox:
        return self.sandboxes[sorted(self.sandboxes)[pick % len(self.sandboxes)]]
