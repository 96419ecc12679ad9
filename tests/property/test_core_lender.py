"""Whatever owners, machines, brokers and sandboxes do, in any order: the lender's promises hold.

`lender_model` carries out every effect, checks it against what it knows to be allowed, and feeds
outcomes back at any time, in any order of leases, late, twice, or never.
"""

from core_world import (
    CALM,
    GIB,
    MACHINE,
    START,
    class_of,
    make_config,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from lender_model.owner import durations_s
from lender_model.shell import HANDBACK_S, SLOTS
from lender_model.work import BrokerAndSandboxes

from lender.core.budget import Usage
from lender.core.events import (
    BrokerConnected,
    CapabilitiesFound,
    ClassesOpened,
    DrainRequested,
    IntentLoaded,
    ReportAnswered,
    TimeAdvanced,
    UsageRecalled,
)
from lender.core.kept_sandboxes import KEEP_S
from lender.core.lender import Lender
from lender.core.policy import Rung
from lender.core.pulling import PULL_EXPIRES_S
from lender.core.restraint import GRACE_S


class AnySequence(BrokerAndSandboxes):
    @initialize(duration_s=durations_s)
    def start(self, duration_s: float) -> None:
        self.tell(CapabilitiesFound(MACHINE))
        self.tell(CALM)
        self.connected = True
        self.tell(BrokerConnected())
        self.grant("alice", duration_s)
        self.resume()
        self.tell(ClassesOpened((class_of(),)))

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

    @rule()
    def look_for_as_long_as_frozen_work_is_kept(self) -> None:
        """Every second, as the shell does; what others stopped is not kept either."""
        for _ in range(int(HANDBACK_S) + 1):
            self.look()
            self.wait(1.0)
        for sandbox in self.sandboxes.values():
            assert not sandbox.open or sandbox.stopped_at is None

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


AnySequence.TestCase.settings = settings(max_examples=250, stateful_step_count=50, print_blob=True)
test_any_sequence_keeps_the_promises = AnySequence.TestCase
