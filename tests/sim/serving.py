"""One term of a broker: reads the streams along, and carries the effects out once it leads."""

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, assert_never

from sim.committing import Committer
from sim.feeding import Feeder
from sim.intake import Intake
from sim.jetstream import Message, Record, Stored
from sim.network import Fault
from sim.world import EPOCH

from broker.core import effects
from broker.core.broker import Broker
from broker.core.effects import Effect
from broker.core.events import (
    CancelReplayed,
    ClockJumped,
    DoneReported,
    Event,
    HearingLost,
    HearingRestored,
    JobReplayed,
    LeaseReplayed,
    LedgerRead,
    OfferReceived,
    QueryReceived,
    ReplayCompleted,
    ResultReplayed,
    TimePassed,
    WorkSeen,
)
from lender.protocol import streams, subjects
from lender.protocol.codec import encode

if TYPE_CHECKING:
    from sim.broker_shell import BrokerShell

STALL_S = 1.0
JUMP_S = 1.0
IDLE_S = 5.0
CONFIRM_S = 0.05
READ_AGAIN_S = 5.0
PAUSE_S = 0.2
FOLLOW_S = 1.0
FILE_S = 1.0
LOOK_S = 30.0
LOOK_PAGE = 20


class Watch:
    """What a broker's service tells whoever checks it."""

    def started(self, service: "Service") -> None:
        """It has replayed the streams."""

    def heard(self, service: "Service", event: Event) -> None:
        """An event is about to be handled."""

    def decided(self, service: "Service", event: Event, decided: Sequence[Effect]) -> None:
        """It was handled; its effects are about to be carried out."""

    def waits(self, service: "Service", lane: str) -> None:
        """Something that a submitter asks waits at the end of a lane."""

    def served(self, service: "Service", lane: str) -> None:
        """What came first in a lane is about to be handled."""


