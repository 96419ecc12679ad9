"""How far each owner's machines are trusted to answer alone: by what others have confirmed.

As BOINC's adaptive replication: who has a record of valid answers is checked less and less often,
never not at all, and one answer that others refute ends the record. It is kept in memory only:
after a start everybody is checked anew until he has a record again.
"""

from collections.abc import Callable

from broker.core.containers.recent import Recent

TRUSTED_AFTER = 10
"""Confirmed answers in a row; up to then each task is checked."""

CHECKED_MIN = 0.02
"""The share of tasks that are checked, however long the record."""

OWNERS_MAX = 65_536


def checked_share(confirmed: int) -> float:
    """Return the share of an owner's tasks that others run as well.

    All of them up to `TRUSTED_AFTER` confirmed answers in a row, then falling with their number,
    so that who errs from some day on is checked within about a tenth of what he did before.
    """
    if confirmed < TRUSTED_AFTER:
        return 1.0
    return max(CHECKED_MIN, TRUSTED_AFTER / (confirmed + 1))


class Reputation:
    """Confirmed answers in a row, by owner."""

    def __init__(self, chance: Callable[[], float]) -> None:
        """Start with nothing known of anybody.

        Args:
            chance: returns a number from 0 up to, and without, 1, equally likely, on each call.
        """
        self._chance = chance
        self._confirmed: Recent[str, int] = Recent(OWNERS_MAX)

    def confirmed(self, owner: str) -> int:
        """Return how many of an owner's answers were confirmed since the last refuted one."""
        return self._confirmed.get(owner) or 0

    def is_checked(self, owner: str) -> bool:
        """Decide whether a task that an owner's machine has begun is checked by others."""
        return self._chance() < checked_share(self.confirmed(owner))

    def note(self, owner: str, *, valid: bool) -> None:
        """Note that others have confirmed an answer, or refuted it."""
        self._confirmed[owner] = self.confirmed(owner) + 1 if valid else 0
