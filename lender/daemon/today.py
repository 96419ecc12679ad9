"""What was lent since midnight, for `lender status`."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

_LATE_S = 3600.0
"""A receipt may be written this long after its end and is still looked for."""


class Today:
    """Jobs, seconds and energy of the local day, counted from receipts as they are written."""

    def __init__(self, receipts: Iterable[Mapping[str, Any]] = ()) -> None:
        """Count what is there already: newest first, no more is read than can be of today."""
        self._begin(_last_midnight())
        for receipt in receipts:
            self.count(receipt)
            ended_at = number(receipt, "ended_at")
            if ended_at is not None and ended_at < self._midnight - _LATE_S:
                break

    def count(self, receipt: Mapping[str, Any]) -> None:
        """Take a receipt into account if it ended today.

        The log is history, and `lender revoke` writes to it as well: what lacks a time counts
        as a job without seconds, and what was damaged does not count.
        """
        self._turn()
        job, ended_at = receipt.get("job"), number(receipt, "ended_at")
        started_at = number(receipt, "started_at") if "started_at" in receipt else ended_at
        if started_at is None or ended_at is None:
            return
        if isinstance(job, str) and ended_at >= self._midnight:
            self._jobs.add(job)
            self._seconds += ended_at - started_at
            self._energy_wh += number(receipt, "energy_wh") or 0.0

    def summary(self) -> dict[str, float]:
        """Return the number of jobs, the seconds that their leases took together, and their Wh."""
        self._turn()
        return {
            "jobs": len(self._jobs),
            "seconds": round(self._seconds, 3),
            "energy_wh": round(self._energy_wh, 3),
        }

    def _turn(self) -> None:
        midnight = _last_midnight()
        if midnight != self._midnight:
            self._begin(midnight)

    def _begin(self, midnight: float) -> None:
        self._midnight = midnight
        self._jobs: set[str] = set()
        self._seconds = 0.0
        self._energy_wh = 0.0


def number(receipt: Mapping[str, Any], field: str) -> float | None:
    """Return a finite number of a receipt; None where there is none: the log is history."""
    value = receipt.get(field)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _last_midnight() -> float:
    return time.mktime((*time.localtime()[:3], 0, 0, 0, 0, 0, -1))