class Service:
    """Stands by from `begin` on and serves from `lead` on, until `end`.

    What is on its way when it ends means nothing to it.
    """

    core: Broker
    committer: Committer
    feeder: Feeder

    def __init__(self, shell: "BrokerShell", term: str) -> None:
        self.world = shell.world
        self.line = shell.line
        self.server = shell.server
        self.shell = shell
        self.name = shell.name
        self.ended = False
        self.serving = False
        self.leads = False
        """Whether it has been told to lead."""
        self._fenced = False
        self._rests = False
        """Whether it waits for its next look at the streams."""
        self._put_off: list[Message] = []
        """Of submitters that had their most when it was read along."""
        self._fence = Record(subjects.term(term), b"")
        self._ahead_s = shell.wall_ahead_s
        self._timer_at = self._wake_at = inf
        self._last_result = 0
        self.intake = Intake(self)
        self._held: list[Event] = []
        self._waits = False

    def begin(self) -> None:
        """Stand by: know what the leader knows."""
        chance = self.world.rng(f"{self.name}/checks").random
        self.core = Broker(self.shell.new_lease_id, pools=self.shell.pools, chance=chance)
        self._allow()
        self._read_results()

    def lead(self) -> None:
        """Read the streams to their ends, then serve."""
        self.leads = True
        self._allow()
        self._look_again()

    def _allow(self) -> None:
        self._allowed = self.shell.allowed
        self.core.handle(self.now(), self._allowed)

    def end(self) -> None:
        """Decide nothing any more."""
        self.ended = True
        self.shell.server.unsubscribe_kinds(self.line, _LISTENS)

    def after(self, delay_s: float, call: Callable[..., None], *args: object) -> None:
        """Have something happen in this term."""

        def unless_ended() -> None:
            if not self.ended:
                call(*args)

        self.shell.after(delay_s, unless_ended)

    def call(
        self,
        kind: str,
        op: Callable[[], object],
        done: Callable[[object], None],
        timeout_s: float = 5.0,
    ) -> None:
        """Have the server do something; what it answers after this term is lost."""

        def unless_ended(answer: object) -> None:
            if not self.ended:
                done(answer)

        self.line.call(kind, op, unless_ended, timeout_s)

    def fenced(self) -> None:
        """Somebody else has committed: what is known here is out of date."""
        self.world.stats["brokers fenced"] += 1
        self.shell.service_ended()

    # its clock: wall time that notices its own jumps

    def now(self) -> float:
        """Return the core's time."""
        return EPOCH + self.world.now + self._ahead_s

    def went_on(self) -> None:
        """The process stood still: lenders may have spoken meanwhile."""
        late_s = self.world.now - self._wake_at
        if self.serving and self.line.connected and late_s > STALL_S:
            self.handle(HearingRestored())

    # the replay

    def _read(
        self, stream: str, last: Callable[[], int], take: Callable[[list[Message]], None]
    ) -> None:
        """Read a stream from where we are to its end; again until it is there."""

        def done(answer: object) -> None:
            if isinstance(answer, list):
                take(answer)
            else:
                self.after(PAUSE_S, self._read, stream, last, take)

        held = self.server.js.streams[stream]
        self.call("replay", lambda: held.page(last() + 1, held.last_sequence + 1), done)

    def _look_again(self) -> None:
        if self._rests:
            self._rests = False
            self._read_results()

    def _read_results(self) -> None:
        self._read(streams.RESULTS, lambda: self._last_result, self._replay_results)

    def _read_ledger(self) -> None:
        self._read(streams.JOBS, lambda: self.intake.position, self._replay_jobs)

    def _replay_results(self, messages: list[Message]) -> None:
        for one in messages:
            self._last_result = one.sequence
            self._fenced = self._fenced or one.subject == self._fence.subject
            if not one.subject.startswith(subjects.TERM_PREFIX):
                self.core.handle(self.now(), ResultReplayed(one.subject, one.headers))
        if self._fenced:
            self._read(streams.WORK, lambda: 0, self._replay_work)
        elif self.leads:
            self._put_fence()
        else:
            self._tell_again()
            self._read_ledger()

    def _put_fence(self) -> None:
        expected = self._last_result

        def done(answer: object) -> None:
            if isinstance(answer, Stored):
                self._last_result, self._fenced = answer.sequence, True
                self._read(streams.WORK, lambda: 0, self._replay_work)
            elif isinstance(answer, Fault):
                self.after(PAUSE_S, self._put_fence)
            else:  # others' records, or our own fence, whose answer was lost
                self._read_results()

        fence = [self._fence]
        self.call("commit", lambda: self.server.store(streams.RESULTS, fence, expected), done)

    def _replay_jobs(self, messages: list[Message]) -> None:
        for one in messages:
            put_off = self._tell_of_job(one)
            if put_off and not self._fenced:
                self._put_off.append(one)
            self.world.stats["submissions put off"] += put_off
            self.intake.replayed(one, put_off=put_off and self._fenced)
        if self._fenced:
            self._serve()
            return
        self.core.handle(self.now(), LedgerRead())
        self._rest()

    def _tell_of_job(self, message: Message) -> bool:
        """Tell of a message of JOBS; returns whether it is put off."""
        replayed = (
            CancelReplayed(message.subject)
            if message.subject.startswith("cancel.")
            else JobReplayed(message.subject, message.headers, message.payload)
        )
        return bool(self.core.handle(self.now(), replayed))

    def _tell_again(self) -> None:
        """Tell of what was put off: by now it may have begun, or ended, or there is room."""
        self._put_off = [one for one in self._put_off if self._tell_of_job(one)]

    def _rest(self) -> None:
        """Look at the streams again after a while."""
        self._rests = True
        if self.leads:
            self._look_again()
        else:
            self.after(FOLLOW_S, self._look_again)

    def _replay_work(self, messages: list[Message]) -> None:
        for one in messages:
            leased = LeaseReplayed(one.sequence, one.headers, one.payload)
            self.core.handle(self.now(), leased)
        self._tell_again()
        for message in self._put_off:
            self.intake.put_off(message)
        self._read_ledger()

    def _serve(self) -> None:
        self.committer = Committer(self, self._last_result)
        self.feeder = Feeder(self)
        listeners = (self._on_offer, self._on_done, self._on_query)
        for subject, listener in zip(_LISTENS, listeners, strict=True):
            self.server.subscribe(self.line, subject, listener)
        self.serving = True
        self.world.note(self.name, "serves")
        self.shell.watch.started(self)
        self._do(ReplayCompleted())
        self._read_jobs()
        self._look_at_file()
        self.after(LOOK_S, self._look_through_work, 1)

    # what comes in

    def on_state(self, up: bool) -> None:  # noqa: FBT001 - a callback
        """The line broke or is back."""
        if self.serving:
            self.handle(HearingRestored() if up else HearingLost())
            self.feeder.on_state(up)

    def hint_jobs(self) -> None:
        """The ledger has more."""
        if self.serving and not self.ended:
            self.intake.read()

    def _on_offer(self, subject: str, payload: bytes, _reply_to: str) -> None:
        self.handle(OfferReceived(subjects.last_token(subject), payload))

    def _on_done(self, subject: str, payload: bytes, reply_to: str) -> None:
        self.handle(DoneReported(subjects.last_token(subject), payload, reply_to))

    def _on_query(self, subject: str, payload: bytes, reply_to: str) -> None:
        self.handle(QueryReceived(subjects.last_token(subject), {}, payload, reply_to))

    def _read_jobs(self) -> None:
        """Read the ledger on, whether or not anything was heard of it."""
        self.intake.read()
        self.after(READ_AGAIN_S, self._read_jobs)

    def _look_at_file(self) -> None:
        """Take up what the operator allows, where that has changed."""
        if self.shell.allowed is not self._allowed:
            self._allowed = self.shell.allowed
            self.handle(self._allowed)
        self.after(FILE_S, self._look_at_file)

    def _look_through_work(self, sequence: int) -> None:
        def done(page: object) -> None:
            if isinstance(page, list) and page:
                self.handle(WorkSeen(tuple((one.sequence, one.payload) for one in page)))
            more = isinstance(page, list) and len(page) == LOOK_PAGE
            self.after(LOOK_S, self._look_through_work, page[-1].sequence + 1 if more else 1)

        work = self.server.js.streams[streams.WORK]
        self.call("look", lambda: work.page(sequence, LOOK_PAGE), done)

    # the core

    def handle(self, event: Event) -> None:
        """Have the core take up an event; while another broker may lead, it waits."""
        if self.ended:
            return
        if self._waits or not self.shell.may_serve():
            self._held.append(event)
            if not self._waits:
                self._waits = True
                self.after(CONFIRM_S, self._go_on)
            return
        self._follow_clock()
        self._do(event)

    def _go_on(self) -> None:
        if not self.shell.may_serve():
            self.after(CONFIRM_S, self._go_on)
            return
        self._waits = False
        held, self._held = self._held, []
        for event in (HearingRestored(), *held):
            self.handle(event)

    def _follow_clock(self) -> None:
        by_s = self.shell.wall_ahead_s - self._ahead_s
        if abs(by_s) >= JUMP_S:
            self._ahead_s = self.shell.wall_ahead_s
            self._do(ClockJumped(by_s))

    def _do(self, event: Event) -> None:
        self.world.note(self.name, type(event).__name__)
        self.shell.watch.heard(self, event)
        decided = self.core.handle(self.now(), event)
        self.shell.watch.decided(self, event, decided)
        for effect in decided:
            self._carry_out(effect)
        self._arm()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case effects.Commit():
                self.committer.add(effect)
            case effects.FeedWork():
                self.world.note(self.name, f"feeds {effect.lease_id}")
                self.feeder.feed(effect)
            case effects.DeleteWork():
                self.feeder.delete(effect)
            case effects.Reply():
                payload = encode(effect.message, effect.content_type)
                self.line.publish(effect.reply_to, payload)
            case effects.PublishEvent():
                self.line.publish(effect.subject, effect.payload)
            case effects.SendControl():
                leases = " ".join(effect.control.leases)
                self.world.note(self.name, f"says {effect.control.kind} {leases}")
                self.line.publish(subjects.control(effect.lender), encode(effect.control))
            case effects.Warn():
                self.world.note(self.name, f"warns: {effect.text}")
            case _:
                assert_never(effect)

    def _arm(self) -> None:
        deadline = self.core.next_deadline()
        in_s = inf if deadline is None else max(0.0, deadline - self.now())
        self._wake_at = self.world.now + min(IDLE_S, in_s)
        if self.world.now + in_s < self._timer_at:
            self._timer_at = self.world.now + in_s
            self.after(in_s, self._on_timer, self._timer_at)

    def _on_timer(self, at: float) -> None:
        if at != self._timer_at:
            return
        self._timer_at = inf
        deadline = self.core.next_deadline()
        if deadline is not None and deadline <= self.now() + 1e-9:
            self.handle(TimePassed())
        else:
            self._arm()


_LISTENS = (subjects.OFFER_FILTER, subjects.DONE_FILTER, subjects.QUERY_FILTER)
