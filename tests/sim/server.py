"""The NATS server: passes messages on, and does what clients ask of JetStream."""

from collections.abc import Callable
from math import inf
from typing import Any

from sim.jetstream import JetStream, Record, Refused, Stored
from sim.network import Fault, Line, Weather
from sim.world import Actor, World

from lender.protocol import streams

OnMessage = Callable[[str, bytes, str], None]
"""Takes subject, payload and where an answer goes."""

OnStored = Callable[[str, list[Record], int], None]
"""Takes the stream, what it has stored, and the sequence of the last of it."""

_FORGETS = 0.3


class Server(Actor):
    """One nats-server. Its streams are durable; what it knows of clients is not."""

    def __init__(self, world: World, on_stored: OnStored) -> None:
        super().__init__(world, "nats")
        self.weather = Weather()
        self.js = JetStream((*streams.stream_configs(), streams.leader_config()), streams.WORK)
        self._on_stored = on_stored
        self._lines: dict[str, Line] = {}
        self._subscribed: dict[str, list[tuple[Line, OnMessage]]] = {}
        self._pulls: dict[str, dict[tuple[str, int], Callable[[object], None]]] = {}
        self._rng = world.rng("nats")
        self._timer_at = inf

    def line(self, actor: Actor, on_state: Callable[[bool], None]) -> Line:
        """Return a new line for a client."""
        line = Line(self.world, self.weather, self, self, actor, on_state)
        self._lines[actor.name] = line
        return line

    # what happens to it

    def crash(self) -> None:
        """Be killed."""
        self.die()
        self._timer_at = inf
        for line in self._lines.values():
            line.lose()

    def restart(self) -> None:
        """Come back on the same store."""
        self.alive = True
        self.js.restart(lambda _sequence: self._rng.random() < _FORGETS)
        self._flush()

    # for lines

    def forget(self, line: Line) -> None:
        """End the pulls of a line that broke."""
        for consumer, _ in self._pulls.pop(line.actor.name, {}):
            for pull in [one for one in self.js.consumers[consumer].pulls if _of(one, line)]:
                self.js.end_pull(consumer, pull)

    def perform(self, op: Callable[[], object]) -> object:
        """Do what a client asked for, and send what follows from it."""
        answer = op()
        self._flush()
        return answer

    def subscribe(self, line: Line, subject: str, on_message: OnMessage) -> None:
        """Pass on to a client what comes on a subject, or on `kind.*`."""
        self._subscribed.setdefault(subject, []).append((line, on_message))

    def unsubscribe(self, line: Line) -> None:
        """The client has ended."""
        for subject, subscribed in self._subscribed.items():
            self._subscribed[subject] = [one for one in subscribed if one[0] is not line]

    def unsubscribe_kinds(self, line: Line, subjects: tuple[str, ...]) -> None:
        """The client listens on these no more."""
        for subject in subjects:
            subscribed = self._subscribed.get(subject, [])
            self._subscribed[subject] = [one for one in subscribed if one[0] is not line]

    def publish(self, line: Line, subject: str, payload: bytes, reply_to: str) -> None:
        """Pass a message on to whoever listens, or answer that nobody does."""
        kind, _, rest = subject.partition(".")
        if kind == "_INBOX":
            name, _, token = rest.rpartition(".")
            self._lines[name].answer(int(token), payload)
            return
        listeners = [*self._subscribed.get(subject, ()), *self._subscribed.get(f"{kind}.*", ())]
        listeners = [one for one in listeners if one[0].connected]
        if not listeners and reply_to:
            line.answer(int(reply_to.rpartition(".")[2]), Fault.NO_RESPONDERS)
        twice = self.weather.twice and self._rng.random() < self.weather.twice
        for listener, on_message in listeners:
            for _ in range(2 if twice else 1):
                listener.down(kind, on_message, subject, payload, reply_to)

    # JetStream

    def store(
        self,
        stream: str,
        records: list[Record],
        expected_last: int | None = None,
        expected_on_subject: int | None = None,
    ) -> Stored | Refused:
        """Store all records or none."""
        answer = self.js.publish(stream, records, expected_last, expected_on_subject)
        if isinstance(answer, Stored):
            self._on_stored(stream, records, answer.sequence)
        return answer

    def pull(
        self,
        line: Line,
        consumer: str,
        number: int,
        batch: int,
        expires_s: float,
        on_sent: Callable[[object], None],
    ) -> None:
        """Wait for messages; the client hears Delivered, PullExpired, or that nobody is there."""
        pull = (line.actor.name, line.number, number, consumer)
        if self.js.pull(self.world.now, consumer, pull, batch, expires_s):
            self._pulls.setdefault(line.actor.name, {})[consumer, number] = on_sent
            self._flush()
        else:
            line.down("pull", on_sent, Fault.NO_RESPONDERS)

    def say(self, word: Callable[..., None], *args: Any) -> None:  # noqa: ANN401 - its arguments
        """Take a word about a delivery: ack, nak, in progress."""
        word(*args)
        self._flush()

    def _flush(self) -> None:
        sent = self.js.advance(self.world.now)
        for one in sent:
            name, number, pull, consumer = one.pull
            line = self._lines[name]
            if line.number == number:
                line.down("pull", self._pulls[name][consumer, pull], one)
        for one in sent:
            name, number, pull, consumer = one.pull
            if one.pull not in self.js.consumers[consumer].pulls:
                self._pulls.get(name, {}).pop((consumer, pull), None)
        self._arm()

    def _arm(self) -> None:
        deadline = self.js.next_deadline()
        if deadline < self._timer_at:
            self._timer_at = deadline
            self.world.at(deadline, self, self._on_timer)

    def _on_timer(self) -> None:
        self._timer_at = inf
        self._flush()


def _of(pull: object, line: Line) -> bool:
    return isinstance(pull, tuple) and pull[0] == line.actor.name
