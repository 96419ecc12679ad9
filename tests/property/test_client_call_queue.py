"""The executor's queue: no call is lost, sent twice, or kept waiting while there is room."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lender.client.executor import call_queue
from lender.client.executor.call_queue import (
    BatchAccepted,
    CallDropped,
    CallEnded,
    CallQueue,
    CallsMade,
    CancelBatch,
    Closed,
    DropCalls,
    Event,
    Finish,
    Remind,
    Reminded,
    SendBatch,
)

_IN_FLIGHT_MAX = 4


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = CallQueue(_IN_FLIGHT_MAX)
        self.made = 0
        self.waiting: set[int] = set()
        self.sending: tuple[int, set[int]] | None = None
        self.took_s: float | None = None
        self.running: dict[int, set[int]] = {}
        self.unwanted: set[int] = set()
        self.cancelled: set[int] = set()
        self.closed = self.finished = self.reminding = False

    def happen(self, event: Event) -> None:
        for effect in self.queue.handle(event):
            assert not self.finished
            match effect:
                case SendBatch(batch, calls):
                    assert 0 < len(calls) <= 3  # by their sizes
                    assert self.waiting.issuperset(calls)
                    assert self.sending is None
                    self.waiting.difference_update(calls)
                    self.sending = batch, set(calls)
                case CancelBatch(batch):
                    assert batch not in self.cancelled
                    assert self.unwanted.issuperset(self.running[batch])
                    self.cancelled.add(batch)
                case DropCalls(calls):
                    self.waiting.difference_update(calls)
                    self.unwanted.update(calls)
                case Remind():
                    assert not self.reminding
                    self.reminding = True
                case Finish():
                    self.finished = True

    @property
    def in_flight(self) -> list[int]:
        sent = [*self.running.values(), *([self.sending[1]] if self.sending else [])]
        return sorted(call for calls in sent for call in calls)

    @precondition(lambda self: not self.closed)
    @rule(count=st.integers(1, 6))
    def make(self, count: int) -> None:
        calls = range(self.made, self.made + count)
        self.made += count
        self.waiting.update(calls)
        self.happen(CallsMade(dict.fromkeys(calls, call_queue.BATCH_BYTES_MAX // 3)))

    @precondition(lambda self: self.sending)
    @rule()
    def accept(self) -> None:
        assert self.sending is not None
        batch, calls = self.sending
        self.running[batch] = calls
        self.sending = None
        self.happen(BatchAccepted(batch))

    @precondition(lambda self: self.sending)
    @rule()
    def refuse(self) -> None:
        assert self.sending is not None
        calls, self.sending = self.sending[1], None
        for call in sorted(calls):
            # What is left of it still counts until its last call has ended.
            calls.discard(call)
            self.happen(CallEnded(call))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), took_s=st.sampled_from([0.0, 1.0, 10.0]))
    def end(self, data: st.DataObject, took_s: float) -> None:
        batch = data.draw(st.sampled_from(sorted(self.running)))
        call = data.draw(st.sampled_from(sorted(self.running[batch])))
        self.running[batch].discard(call)
        if not self.running[batch]:
            del self.running[batch]
        self.took_s = took_s if self.took_s is None else self.took_s * 7 / 8 + took_s / 8
        self.happen(CallEnded(call, took_s))

    @precondition(lambda self: self.reminding)
    @rule()
    def remind(self) -> None:
        self.reminding = False
        before = self.sending, len(self.in_flight), bool(self.waiting)
        self.happen(Reminded())
        assert self.sending or before[1] == _IN_FLIGHT_MAX or not before[2]

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from([*self.in_flight, *sorted(self.waiting), 0]))
        self.unwanted.add(call)
        self.happen(CallDropped(call))

    @precondition(lambda self: self.made > 2 * _IN_FLIGHT_MAX)
    @rule(drop=st.sampled_from(["nothing", "waiting", "all"]))
    def close(self, drop: str) -> None:
        self.closed = True
        if drop == "all":
            self.unwanted.update(self.in_flight)
        self.happen(Closed(drop))  # type: ignore[arg-type] # one of them

    @invariant()
    def room_is_used_and_not_exceeded(self) -> None:
        assert len(self.in_flight) <= _IN_FLIGHT_MAX
        room = _IN_FLIGHT_MAX - len(self.in_flight)
        if self.sending is None and room and self.waiting:
            # More wait than can go, and most of what may be in flight is.
            assert self.reminding
            assert room < len(self.waiting)
            assert room < _IN_FLIGHT_MAX / 2
            assert room * (self.took_s or 0) < 2

    @invariant()
    def what_nobody_wants_is_cancelled(self) -> None:
        for batch, calls in self.running.items():
            assert (batch in self.cancelled) == self.unwanted.issuperset(calls)

    @invariant()
    def it_finishes_when_all_has_ended(self) -> None:
        assert self.finished == (self.closed and not self.waiting and not self.in_flight)


TestCallQueue = QueueMachine.TestCase
TestCallQueue.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(("took_s", "batches_max"), [(0.0, 25), (0.001, 25), (0.1, 70), (5.0, 950)])
def test_short_calls_go_together_and_long_ones_at_once(took_s: float, batches_max: int) -> None:
    queue = CallQueue(in_flight_max=100)
    batches: list[tuple[int, ...]] = []
    in_flight: list[int] = []

    def happen(event: Event) -> None:
        for effect in queue.handle(event):
            if isinstance(effect, SendBatch):
                batches.append(effect.calls)
                in_flight.extend(effect.calls)
                happen(BatchAccepted(effect.batch))

    happen(CallsMade(dict.fromkeys(range(1000), 1)))
    while in_flight:
        happen(CallEnded(in_flight.pop(0), took_s))
    assert sorted(call for calls in batches for call in calls) == list(range(1000))
    assert batches_max / 3 < len(batches) <= batches_max


@pytest.mark.parametrize(("took_s", "most"), [(0.0, 100), (0.001, 100), (0.1, 50), (5.0, 10)])
def test_more_calls_are_in_flight_where_they_are_short(took_s: float, most: int) -> None:
    queue = CallQueue(10, 100)
    in_flight: list[int] = []
    seen = 0

    def happen(event: Event) -> None:
        for effect in queue.handle(event):
            if isinstance(effect, SendBatch):
                in_flight.extend(effect.calls)
                happen(BatchAccepted(effect.batch))

    happen(CallsMade(dict.fromkeys(range(1000), 1)))
    assert len(in_flight) == 10, "nobody knows yet"
    while in_flight:
        happen(CallEnded(in_flight.pop(0), took_s))
        seen = max(seen, len(in_flight))
    assert seen == most
