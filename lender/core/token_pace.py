"""When to ask the fleet for another token: when ours is refused, or the owner's grants name others.

A token names the classes that the server hands out to us. One that names all of them (`class:*`)
needs no other when grants change. Whatever happens, asking is bounded: a second apart at least,
and up to a minute where it goes on for nothing.
"""

import math
from collections.abc import Callable

from lender.protocol.bounds import ENROL_CLASSES_MAX

SETTLE_S = 0.3
"""Grants come and go in company: one token for all of them."""

AGAIN_FIRST_S = 1.0
AGAIN_MAX_S = 60.0


class TokenPace:
    """What is known of our token, and when to ask for another."""

    def __init__(self, chance: Callable[[], float]) -> None:
        """Know of no token: nothing is asked before `read`.

        Args:
            chance: returns a number from 0 up to, and without, 1, equally likely, on each call:
                a fleet is not to ask all at once.
        """
        self._chance = chance
        self._held: frozenset[str] | None = None
        self._answered: tuple[str, ...] | None = None
        self._wanted: tuple[str, ...] | None = None
        self._beyond: frozenset[str] = frozenset()
        self._changed_at = -math.inf
        self._refused = False
        self._over = True
        self._tries = 0
        self._not_before = -math.inf

    @property
    def lacking(self) -> frozenset[str]:
        """What the grants name, we have asked for, and the operator's word does not reach."""
        if self._held is None:
            return frozenset()
        return frozenset(self._answered or ()).intersection(self._wanted or ()) - self._held

    @property
    def beyond(self) -> frozenset[str]:
        """What the grants name and is never asked for, since no token holds so many."""
        return frozenset() if self._held is None else self._beyond

    @property
    def rests(self) -> bool:
        """Whether nothing will have to be asked for until grants, or what lets us in, change."""
        if self._over or self._refused:
            return self._over
        if self._held is None or self._wanted is None:
            return True
        return self._wanted == self._answered or self._held == frozenset(self._wanted)

    def read(self, held: frozenset[str] | None) -> None:
        """Take up a token that somebody has put there: the classes that it names; None: all."""
        self._held, self._answered = held, None
        self._refused = self._over = False

    def refused(self) -> None:
        """Take up that the server does not let us in by it."""
        self._refused = True

    def let_in(self) -> None:
        """Take up that it does."""
        self._refused, self._tries = False, 0

    def barred(self) -> None:
        """Take up that the fleet lets us in no more: nothing is asked before `read`."""
        self._over = True

    def failed(self, now: float) -> None:
        """Take up that nobody has answered as we can use it."""
        self._wait(now)

    def answered(self, now: float, asked: tuple[str, ...], held: frozenset[str] | None) -> None:
        """Take up a token that we were given when we `asked`."""
        self._held, self._answered = held, asked
        if not self._refused:
            self._tries = 0
        self._wait(now)

    def due(self, now: float, wanted: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Return the classes to ask for now; None: nothing is to be asked.

        Args:
            now: seconds, by any clock that does not go back.
            wanted: what the owner's grants name; None: not known yet.
        """
        named = None if wanted is None else wanted[:ENROL_CLASSES_MAX]
        self._beyond = frozenset(() if wanted is None else wanted[ENROL_CLASSES_MAX:])
        if named != self._wanted:
            self._wanted, self._changed_at = named, now
        if self.rests or now < self._not_before:
            return None
        if self._refused:
            return named or ()
        return None if now < self._changed_at + SETTLE_S else named

    def _wait(self, now: float) -> None:
        longest_s = min(AGAIN_MAX_S, AGAIN_FIRST_S * 2 ** min(self._tries, 10))
        self._tries += 1
        self._not_before = now + max(AGAIN_FIRST_S, longest_s * (1 + self._chance()) / 2)
