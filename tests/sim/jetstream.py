"""A model of JetStream: as much of streams and shared pull consumers as the product uses.

Pure: time comes in, and what the server sends by itself comes out of `advance`. It is held against
a real nats-server by tests/contract/test_sim_jetstream.py.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Any, NamedTuple

WRONG_LAST_SEQUENCE = 10071
SUBJECT_TAKEN = 10077

_NS = 1e9


class Record(NamedTuple):
    """A message to be stored."""

    subject: str
    payload: bytes
    headers: Mapping[str, str] = {}


class Message(NamedTuple):
    """A message of a stream."""

    sequence: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]


class Stored(NamedTuple):
    """The answer to what was stored: the sequence of the last record."""

    sequence: int


class Refused(NamedTuple):
    """The answer to what was not: nothing of it is stored."""

    err_code: int


class Delivered(NamedTuple):
    """A message for a pull; `count` says how often the server thinks that it was delivered."""

    pull: Hashable
    consumer: str
    count: int
    message: Message


class PullExpired(NamedTuple):
    """The time of a pull went by."""

    pull: Hashable


Sent = Delivered | PullExpired


class Stream:
    """Messages in order; one per subject where it is configured so."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.name = str(config["name"])
        self.last_sequence = 0
        self.messages: dict[int, Message] = {}
        self._one_per_subject = (
            config.get("max_msgs_per_subject") == 1
            and config.get("discard") == "new"
            and config.get("discard_new_per_subject") is True
        )
        self._newest_per_subject = (
            config.get("max_msgs_per_subject") == 1 and config.get("discard") == "old"
        )
        self._in_memory = config.get("storage") == "memory"
        self._by_subject: dict[str, dict[int, None]] = {}

    def publish(
        self,
        records: Sequence[Record],
        expected_last: int | None = None,
        expected_on_subject: int | None = None,
    ) -> Stored | Refused:
        """Store all records or none; several are an atomic batch."""
        if expected_last is not None and expected_last != self.last_sequence:
            return Refused(WRONG_LAST_SEQUENCE)
        if expected_on_subject is not None:
            (record,) = records
            last = self.get_last(record.subject)
            if expected_on_subject != (0 if last is None else last.sequence):
                return Refused(WRONG_LAST_SEQUENCE)
        if self._one_per_subject:
            subjects = {record.subject for record in records}
            if len(subjects) < len(records) or not subjects.isdisjoint(self._by_subject):
                return Refused(SUBJECT_TAKEN)
        for record in records:
            if self._newest_per_subject:
                for sequence in self.on(record.subject):
                    self.delete(sequence)
            self.last_sequence += 1
            message = Message(self.last_sequence, record.subject, record.payload, record.headers)
            self.messages[self.last_sequence] = message
            self._by_subject.setdefault(record.subject, {})[self.last_sequence] = None
        return Stored(self.last_sequence)

    def delete(self, sequence: int) -> bool:
        """Remove one message; False when it was gone already."""
        message = self.messages.pop(sequence, None)
        if message is None:
            return False
        same = self._by_subject[message.subject]
        del same[sequence]
        if not same:
            del self._by_subject[message.subject]
        return True

    def get_last(self, subject: str) -> Message | None:
        """Return the last message on a subject."""
        same = self._by_subject.get(subject)
        return self.messages[next(reversed(same))] if same else None

    def page(self, sequence: int, count: int) -> list[Message]:
        """Return up to `count` messages from `sequence` on."""
        found: list[Message] = []
        if sequence > self.last_sequence:
            return found
        for number, message in self.messages.items():
            if number >= sequence:
                found.append(message)
                if len(found) == count:
                    break
        return found

    def on(self, subject: str) -> list[int]:
        """Return the sequences on a subject."""
        return list(self._by_subject.get(subject, ()))

    def restart(self) -> None:
        """Come back after a crash of the server."""
        if self._in_memory:
            self.last_sequence = 0
            self.messages.clear()
            self._by_subject.clear()


@dataclass(slots=True)
class _Pending:
    """A message that somebody has and did not acknowledge; no deadline: it waits for a pull."""

    count: int
    deadline: float


@dataclass(slots=True)
class _Pull:
    left: int
    expires_at: float


@dataclass(eq=False)
class _Consumer:
    name: str
    subject: str
    ack_wait_s: float
    fresh: dict[int, None] = field(default_factory=dict)
    again: dict[int, None] = field(default_factory=dict)
    pending: dict[int, _Pending] = field(default_factory=dict)
    pulls: dict[Hashable, _Pull] = field(default_factory=dict)

    def forget(self, sequence: int) -> None:
        self.fresh.pop(sequence, None)
        self.again.pop(sequence, None)
        self.pending.pop(sequence, None)

    def due(self, now: float) -> Hashable | None:
        """Take the pull whose turn it is."""
        for name, pull in list(self.pulls.items()):
            del self.pulls[name]
            if pull.expires_at <= now:
                continue
            pull.left -= 1
            if pull.left:
                self.pulls[name] = pull  # the others come first now
            return name
        return None


