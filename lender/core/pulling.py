"""Which class queues to pull from, when, and for how long: a fair turn for each that has work."""

from dataclasses import dataclass
from math import inf

from lender.core.effects import PullWork

PULL_EXPIRES_S = 30.0
OWED_PULL_EXPIRES_S = 1.0

EMPTY_REST_S = 1.0
"""After a pull that brought nothing: a server that ends pulls at once must not spin us."""

AT_ONCE_S = 0.05
"""A pull that brings something so soon found more in its queue than others had asked for."""

GO_ON_S = 1.0
"""After such a pull, beyond the time that the broker has told."""

LOOK_S = 0.1
"""As long a pull waits at least, also when a slot is free again: more may have come meanwhile."""


@dataclass(slots=True)
class _Pull:
    begun_at: float
    brought: int = 0


class Pulls:
    """Classes in the order of their turns, and the one outstanding pull of each.

    A class that brought a lease for which no slot was left is owed a slot: until it got one, or
    has no more work, no other class is pulled. So neither a busy class nor narrow leases starve
    a wide one.

    A queue that the broker opened for some time is left when that is over, unless it still holds
    more than is asked of it: the server looks at every pull that waits whenever anything comes.
    """

    def __init__(self, own_queue: str) -> None:
        """Know of no work.

        Args:
            own_queue: it is empty most of the time, and pulled from only when we are told.
        """
        self._own_queue = own_queue
        self._open: dict[str, float] = {}
        """Until when each is pulled from."""
        self._outstanding: dict[str, _Pull] = {}
        self._owed: dict[str, None] = {}
        self._rest_until: dict[str, float] = {}
        self._full = False

    def opened(
        self, now: float, classes: tuple[str, ...], allowed: frozenset[str], stand_s: float | None
    ) -> None:
        """Take up that classes have work; those that are not `allowed` are no business of ours.

        Args:
            now: seconds since the epoch.
            classes: of which the broker told.
            allowed: by our grants.
            stand_s: for how long they are to be pulled from; None: without end.
        """
        until = inf if stand_s is None else now + stand_s
        for work_class in classes:
            if work_class in allowed:
                self._open[work_class] = until
                self._rest_until.pop(work_class, None)

    def ended(self, now: float, work_class: str, *, refused: bool) -> None:
        """Take up that the pull of a class is over."""
        pull = self._outstanding.pop(work_class, None)
        if refused or (work_class == self._own_queue and not (pull and pull.brought)):
            self._forget(work_class)
        elif pull is not None and not pull.brought:
            self._owed.pop(work_class, None)
            self._rest_until[work_class] = now + EMPTY_REST_S

    def brought(self, now: float, work_class: str) -> None:
        """Take up that a pull brought a message."""
        pull = self._outstanding.get(work_class)
        if pull is None:
            return
        pull.brought += 1
        if now < pull.begun_at + AT_ONCE_S and work_class in self._open:
            self._open[work_class] = max(self._open[work_class], now + GO_ON_S)

    def served(self, work_class: str) -> None:
        """A lease of the class got a slot: the others come first now."""
        self._owed.pop(work_class, None)
        if work_class in self._open:
            self._open[work_class] = self._open.pop(work_class)

    def turned_away(self, work_class: str) -> None:
        """A lease of the class found no slot."""
        if work_class in self._open:
            self._owed[work_class] = None

    def rest(self, now: float, work_class: str) -> None:
        """A lease of the class found no GPU or device for now: the others don't wait for it."""
        self._owed.pop(work_class, None)
        self._rest_until[work_class] = now + EMPTY_REST_S

    def next(self, now: float, allowed: frozenset[str], batch: int) -> list[PullWork]:
        """Return the pulls to begin, for `batch` free slots."""
        for work_class in [one for one in self._open if one not in allowed]:
            self._forget(work_class)
        for work_class in [one for one, until in self._rest_until.items() if now >= until]:
            del self._rest_until[work_class]
        was_full, self._full = self._full, batch == 0
        if batch == 0:
            return []
        for work_class in [one for one, until in self._open.items() if now >= until]:
            if was_full:
                self._open[work_class] = now + LOOK_S
            elif work_class not in self._owed and work_class not in self._outstanding:
                self._forget(work_class)
        pulls = [
            PullWork(work_class, batch, self._expires_s(now, work_class))
            for work_class in self._owed or self._open
            if work_class not in self._outstanding and work_class not in self._rest_until
        ]
        self._outstanding.update((pull.work_class, _Pull(now)) for pull in pulls)
        return pulls

    def next_deadline(self) -> float | None:
        """Return when a class has rested."""
        return min(self._rest_until.values(), default=None)

    def _expires_s(self, now: float, work_class: str) -> float:
        if self._owed:
            return OWED_PULL_EXPIRES_S
        return min(PULL_EXPIRES_S, max(LOOK_S, self._open[work_class] - now))

    def _forget(self, work_class: str) -> None:
        for kept in (self._open, self._owed, self._rest_until):
            kept.pop(work_class, None)
