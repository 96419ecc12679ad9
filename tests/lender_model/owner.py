"""What owners do and machines go through: words, grants, load, sleep, time."""

from core_world import (
    ALICE,
    BOB,
    BUSY,
    CALM,
    GIB,
    make_grant,
)
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from lender.core.budget import parse_budget
from lender.core.consent import Consent, Intent
from lender.core.events import (
    ConsentLoaded,
    DrainRequested,
    IntentLoaded,
    MachineSampled,
    SleepAnnounced,
    StandstillSeen,
    TimeAdvanced,
    UsageMetered,
    WallClockRead,
    WokenUp,
)
from lender.core.schedule import ALWAYS, When, parse_when
from lender.core.signals import Presence, Signals
from lender_model.shell import ModelShell, Sandbox

SIGNERS = {"alice": ALICE, "bob": BOB}

picks = st.integers(0, 5)
durations_s = st.sampled_from([0.5, 2.0, 9.0, 40.0, 500.0])
names = st.sampled_from(sorted(SIGNERS))
whens = st.sampled_from([ALWAYS, ALWAYS, parse_when("idle"), parse_when("away")])
budgets = st.sampled_from(["", "", "0.005cpuh/week"])


class OwnerAndMachine(ModelShell):
    # The owner.

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
