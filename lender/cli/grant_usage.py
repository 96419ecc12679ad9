"""What each grant was used for, from the log of what ran.

Standard library only.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lender.core.budget import Bound, Usage
from lender.core.consent import Grant
from lender.core.spending import Spending

# A damaged line of the log must not hide the others: what can't be is not counted.
_TIME_MAX = 1e11
_AMOUNT_MAX = 1e18
_MOVED = ("bytes_in", "bytes_out", "network_in_bytes", "network_out_bytes")


@dataclass(slots=True)
class GrantUse:
    """All that the log tells of one grant.

    Attributes:
        jobs: their ids.
        attempts: leases that ran, each with a receipt.
        usage: the sum.
        last_at: end of the last one, seconds since the epoch.
    """

    jobs: set[str] = field(default_factory=set)
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    last_at: float = 0.0


class GrantUses:
    """The log, summed up by grant."""

    def __init__(self, receipts: Iterable[Mapping[str, Any]]) -> None:
        self._uses: dict[str, GrantUse] = {}
        self._spending = Spending()
        for receipt in receipts:
            self._count(receipt)

    def fields(self, grant: Grant, now: float) -> dict[str, Any]:
        """Return a grant's use as JSON values, with what is left of its budget at `now`."""
        use = self._uses.get(grant.id, GrantUse())
        offset_s = time.localtime(now).tm_gmtoff
        budget = [
            self._of_bound(bound, self._spending.used(now, offset_s, bound.per, grant.id))
            for bound in grant.budget
        ]
        return {
            "jobs": len(use.jobs),
            "attempts": use.attempts,
            "cpu_s": use.usage.cpu_s,
            "moved_bytes": use.usage.moved_bytes,
            "energy_wh": use.usage.energy_wh,
            "last_at": use.last_at or None,
            "budget": budget,
            "exhausted": self._spending.exhausted(now, offset_s, grant.id, grant.budget),
        }

    @staticmethod
    def _of_bound(bound: Bound, usage: Usage) -> dict[str, Any]:
        used = usage.of(bound.measure)
        text = f"{bound.used_text(used)} {'today' if bound.per == 'day' else 'this week'}"
        return {**asdict(bound), "used": used, "left": max(0.0, bound.amount - used), "text": text}

    def _count(self, receipt: Mapping[str, Any]) -> None:
        """Take up a line of the log; what is no receipt of an attempt, or damaged, counts not."""
        grant, job, ended_at = (receipt.get(key) for key in ("grant", "job", "ended_at"))
        if not (isinstance(grant, str) and isinstance(job, str)):
            return
        if not isinstance(ended_at, int | float) or not 0 <= ended_at < _TIME_MAX:
            return
        usage = Usage(
            _amount(receipt, "cpu_s"),
            int(sum(_amount(receipt, field) for field in _MOVED)),
            _amount(receipt, "energy_wh"),
        )
        use = self._uses.setdefault(grant, GrantUse())
        use.jobs.add(job)
        use.attempts += 1
        use.usage += usage
        use.last_at = max(use.last_at, ended_at)
        self._spending.count(grant, ended_at, usage, time.localtime(ended_at).tm_gmtoff)


def _amount(receipt: Mapping[str, Any], key: str) -> float:
    value = receipt.get(key)
    return float(value) if isinstance(value, int | float) and 0 < value < _AMOUNT_MAX else 0.0
