"""The broker's core, and what lies between it and the fleet: NATS without delay or loss.

What the core is told and what it tells are the bytes of the wire; its processor time is measured.
"""

import json
import time
from collections import deque
from collections.abc import Mapping
from itertools import count
from math import inf
from typing import TYPE_CHECKING

import msgpack
from sim.world import EPOCH, World

from bench.fleet.measures import Measures, Reported
from bench.fleet.queues import Queues
from bench.fleet.work import Job, Submitter
from broker.core.broker import Broker
from broker.core.durable.records import SUMMARY_HEADER
from broker.core.effects import (
    Commit,
    DeleteWork,
    Effect,
    FeedWork,
    Record,
    Reply,
    SendControl,
    Warn,
)
from broker.core.events import (
    Committed,
    DoneReported,
    Event,
    JobSubmitted,
    LeaseFed,
    OfferReceived,
    ReplayCompleted,
    TimePassed,
)
from broker.core.leasing.holding import watch
from lender.protocol.lease import DoneReply

if TYPE_CHECKING:
    from bench.fleet.lender import Lender

_ID_CHARS = 22

_TIMED_ONE_IN = 7
"""Events whose time is taken: to ask for it costs some 4 µs, twice. Of each kind so many, and of
those that only say what time it is each: few of them take most of their time."""


class Exchange:
    """Carries events to the core and effects from it."""

    def __init__(
        self,
        world: World,
        submitters: list[Submitter],
        jobs: Mapping[tuple[str, str], Job],
        measures: Measures,
    ) -> None:
        ids = count()
        self.world = world
        self.jobs = jobs
        self.measures = measures
        self.queues = Queues()
        self.lenders: dict[str, Lender] = {}
        self.core = Broker(
            lambda: f"{next(ids):0{_ID_CHARS}d}",
            frozenset(one.key for one in submitters),
            {one.key: one.kind.weight for one in submitters},
        )
        self._events: deque[Event] = deque()
        self._fed: deque[str] = deque()
        self._reported: dict[str, Reported] = {}
        self._timer_at = inf
        self._tell(ReplayCompleted())

    # what comes in

    def submit(self, job: Job) -> None:
        """Have the ledger accept a job."""
        self._tell(JobSubmitted(*job.submission(EPOCH)))

    def offer(self, lender: "Lender", payload: bytes) -> None:
        """Pass an offer on."""
        self._tell(OfferReceived(lender.name, payload))
        self._keep_hearing(lender)

    def report(self, lender: "Lender", lease: str, payload: bytes, reported: Reported) -> None:
        """Pass a lease's final report on."""
        self._reported[lease] = reported
        self._tell(DoneReported(lender.name, payload, lease))
        self._keep_hearing(lender)

    # Heartbeats that say nothing new are left out: ten thousand lenders would send 2 to 20 thousand
    # a second. In their place a lender counts as heard until it falls silent; then the core is
    # given the time of what would have been its last heartbeat, and finds out by its own rules.

    def _keep_hearing(self, lender: "Lender") -> None:
        known = self.core.state.fleet.get(lender.name)
        if known is not None:
            known.heard_at = inf

    def silence(self, lender: "Lender", last_s: float) -> None:
        """A lender has fallen silent; its last heartbeat was at `last_s`."""
        state = self.core.state
        known = state.fleet.get(lender.name)
        if known is not None:
            known.heard_at = EPOCH + last_s
            watch(state, EPOCH + self.world.now, lender.name)
            self._arm()

    # the core

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        while True:
            while self._events:
                self._handle(self._events.popleft())
            if not self._fed:
                break
            token = self._fed.popleft()
            while (found := self.queues.deliver(token)) is not None:
                lender, queued = found
                lender.take(queued)
                lender.seek()
        self._arm()

    def _handle(self, event: Event) -> None:
        now_s, measures = self.world.now, self.measures
        kind = type(event)
        measures.events[kind.__name__] += 1
        apart = 1 if kind is TimePassed else _TIMED_ONE_IN
        if measures.events[kind.__name__] % apart:
            effects = self.core.handle(EPOCH + now_s, event)
        else:
            began = time.process_time()
            effects = self.core.handle(EPOCH + now_s, event)
            took_s = time.process_time() - began
            measures.core_s[measures.bin_of(now_s)] += apart * took_s
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case FeedWork():
                self._feed(effect)
            case Commit():
                for record in effect.records:
                    self._count_end(record)
                self._events.append(Committed(effect.token))
            case Reply():
                self._answer(effect)
            case DeleteWork():
                self.queues.delete(effect.sequence)
            case SendControl() if effect.control.kind == "cancel":
                lender = self.lenders[effect.lender]
                self.world.at(self.world.now, lender, lender.cancel, effect.control.leases)
            case Warn():
                raise AssertionError(effect.text)
            case _:
                pass  # events for submitters; and what lenders are told whose pulls are open anyway

    def _feed(self, effect: FeedWork) -> None:
        lease = msgpack.unpackb(effect.payload, use_list=False)
        need = self.core.state.leases[effect.lease_id].need
        sequence = self.queues.put(effect.class_token, lease, need.cores, need.memory_bytes)
        self.measures.leases[self.measures.bin_of(self.world.now)] += 1
        self._events.append(LeaseFed(effect.lease_id, sequence))
        self._fed.append(effect.class_token)

    def _answer(self, effect: Reply) -> None:
        reported = self._reported.pop(effect.reply_to)
        assert isinstance(effect.message, DoneReply)
        now_s, measures = self.world.now, self.measures
        if effect.message.verdict == "committed":
            measures.tasks_done[reported.submitter] += reported.succeeded
            measures.useful_slot_s[reported.submitter] += reported.succeeded * reported.slot_s
        else:
            assert effect.message.verdict == "stale", effect.message.reason
            measures.waste(now_s, "too late", reported.succeeded * reported.slot_s)

    def _count_end(self, record: Record) -> None:
        _, submitter, job, *task = record.subject.split(".")
        if not task:
            state = json.loads(record.headers[SUMMARY_HEADER])["s"]
            self.measures.jobs_ended[state] += 1
            self.world.note(submitter, f"{job} {state}")

    def _arm(self) -> None:
        deadline = self.core.next_deadline()
        if deadline is not None and deadline < self._timer_at:
            self._timer_at = deadline
            self.world.at(deadline - EPOCH, self.world.fate, self._on_timer, deadline)

    def _on_timer(self, at: float) -> None:
        if at == self._timer_at:
            self._timer_at = inf
            self._tell(TimePassed())
