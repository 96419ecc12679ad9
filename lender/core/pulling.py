"""Which class queues to pull from, and when: a fair turn for each that has work."""

from dataclasses import dataclass

from lender.core.effects import PullWork

PULL_EXPIRES_S = 30.0
OWED_PULL_EXPIRES_S = 1.0

EMPTY_REST_S = 1.0
"""After a pull that brought nothing: a server that ends pulls at once must not spin us."""


@dataclass(slots=True)
class _Pull:
    brought: int = 0


class Pulls:
    """Classes in the order of their turns, and the one outstanding pull of each.

    A class that brought a lease for which no slot was left is owed a slot: until it got one, or
    has no more work, no other class is pulled. So neither a busy class nor narrow leases starve
    a wide one.
    """

    def __init__(self, own_queue: str) -> None:
        """Know of no work.

        Args:
            own_queue: it is empty most of the time, and pulled from only when we are told.
        """
        self._own_queue = own_queue
        self._open: dict[str, None] = {}
        self._outstanding: dict[str, _Pull] = {}
        self._owed: dict[str, None] = {}
        self._rest_until: dict[str, float] = {}

    def opened(self, classes: tuple[str, ...], allowed: frozenset[str]) -> None:
        """Take up that classes have work; those that are not `allowed` are no business of ours."""
        for work_class in classes:
            if work_class in allowed:
                self._open.setdefault(work_class)
                self._rest_until.pop(work_class, None)

    def ended(self, now: float, work_class: str, *, refused: bool) -> None:
        """Take up that the pull of a class is over."""
        pull = self._outstanding.pop(work_class, None)
        if refused or (work_class == self._own_queue and not (pull and pull.brought)):
            self._forget(work_class)
        elif pull is not None and not pull.brought:
            self._owed.pop(work_class, None)
            self._rest_until[work_class] = now + EMPTY_REST_S

    def brought(self, work_class: str) -> None:
        """Take up that a pull brought a message."""
        pull = self._outstanding.get(work_class)
        if pull is not None:
            pull.brought += 1

    def served(self, work_class: str) -> None:
        """A lease of the class got a slot: the others come first now."""
        self._owed.pop(work_class, None)
        if work_class in self._open:
            del self._open[work_class]
            self._open[work_class] = None

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
        if batch == 0:
            return []
        expires_s = OWED_PULL_EXPIRES_S if self._owed else PULL_EXPIRES_S
        pulls = [
            PullWork(work_class, batch, expires_s)
            for work_class in self._owed or self._open
            if work_class not in self._outstanding and work_class not in self._rest_until
        ]
        self._outstanding.update((pull.work_class, _Pull()) for pull in pulls)
        return pulls

    def next_deadline(self) -> float | None:
        """Return when a class has rested."""
        return min(self._rest_until.values(), default=None)

    def _forget(self, work_class: str) -> None:
        for kept in (self._open, self._owed, self._rest_until):
            kept.pop(work_class, None)
