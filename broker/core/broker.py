"""The broker's decisions: events in, effects out; no I/O, no clock, no randomness of its own."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import assert_never

from broker.core.answers import queries
from broker.core.copies import stragglers as copies
from broker.core.durable.replay import Replay
from broker.core.effects import DeleteWork, Effect, PutOff
from broker.core.events import (
    CancelReplayed,
    CancelRequested,
    ClockJumped,
    Committed,
    DoneReported,
    Event,
    FeedFailed,
    HearingLost,
    HearingRestored,
    JobReplayed,
    JobSubmitted,
    LeaseFed,
    LeaseReplayed,
    LedgerRead,
    LendersBounded,
    OfferReceived,
    QueryReceived,
    ReplayCompleted,
    ResultReplayed,
    SubmittersChanged,
    TimePassed,
    WorkSeen,
)
from broker.core.figures import Figures
from broker.core.gangs import gathering
from broker.core.gangs import turns as gang_turns
from broker.core.jobs import following, lifecycle, queue_time, task_cancel
from broker.core.jobs.job import JobKey
from broker.core.leasing import feed, leftovers, presence, reports
from broker.core.leasing.holding import set_back
from broker.core.state import Due, State
from lender.protocol.lease import LEASE_TTL_S

FEED_UNKNOWN = "the work queue did not answer"


class Broker:
    """Admits jobs, leases their tasks to lenders, and decides what is committed.

    Starts in replay: `ResultReplayed` for all of RESULTS, `LeaseReplayed` for WORK, `JobReplayed`
    and `CancelReplayed` for JOBS, then `ReplayCompleted`. No effect leaves before that. One that
    stands by is told of RESULTS and JOBS as they grow, and of `LedgerRead` now and then.
    """

    def __init__(
        self,
        new_lease_id: Callable[[], str],
        submitters: frozenset[str] = frozenset(),
        weights: Mapping[str, float] = MappingProxyType({}),
        pools: frozenset[str] | None = None,
        chance: Callable[[], float] = lambda: 0.0,
        figures: Figures | None = None,
    ) -> None:
        """Start with nothing known.

        Args:
            new_lease_id: returns an unguessable id of 22 base64url characters on each call.
            submitters: public keys that may submit.
            weights: what each of them is entitled to beside the others: greater than 0, 1 for
                those that are not named.
            pools: whose jobs are taken; None for all of them.
            chance: decides on spot checks: returns a number from 0 up to, and without, 1, equally
                likely, on each call. Without it everything is checked that may be.
            figures: where it counts what it decides.
        """
        figures = Figures() if figures is None else figures
        self.state = State(new_lease_id, submitters, weights, pools, chance, figures)
        self._replay: Replay | None = Replay(self.state)

    def handle(self, now: float, event: Event) -> list[Effect]:
        """Take up one event, and what has fallen due by `now` (seconds since the epoch).

        Raises:
            RuntimeError: an event that can't be at this point, such as an offer in the replay.
        """
        if self._replay is not None:
            return self._handle_replay(now, self._replay, event)
        if not isinstance(event, ClockJumped):
            self.state.shares.advance(now)
        self._dispatch(now, event)
        return self._settle(now)

    def next_deadline(self) -> float | None:
        """Return when `handle(now, TimePassed())` is wanted at the latest; None for never."""
        first = self.state.due.first()
        return first[0] if first is not None else None

    def _handle_replay(self, now: float, replay: Replay, event: Event) -> list[Effect]:
        match event:
            case JobReplayed():
                if not replay.job(event):
                    return [PutOff()]
            case ResultReplayed():
                replay.result(event)
            case CancelReplayed():
                replay.cancelled(event)
            case LeaseReplayed():
                replay.lease(event)
            case LedgerRead():
                replay.caught_up()
            case ReplayCompleted():
                self.state.shares.advance(now)
                replay.complete(now)
                self._replay = None
                return self._settle(now)
            case SubmittersChanged() | LendersBounded():
                self._obey(now, event)
            case _:
                raise RuntimeError(f"{type(event).__name__} before the replay is complete")
        return []

    def _dispatch(self, now: float, event: Event) -> None:
        """Take up what came from outside."""
        state = self.state
        match event:
            case JobSubmitted():
                lifecycle.submit(state, now, event.subject, event.headers, event.payload)
            case CancelRequested():
                task_cancel.cancel(state, now, event.subject)
            case OfferReceived():
                presence.hear_offer(state, now, event.lender, event.payload)
            case DoneReported():
                reports.hear_report(state, now, event)
            case QueryReceived():
                queries.answer(state, now, event)
            case _:
                self._note(now, event)

    def _note(self, now: float, event: Event) -> None:
        """Take up what the service has to tell."""
        match event:
            case Committed():
                self.state.outbox.committed(event.token)
                self.state.dependencies.committed(event.token)
            case LeaseFed():
                self._note_fed(now, event)
            case FeedFailed():
                self._feed_failed(now, event)
            case WorkSeen():
                leftovers.look(self.state, event.messages)
            case SubmittersChanged() | LendersBounded():
                self._obey(now, event)
            case ClockJumped():
                self._shift_clock(now, event.by_s)
            case HearingLost():
                self.state.deaf = True
            case HearingRestored():
                presence.restore_hearing(self.state, now)
            case TimePassed():
                pass
            case _:
                raise RuntimeError(f"{type(event).__name__} after the replay is complete")

    def _obey(self, now: float, event: SubmittersChanged | LendersBounded) -> None:
        """Take up what the operator has said of people."""
        if isinstance(event, SubmittersChanged):
            self.state.allow(event.submitters, event.weights, event.quotas)
        else:
            presence.bind(self.state, now, event.bounds)

    def _settle(self, now: float) -> list[Effect]:
        due = self.state.due
        while (first := due.first()) is not None and first[0] <= now:
            due.drop(first[1])
            if not self._is_put_off(now, first[1]):
                self._fall_due(now, first[1])
        following.follow(self.state, now)
        gathering.settle(self.state, now)
        copies.make_way(self.state)
        feed.feed(self.state, now)
        gang_turns.look(self.state, now)
        return self.state.outbox.drain()

    def _is_put_off(self, now: float, due: Due) -> bool:
        """What is about lenders waits until they can be heard."""
        kinds = ("queue", "lender", "lease", "left", "gather", "copies")
        deaf = self.state.deaf and due.kind in kinds
        if deaf:
            self.state.due.set(due, now + LEASE_TTL_S)
        return deaf

    def _fall_due(self, now: float, due: Due) -> None:
        match due.kind:
            case "job":
                lifecycle.expire(self.state, now, JobKey(*due.name))
            case "queue":
                lifecycle.expire_queued(self.state, now, JobKey(*due.name))
            case "rest":
                job = self.state.jobs[JobKey(*due.name)]
                job.wake(now)
                self.state.enqueue(job)
            case "follow" | "gangs":
                pass  # that is done after each event
            case "look":
                feed.look_on(self.state)
            case "lender" | "lease" | "left":
                presence.fall_due(self.state, now, due)
            case "gather":
                gathering.give_up(self.state, now, self.state.jobs[JobKey(*due.name)])
            case "copies":
                copies.look(self.state, now)
            case _:
                assert_never(due.kind)

    def _note_fed(self, now: float, event: LeaseFed) -> None:
        lease = self.state.leases.get(event.lease)
        if lease is not None:
            lease.sequence = event.sequence
            presence.tell_fed(self.state, now, lease)
        elif not self.state.leases.was_finished(event.lease):
            self.state.outbox.emit(DeleteWork(event.sequence))  # given up in the meantime

    def _feed_failed(self, now: float, event: FeedFailed) -> None:
        lease = self.state.leases.get(event.lease)
        if lease is None or lease.holder is not None:
            return  # given up in the meantime, or stored after all
        set_back(self.state, now, lease, f"{FEED_UNKNOWN}: {event.reason}", lender=None)
        self.state.forget_lease(lease, finished_at=None)

    def _shift_clock(self, now: float, by_s: float) -> None:
        """Waiting goes on as if the clock had not jumped; only dates are kept by the new time.

        Those are a job's `not_before` and `not_after`.
        """
        state = self.state
        for due, at in state.due.items():
            if due.kind in ("look", "lender", "lease", "left", "gather", "gangs", "copies"):
                state.due.set(due, at + by_s)
            elif due.kind == "queue":
                queue_time.shift(state, now, due, at, by_s)
        state.gangs.shift(by_s)
        state.fleet.shift(by_s)
        state.stands.shift(by_s)
        state.leases.shift(by_s)
        state.shares.shift(by_s)
        state.shares.advance(now)
        for job in state.jobs:
            job.shift(by_s)
            state.wait_for(job)
