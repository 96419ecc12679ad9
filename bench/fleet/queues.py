"""WORK, as far as it matters here: a queue for each class, and the lenders that wait at it."""

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bench.fleet.lender import Lender

_TURNED_AWAY_MAX = 10
"""Lenders that keep their slots for one lease which is too wide for them now: it is delivered
again every 0.1 s, and who found no slot for it asks for nothing else for a second."""


class Queued(NamedTuple):
    """A lease that waits to be taken."""

    sequence: int
    lease: dict[str, Any]
    """As its message says."""
    cores: int
    memory_bytes: int


class _Class:
    __slots__ = ("leases", "line", "owed")

    def __init__(self) -> None:
        self.leases: deque[Queued] = deque()
        self.line: deque[Lender] = deque()
        self.owed: dict[Lender, None] = {}


class Queues:
    """Who asked first gets first, and what was queued first goes first."""

    def __init__(self) -> None:
        self._classes: dict[str, _Class] = {}
        self._standing: dict[int, str] = {}
        self._sequence = 0

    def put(self, token: str, lease: dict[str, Any], cores: int, memory_bytes: int) -> int:
        """Queue a lease in its class; returns its sequence. Deliver it then."""
        self._sequence += 1
        queued = Queued(self._sequence, lease, cores, memory_bytes)
        self._standing[self._sequence] = token
        self._class(token).leases.append(queued)
        return self._sequence

    def delete(self, sequence: int) -> None:
        """Take a lease out, if it is queued."""
        token = self._standing.pop(sequence, None)
        if token is not None:
            self._head(self._class(token))

    def deliver(self, token: str) -> tuple["Lender", Queued] | None:
        """Return the first lease of a class, and the first in line that has room for it."""
        one = self._class(token)
        while (head := self._head(one)) is not None and one.line:
            lender = one.line.popleft()
            lender.lines.discard(token)
            if not lender.asks_for(token):
                continue
            if lender.fits(head):
                self._take(one, lender, token)
                return lender, head
            self._turn_away(one, lender, token)
        return None

    def first_for(self, lender: "Lender") -> Queued | None:
        """Return a lease that is queued for a lender with free slots.

        A class that it found no slot for comes first, and until then no other does.
        """
        for token in (lender.owed,) if lender.owed is not None else lender.turns:
            one = self._classes.get(token)
            head = self._head(one) if one is not None else None
            if one is None or head is None:
                continue
            if lender.fits(head):
                self._take(one, lender, token)
                return head
            if lender.owed is not None or self._turn_away(one, lender, token):
                return None
        return None

    def wait(self, lender: "Lender") -> None:
        """Put a lender with free slots into every line that it is not in."""
        for token in lender.turns:
            if token not in lender.lines:
                lender.lines.add(token)
                self._class(token).line.append(lender)

    def leave(self, lender: "Lender") -> None:
        """Keep no slots for anything."""
        if lender.owed is not None:
            self._class(lender.owed).owed.pop(lender, None)
            lender.owed = None

    def _take(self, one: _Class, lender: "Lender", token: str) -> None:
        taken = one.leases.popleft()
        del self._standing[taken.sequence]
        lender.served(token)
        self.leave(lender)
        self._head(one)

    def _turn_away(self, one: _Class, lender: "Lender", token: str) -> bool:
        """Have a lender wait for slots, if it ever has enough and not too many do already."""
        if len(one.owed) >= _TURNED_AWAY_MAX * len(one.leases) or not lender.could(one.leases[0]):
            return False
        one.owed[lender] = None
        lender.owed = token
        return True

    def _head(self, one: _Class) -> Queued | None:
        """Return the first lease; if there is none, whoever kept slots asks for others again."""
        while one.leases and one.leases[0].sequence not in self._standing:
            one.leases.popleft()
        if one.leases:
            return one.leases[0]
        for lender in one.owed:
            lender.owed = None
            lender.after(0.0, lender.seek)
        one.owed.clear()
        return None

    def _class(self, token: str) -> _Class:
        found = self._classes.get(token)
        if found is None:
            found = self._classes[token] = _Class()
        return found
