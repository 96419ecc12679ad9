"""Lines between the parts and the NATS server: late, cut, silent, and now and then lossy."""

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from sim.world import Actor, World

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 4.0
NOTICED_S = (10.0, 15.0)
"""After how long a line that is silent counts as broken, by the client's pings."""

_USUAL_S = 0.002
_NOW_AND_THEN_S = 0.06
_NOW_AND_THEN = 0.98


class Fault(Enum):
    """Why a call has no answer."""

    NOT_CONNECTED = "not connected: nothing has happened"
    NO_RESPONDERS = "nobody listens: nothing has happened"
    UNKNOWN = "no answer came"


Done = Callable[[Any], None]
"""Takes the answer of a call, or the Fault."""


class ServerSide(Protocol):
    """What a line needs of the server."""

    alive: bool

    def forget(self, line: "Line") -> None:
        """Drop what was waiting for a line that broke."""

    def publish(self, line: "Line", subject: str, payload: bytes, reply_to: str) -> None:
        """Pass a message on."""

    def perform(self, op: Callable[[], object]) -> object:
        """Do what a client asked for."""


class Weather:
    """What holds for every line for a while."""

    def __init__(self) -> None:
        self.loss = 0.0
        """Share of the messages that get lost: a slow consumer, a server that drops."""
        self.twice = 0.0
        """Share of the messages outside of streams that come twice."""
        self.slow_s = 0.0
        """Up to so much is added to each delay."""


class Line:
    """One client's connection to the server.

    Messages of one kind stay in their order, those of different kinds don't. What was sent over a
    connection that broke is lost, in both directions. A line that is silent keeps everything
    until it is heard again, or until the silence was noticed.
    """

    def __init__(
        self,
        world: World,
        weather: Weather,
        server: Actor,
        side: ServerSide,
        actor: Actor,
        on_state: Callable[[bool], None],
    ) -> None:
        self.world = world
        self.actor = actor
        self.connected = False
        self.number = 0
        self._weather = weather
        self._server = server
        self._side = side
        self._on_state = on_state
        self._rng = world.rng(f"line/{actor.name}")
        self._cuts = 0
        self._held: list[Callable[[], None]] | None = None
        self._waiting: dict[int, Done] = {}
        self._tokens = 0
        self._trying = 0
        self._last: dict[tuple[str, str], float] = {}

    # the client's side

    def open(self) -> None:
        """Connect, and from then on come back by itself."""
        self._waiting.clear()
        self._trying += 1
        self._try(self._trying, 0)

    def close(self) -> None:
        """The client's process has ended."""
        self._trying += 1
        self._waiting.clear()
        if self.connected:
            self._drop()

    def publish(self, subject: str, payload: bytes, reply_to: str = "") -> bool:
        """Hand a message to the server; False when there is none on the line."""
        kind = subject.partition(".")[0]
        return self.up(kind, self._side.publish, self, subject, payload, reply_to)

    def request(self, subject: str, payload: bytes, done: Done, timeout_s: float) -> None:
        """Publish, and have `done` take the one answer."""
        token = self._await(done, timeout_s)
        if token is not None:
            self.publish(subject, payload, f"_INBOX.{self.actor.name}.{token}")

    def call(self, kind: str, op: Callable[[], object], done: Done, timeout_s: float = 5.0) -> None:
        """Have the server do something, and `done` take what it answers."""
        token = self._await(done, timeout_s)
        if token is not None:
            self.up(kind, self._serve, token, op)

    def up(self, kind: str, call: Callable[..., object], *args: object) -> bool:
        """Send to the server; False when there is none on the line."""
        if self.connected:
            self._send("up", self._server, kind, call, args)
        return self.connected

    # the server's side

    def down(self, kind: str, call: Callable[..., object], *args: object) -> None:
        """Send to the client, if it is on the line."""
        if self.connected:
            self._send("down", self.actor, kind, call, args)

    def answer(self, token: int, answer: object) -> None:
        """Answer a request."""
        self.down("answer", self._settle, token, answer)

    # what happens to it

    def lose(self) -> None:
        """Break: the client learns of it as soon as it can."""
        if self.connected:
            self._drop()
            waiting, self._waiting = self._waiting, {}
            self.actor.after(0.0, self._notice, self._trying, waiting)

    def cut(self, for_s: float) -> None:
        """Break, with no server to be reached for a while."""
        self._cuts += 1
        self.world.at(self.world.now + for_s, self.world.fate, self._mend)
        self.lose()

    def silence(self, for_s: float) -> None:
        """Let nothing through for a while; nobody is told, unless it lasts."""
        if self._held is not None or not self.connected:
            return
        self._held = []
        noticed_s = self._rng.uniform(*NOTICED_S)
        if noticed_s < for_s:
            self.world.at(self.world.now + noticed_s, self.world.fate, self._noticed, self.number)
            self._cuts += 1
            self.world.at(self.world.now + for_s, self.world.fate, self._mend)
        else:
            self.world.at(self.world.now + for_s, self.world.fate, self._heard, self.number)

    def _noticed(self, number: int) -> None:
        if number == self.number:
            self.lose()

    def _heard(self, number: int) -> None:
        if number == self.number and self._held is not None:
            held, self._held = self._held, None
            for send in held:
                send()

    def _mend(self) -> None:
        self._cuts -= 1

    def _drop(self) -> None:
        self.connected = False
        self.number += 1
        self._held = None
        self._side.forget(self)

    def _notice(self, trying: int, waiting: dict[int, Done]) -> None:
        for done in waiting.values():
            done(Fault.UNKNOWN)
        self._on_state(False)
        self._try(trying, 0)

    def _try(self, trying: int, tries: int) -> None:
        if trying != self._trying or self.connected:
            return
        if self._server.alive and not self._cuts:
            self.number += 1
            self.connected = True
            self._last.clear()
            self._on_state(True)
            return
        longest_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(tries, 10))
        self.actor.after(0.001 + self._rng.uniform(0, longest_s), self._try, trying, tries + 1)

    def _await(self, done: Done, timeout_s: float) -> int | None:
        if not self.connected:
            self.actor.after(0.0, done, Fault.NOT_CONNECTED)
            return None
        self._tokens += 1
        self._waiting[self._tokens] = done
        self.actor.after(timeout_s, self._settle, self._tokens, Fault.UNKNOWN)
        return self._tokens

    def _serve(self, token: int, op: Callable[[], object]) -> None:
        self.answer(token, self._side.perform(op))

    def _settle(self, token: int, answer: object) -> None:
        done = self._waiting.pop(token, None)
        if done is not None:
            done(answer)

    def _send(
        self,
        way: str,
        to: Actor,
        kind: str,
        call: Callable[..., object],
        args: tuple[object, ...],
    ) -> None:
        if self._held is not None:
            self._held.append(lambda: self._send(way, to, kind, call, args))
            return
        chance, weather = self._rng.random(), self._weather
        if weather.loss and self._rng.random() < weather.loss:
            self.world.stats["messages lost"] += 1
            return
        delay_s = _USUAL_S * (0.1 + chance * chance)
        if chance > _NOW_AND_THEN:
            delay_s += _NOW_AND_THEN_S * self._rng.random()
        if weather.slow_s:
            delay_s += weather.slow_s * self._rng.random()
        at = max(self.world.now + delay_s, self._last.get((way, kind), 0.0))
        self._last[way, kind] = at
        self.world.at(at, to, self._arrive, self.number, call, args)

    def _arrive(self, number: int, call: Callable[..., object], args: tuple[object, ...]) -> None:
        if number == self.number:
            call(*args)
