"""For how long a lender is expected to go on lending."""

from typing import Final

from broker.core.containers.recent import Recent

STAY_GUESS_S = 3600.0
"""Of a lender that nothing is known of yet."""

TIERS: Final = 12
"""By powers of two: less than 64 s, less than 128 s, ..., 18 hours and more."""

_FIRST_TIER_BITS = 6
_NEWEST = 0.25
_HABITS_MAX = 65_536


def tier_of(seconds: float) -> int:
    """Return the tier of a stay of `seconds`."""
    return min(TIERS - 1, max(0, int(seconds).bit_length() - _FIRST_TIER_BITS))


class Stays:
    """When each lender began to lend, and how long it has lent in earlier stays.

    A stay ends when the lender yields, is paused, drains or falls silent.
    """

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._habit_s: Recent[str, float] = Recent(_HABITS_MAX)

    def begin(self, lender_id: str, now: float) -> None:
        """Note that a lender lends; it may have done so before."""
        self._began.setdefault(lender_id, now)

    def end(self, lender_id: str, now: float) -> None:
        """Note that it does not, or no longer."""
        began = self._began.pop(lender_id, None)
        if began is not None:
            habit_s = self._habit(lender_id)
            self._habit_s[lender_id] = habit_s + _NEWEST * (max(0.0, now - began) - habit_s)

    def expected_s(self, lender_id: str, now: float, left_s: float | None) -> float:
        """Return for how long the lender is expected to stay.

        About as long as it mostly has, newer stays weighing more; one that has stayed longer
        than that already, for as long again. Never for longer than `left_s`, what is left of the
        hours that its owner gave; None for no end.
        """
        stayed_s = now - self._began.get(lender_id, now)
        usual_s = max(self._habit(lender_id), stayed_s)
        return usual_s if left_s is None else min(usual_s, left_s)

    def shift(self, by_s: float) -> None:
        """Move what was noted by the clock, after the clock itself has been moved."""
        for lender_id in self._began:
            self._began[lender_id] += by_s

    def _habit(self, lender_id: str) -> float:
        habit_s = self._habit_s.get(lender_id)
        return STAY_GUESS_S if habit_s is None else habit_s
