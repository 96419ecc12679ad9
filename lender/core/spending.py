"""What lent work used up this week, held against budgets."""

from lender.core.budget import Budget, Period, Usage
from lender.core.schedule import DAY_S, week_s

_AGAIN = {"day": "today, free again at midnight", "week": "this week, free again on Monday"}
_KEPT_DAYS = 7


class Spending:
    """A ledger of usage by grant and local day; days before the last seven are forgotten.

    A day is the owner's: it is told apart by the local time that held when usage was counted. Where
    the clock or the zone was set back since, what was counted on a day to come counts as today's.
    """

    def __init__(self) -> None:
        self._days: dict[tuple[int, str], Usage] = {}

    def count(self, grant_id: str, at: float, usage: Usage, utc_offset_s: int) -> None:
        """Take up what was used since the last call, at `at` (seconds since the epoch).

        An amount below zero is a meter's fault and counts as nothing.
        """
        day = _day(at, utc_offset_s)
        known = self._days.get((day, grant_id), Usage())
        self._days[day, grant_id] = known + Usage(
            cpu_s=max(0.0, usage.cpu_s),
            moved_bytes=max(0, usage.moved_bytes),
            energy_wh=max(0.0, usage.energy_wh),
        )
        # Held against what comes in, not against a day to come of a clock that was wrong.
        oldest = day - _KEPT_DAYS
        for key in [key for key in self._days if key[0] <= oldest]:
            del self._days[key]

    def used(
        self, now: float, utc_offset_s: int, per: Period, grant_id: str | None = None
    ) -> Usage:
        """Return what was used in the day or week of `now`, under one grant or in all."""
        first = _day(now, utc_offset_s)
        if per == "week":
            first -= int(week_s(now, utc_offset_s) // DAY_S)
        total = Usage()
        for (day, grant), usage in self._days.items():
            if day >= first and grant_id in (None, grant):
                total += usage
        return total

    def exhausted(self, now: float, utc_offset_s: int, grant_id: str, budget: Budget) -> str | None:
        """Return why a grant's budget allows nothing more, in words; None while it does."""
        fault = self._fault(now, utc_offset_s, grant_id, budget)
        return fault and f"grant {grant_id} has used {fault}"

    def exhausted_in_all(self, now: float, utc_offset_s: int, budget: Budget) -> str | None:
        """Return why the machine's own budget allows nothing more, in words."""
        fault = self._fault(now, utc_offset_s, None, budget)
        return fault and f"lent work has used {fault}"

    def _fault(
        self, now: float, utc_offset_s: int, grant_id: str | None, budget: Budget
    ) -> str | None:
        """Where several bounds are reached, the one that is free again last is told."""
        fault = None
        for bound in budget:
            used = self.used(now, utc_offset_s, bound.per, grant_id).of(bound.measure)
            if used >= bound.amount and (fault is None or bound.per == "week"):
                fault = f"{bound.used_text(used)} {_AGAIN[bound.per]}"
        return fault


def _day(at: float, utc_offset_s: int) -> int:
    """Return the number of a local day."""
    return int((at + utc_offset_s) // DAY_S)
