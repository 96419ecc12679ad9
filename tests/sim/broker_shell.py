"""The broker's process: stands by, leads, and serves while it leads, as `broker.service` does.

All that it knows is lost when it dies; the streams are what it starts from.
"""

from collections.abc import Callable
from math import inf

from sim.jetstream import WRONG_LAST_SEQUENCE, Message, Record, Refused, Stored
from sim.network import Fault
from sim.server import Server
from sim.serving import Service, Watch
from sim.world import Actor, World

from broker.core.events import SubmittersChanged
from broker.core.leadership import (
    KeyRead,
    KeyRefused,
    KeyStored,
    KeyUnanswered,
    Lead,
    Leadership,
    LeadershipEffect,
    LeadershipEvent,
    ReadKey,
    ServiceEnded,
    StandBy,
    TimePassed,
    WriteKey,
)
from lender.protocol import subjects
from lender.protocol.streams import LEADER

KEY_TIMEOUT_S = 1.0
PING_S = 0.5
RESTART_S = (0.5, 2.0)
"""systemd starts it again."""


class BrokerShell(Actor):
    """One lender-broker, over all its lives."""

    def __init__(
        self,
        world: World,
        server: Server,
        name: str,
        allowed: SubmittersChanged,
        pools: frozenset[str] | None,
        new_lease_id: Callable[[], str],
        watch: Watch,
    ) -> None:
        super().__init__(world, name)
        self.server = server
        self.allowed = allowed
        """What the operator's file says."""
        self.pools = pools
        self.new_lease_id = new_lease_id
        self.watch = watch
        self.alive = False
        self.wanted = False
        """Whether it is started again when it ends."""
        self.wall_ahead_s = 0.0
        self.service: Service | None = None
        self._services = 0
        self._rng = world.rng(name)
        self.line = server.line(self, self._on_state)

    # its life

    def start(self) -> None:
        """Begin a new life, unless one is under way."""
        self.wanted = True
        if self.alive:
            return
        self.alive = True
        self.suspended = False
        self._joined = False
        self._me = f"{self.name}-{self.life}"
        self.leadership = Leadership(self._me)
        self._timer_at = inf
        self.line.open()

    def stop(self) -> None:
        """End for good."""
        self.wanted = False
        self.crash()

    def crash(self) -> None:
        """End, and be started again if it is wanted."""
        self.world.note(self.name, "ends")
        self._end_service()
        self.die()
        self.line.close()
        self.server.unsubscribe(self.line)
        pause_s = self._rng.uniform(*RESTART_S)
        self.world.at(self.world.now + pause_s, self.world.fate, self._start_again)

    def _start_again(self) -> None:
        if self.wanted:
            self.start()

    def resume(self) -> None:
        """Go on after a stall."""
        was_suspended = self.suspended
        super().resume()
        if was_suspended and self.service is not None:
            self.service.went_on()

    # its leadership

    def may_serve(self) -> bool:
        """Tell whether it leads, as far as it can know."""
        return self.leadership.may_serve(self.world.now)

    def service_ended(self) -> None:
        """The service found that somebody else leads."""
        self._end_service()
        self._take_up(ServiceEnded())

    def _on_state(self, up: bool) -> None:  # noqa: FBT001 - a callback
        if up and not self._joined:
            self._joined = True
            ping = subjects.broker_ping(self._me)
            self.server.subscribe(self.line, ping, self._on_ping)
            self._begin_service()
            self._take_up(TimePassed())
        elif self.service is not None:
            self.service.on_state(up)

    def _on_ping(self, _subject: str, _payload: bytes, reply_to: str) -> None:
        self.line.publish(reply_to, b"")

    def _take_up(self, event: LeadershipEvent) -> None:
        self.world.note(self.name, type(event).__name__)
        for effect in self.leadership.handle(self.world.now, event):
            self._carry_out(effect)
        deadline = self.leadership.next_deadline()
        if deadline < self._timer_at:
            self._timer_at = max(deadline, self.world.now)
            self.world.at(self._timer_at, self, self._on_timer, self._timer_at)

    def _on_timer(self, at: float) -> None:
        if at == self._timer_at:
            self._timer_at = inf
            self._take_up(TimePassed())

    def _carry_out(self, effect: LeadershipEffect) -> None:
        match effect:
            case ReadKey():
                self._read_key()
            case WriteKey():
                self._write_key(effect.expected_sequence)
            case Lead():
                assert self.service is not None, "there is one from the first word to the server on"
                self.world.stats["terms"] += 1
                self.world.note(self.name, "leads")
                self.service.lead()
            case StandBy():
                self.world.stats["stood by"] += 1
                self._end_service()
                self._begin_service()

    def _begin_service(self) -> None:
        self._services += 1
        self.service = Service(self, f"{self._me}-{self._services}")
        self.service.begin()

    def _end_service(self) -> None:
        if self.service is not None:
            self.service.end()
            self.service = None

    def _read_key(self) -> None:
        def take(stored: object) -> None:
            if isinstance(stored, Fault):
                self._take_up(KeyUnanswered())
            elif not isinstance(stored, Message):
                self._take_up(KeyRead(0, None))
            elif stored.payload.decode() == self._me:
                self._take_up(KeyRead(stored.sequence, self._me))
            else:
                self._ping(stored.sequence, stored.payload.decode())

        stream = self.server.js.streams[LEADER]
        self.line.call("key", lambda: stream.get_last(subjects.LEADERSHIP_KEY), take, KEY_TIMEOUT_S)

    def _ping(self, sequence: int, holder: str) -> None:
        def take(answer: object) -> None:
            gone = answer is Fault.NO_RESPONDERS
            self._take_up(KeyRead(sequence, holder, gone))

        self.line.request(subjects.broker_ping(holder), b"", take, PING_S)

    def _write_key(self, expected: int) -> None:
        record = Record(subjects.LEADERSHIP_KEY, self._me.encode())

        def take(answer: object) -> None:
            match answer:
                case Stored(sequence):
                    self._take_up(KeyStored(sequence))
                case Refused(code) if code == WRONG_LAST_SEQUENCE:
                    self._take_up(KeyRefused())
                case _:
                    self._take_up(KeyUnanswered())

        self.line.call(
            "key",
            lambda: self.server.store(LEADER, [record], None, expected),
            take,
            KEY_TIMEOUT_S,
        )
