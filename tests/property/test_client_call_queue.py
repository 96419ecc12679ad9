"""The executor's queue: no call is lost, sent twice, or kept waiting while there is room."""

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
        self.running: dict[int, set[int]] = {}
        self.unwanted: set[int] = set()
        self.cancelled: set[int] = set()
        self.closed = self.finished = False

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
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(sorted(self.running)))
        call = data.draw(st.sampled_from(sorted(self.running[batch])))
        self.running[batch].discard(call)
        if not self.running[batch]:
            del self.running[batch]
        self.happen(CallEnded(call))

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
        if self.sending is None and len(self.in_flight) < _IN_FLIGHT_MAX:
            assert not self.waiting

    @invariant()
    def what_nobody_wants_is_cancelled(self) -> None:
        for batch, calls in self.running.items():
            assert (batch in self.cancelled) == self.unwanted.issuperset(calls)

    @invariant()
    def it_finishes_when_all_has_ended(self) -> None:
        assert self.finished == (self.closed and not self.waiting and not self.in_flight)


TestCallQueue = QueueMachine.TestCase
TestCallQueue.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
