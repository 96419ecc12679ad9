"""Which of several brokers serves: one holds the leadership key, the others stand by.

The key is one message that the server replaces by compare-and-set; its sequence is the fencing
token. Nobody's clock is compared with another's: each broker measures by its own how long the
key that it saw has stood unchanged (docs/decisions/0015-leadership.md).

```
standing by -> leading -> standing by
```
"""

from dataclasses import dataclass
from math import inf

RENEW_S = 1.0
"""How often the leader writes the key, and the others read it."""

TERM_S = 3.0
"""A leader whose last renewal was sent this long ago serves no more."""

RETRY_S = 0.2
"""After no answer at all."""

TAKEOVER_S = 4.5
"""A key that has not changed for so long is that of a leader that is gone."""


@dataclass(frozen=True, slots=True)
class KeyRead:
    """What the key says: its sequence, 0 where there is none, and whose it is, None for nobody's.

    `gone`: the holder's process is known to have left.
    """

    sequence: int
    holder: str | None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class KeyStored:
    """Our write was taken; the key has this sequence."""

    sequence: int


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """Somebody else has written the key since we read it."""


@dataclass(frozen=True, slots=True)
class KeyUnanswered:
    """What we asked for may have happened, or not."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing else happened."""


@dataclass(frozen=True, slots=True)
class ServiceEnded:
    """Our service found that somebody else leads."""


LeadershipEvent = KeyRead | KeyStored | KeyRefused | KeyUnanswered | TimePassed | ServiceEnded


@dataclass(frozen=True, slots=True)
class ReadKey:
    """Read the key, then tell `KeyRead` or `KeyUnanswered`."""


@dataclass(frozen=True, slots=True)
class WriteKey:
    """Put ourselves into the key if its sequence is still this one, then tell the outcome."""

    expected_sequence: int


@dataclass(frozen=True, slots=True)
class Lead:
    """Start to serve."""


@dataclass(frozen=True, slots=True)
class StandBy:
    """Stop serving: another broker leads."""


LeadershipEffect = ReadKey | WriteKey | Lead | StandBy


class Leadership:
    """One broker's part. At most one read or write is on its way at any time.

    A leader whose renewals get no answer may not serve for as long, and goes on where it was when
    the key turns out to be still its own, or lost with its server's memory.
    """

    def __init__(self, me: str) -> None:
        """Stand by.

        Args:
            me: an id of this process that no other has.
        """
        self._me = me
        self._sequence = 0
        self._seen_at: float | None = None
        self._sent_at = 0.0
        self._asked = False
        self._unsure = False
        self._next_at = -inf
        self._serves_until: float | None = None

    @property
    def sequence(self) -> int:
        """Of the key as last known."""
        return self._sequence

    def may_serve(self, now: float) -> bool:
        """Tell whether this broker leads and may serve at `now`."""
        return self._serves_until is not None and now < self._serves_until

    def next_deadline(self) -> float:
        """Return when `TimePassed` is wanted at the latest; infinity while an answer is awaited."""
        return inf if self._asked else self._next_at

    def handle(self, now: float, event: LeadershipEvent) -> list[LeadershipEffect]:
        """Take up one event at `now`, in seconds of a clock that never jumps."""
        effects: list[LeadershipEffect] = []
        match event:
            case KeyRead():
                self._asked = self._unsure = False
                effects += self._read(now, event)
            case KeyStored():
                self._asked = False
                effects += self._stored(event.sequence)
            case KeyRefused():
                self._asked, self._next_at = False, now
                effects += self._stand_by()
            case KeyUnanswered():
                self._asked, self._unsure, self._next_at = False, True, now + RETRY_S
            case ServiceEnded():
                effects += self._stand_by()
        if not self._asked and now >= self._next_at:
            effects.append(self._ask(now))
        return effects

    def _ask(self, now: float) -> LeadershipEffect:
        # What became of a write without an answer, only a read tells.
        if self._serves_until is None or self._unsure:
            self._asked = True
            return ReadKey()
        return self._write(now)

    def _write(self, now: float) -> WriteKey:
        self._asked, self._sent_at = True, now
        return WriteKey(self._sequence)

    def _read(self, now: float, key: KeyRead) -> list[LeadershipEffect]:
        self._next_at = now + RENEW_S
        changed = key.sequence != self._sequence
        if changed or self._seen_at is None:
            self._sequence, self._seen_at = key.sequence, now
        if self._serves_until is None:
            free = key.gone or key.holder in (None, self._me)
            return [self._write(now)] if free or now - self._seen_at >= TAKEOVER_S else []
        if key.holder not in (None, self._me):
            return self._stand_by()
        self._next_at = now
        if changed and key.holder is not None:
            self._serves_until = self._sent_at + TERM_S
        return []

    def _stored(self, sequence: int) -> list[LeadershipEffect]:
        leads_already = self._serves_until is not None
        self._sequence, self._seen_at = sequence, self._sent_at
        self._serves_until = self._sent_at + TERM_S
        self._next_at = self._sent_at + RENEW_S
        return [] if leads_already else [Lead()]

    def _stand_by(self) -> list[LeadershipEffect]:
        if self._serves_until is None:
            return []
        self._serves_until = None
        return [StandBy()]