class JetStream:
    """Streams, and the consumers of one work queue."""

    def __init__(self, configs: Iterable[Mapping[str, Any]], queue: str) -> None:
        self.streams = {str(config["name"]): Stream(config) for config in configs}
        self.queue = self.streams[queue]
        self.consumers: dict[str, _Consumer] = {}
        self._by_subject: dict[str, _Consumer] = {}
        self._stirred: dict[_Consumer, None] = {}
        self._timers: list[tuple[float, int, _Consumer, Hashable, bool]] = []
        self._numbers = 0

    # what clients ask for

    def publish(
        self,
        stream: str,
        records: Sequence[Record],
        expected_last: int | None = None,
        expected_on_subject: int | None = None,
    ) -> Stored | Refused:
        """Store all records or none."""
        answer = self.streams[stream].publish(records, expected_last, expected_on_subject)
        if isinstance(answer, Stored) and stream == self.queue.name:
            first = answer.sequence - len(records) + 1
            for sequence, record in enumerate(records, first):
                consumer = self._by_subject.get(record.subject)
                if consumer is not None:
                    consumer.fresh[sequence] = None
                    self._stirred[consumer] = None
        return answer

    def delete(self, stream: str, sequence: int) -> bool:
        """Remove one message, and with it what a consumer knows of it."""
        message = self.streams[stream].messages.get(sequence)
        if message is not None and stream == self.queue.name:
            consumer = self._by_subject.get(message.subject)
            if consumer is not None:
                consumer.forget(sequence)
        return self.streams[stream].delete(sequence)

    def ensure_consumer(self, config: Mapping[str, Any]) -> None:
        """Make a shared durable pull consumer; one that is there stays."""
        name, subject = str(config["durable_name"]), str(config["filter_subject"])
        if name in self.consumers:
            return
        consumer = _Consumer(name, subject, config["ack_wait"] / _NS)
        consumer.fresh.update(dict.fromkeys(self.queue.on(subject)))
        self.consumers[name] = self._by_subject[subject] = consumer

    def pull(self, now: float, consumer: str, pull: Hashable, batch: int, expires_s: float) -> bool:
        """Wait for up to `batch` messages; False: there is no such consumer."""
        found = self.consumers.get(consumer)
        if found is None:
            return False
        found.pulls[pull] = _Pull(batch, now + expires_s)
        self._arm(now + expires_s, found, pull, is_pull=True)
        self._stirred[found] = None
        return True

    def end_pull(self, consumer: str, pull: Hashable) -> None:
        """Nobody listens for it any more."""
        self.consumers[consumer].pulls.pop(pull, None)

    def ack(self, consumer: str, sequence: int) -> None:
        """Remove a delivered message; one that nobody is known to have stays."""
        found = self.consumers[consumer]
        if sequence in found.pending:
            found.forget(sequence)
            self.queue.delete(sequence)

    def nak(self, now: float, consumer: str, sequence: int, delay_s: float) -> None:
        """Deliver it again, at once or later."""
        found = self.consumers[consumer]
        pending = found.pending.get(sequence)
        if pending is None:
            return
        if delay_s > 0:
            found.again.pop(sequence, None)
            self._wait(found, sequence, pending, now + delay_s)
        else:
            self._deliver_again(found, sequence, pending)

    def in_progress(self, now: float, consumer: str, sequence: int) -> None:
        """Begin its ack wait anew."""
        found = self.consumers[consumer]
        pending = found.pending.get(sequence)
        if pending is not None and sequence not in found.again:
            self._wait(found, sequence, pending, now + found.ack_wait_s)

    # what the server does by itself

    def next_deadline(self) -> float:
        """Return when `advance` has something to do at the latest; infinity for never."""
        return self._timers[0][0] if self._timers else inf

    def advance(self, now: float) -> list[Sent]:
        """Do what is due by `now`, and return what goes out to the clients."""
        sent: list[Sent] = []
        while self._timers and self._timers[0][0] <= now:
            at, _, consumer, name, is_pull = heappop(self._timers)
            if is_pull:
                pull = consumer.pulls.get(name)
                if pull is not None and pull.expires_at <= at:
                    del consumer.pulls[name]
                    sent.append(PullExpired(name))
                continue
            assert isinstance(name, int)
            pending = consumer.pending.get(name)
            if pending is not None and pending.deadline == at:
                self._deliver_again(consumer, name, pending)
        for consumer in self._stirred:
            sent += self._serve(now, consumer)
        self._stirred.clear()
        return sent

    def restart(self, forgets: Callable[[int], bool]) -> None:
        """Come back after a crash: streams on disk are whole, pulls are gone.

        A server that was killed may have forgotten that it had delivered a message: `forgets`
        tells which.
        """
        for stream in self.streams.values():
            stream.restart()
        for consumer in self.consumers.values():
            consumer.pulls.clear()
            for sequence in list(consumer.pending):
                if forgets(sequence):
                    consumer.forget(sequence)
                    consumer.fresh[sequence] = None
            consumer.fresh = dict.fromkeys(sorted(consumer.fresh))

    def _serve(self, now: float, consumer: _Consumer) -> Iterable[Delivered]:
        while consumer.again or consumer.fresh:
            pull = consumer.due(now)
            if pull is None:
                return
            source = consumer.again or consumer.fresh
            sequence = next(iter(source))
            del source[sequence]
            pending = consumer.pending.setdefault(sequence, _Pending(0, inf))
            pending.count += 1
            self._wait(consumer, sequence, pending, now + consumer.ack_wait_s)
            message = self.queue.messages[sequence]
            yield Delivered(pull, consumer.name, pending.count, message)

    def _wait(self, consumer: _Consumer, sequence: int, pending: _Pending, until: float) -> None:
        pending.deadline = until
        self._arm(until, consumer, sequence, is_pull=False)

    def _deliver_again(self, consumer: _Consumer, sequence: int, pending: _Pending) -> None:
        pending.deadline = inf
        consumer.again[sequence] = None
        self._stirred[consumer] = None

    def _arm(self, at: float, consumer: _Consumer, name: Hashable, *, is_pull: bool) -> None:
        self._numbers += 1
        heappush(self._timers, (at, self._numbers, consumer, name, is_pull))
