"""What was lent since midnight, for `lender status`."""

import time
from collections.abc import Iterable, Mapping
from typing import Any


class Today:
    """Jobs and seconds of the local day, counted from receipts as they are written."""

    def __init__(self, receipts: Iterable[Mapping[str, Any]] = ()) -> None:
        self._midnight = _last_midnight()
        self._jobs: set[str] = set()
        self._seconds = 0.0
        for receipt in receipts:
            self.count(receipt)

    def count(self, receipt: Mapping[str, Any]) -> None:
        """Take a receipt into account if it ended today.

        The log is history, and `lender revoke` writes to it as well: what lacks a time counts
        as a job without seconds, and what was damaged does not count.
        """
        self._turn()
        job, ended_at = receipt.get("job"), receipt.get("ended_at")
        started_at = receipt.get("started_at", ended_at)
        if not isinstance(started_at, int | float) or not isinstance(ended_at, int | float):
            return
        if isinstance(job, str) and ended_at >= self._midnight:
            self._jobs.add(job)
            self._seconds += ended_at - started_at

    def summary(self) -> dict[str, float]:
        """Return the number of jobs and the seconds that their leases took together."""
        self._turn()
        return {"jobs": len(self._jobs), "seconds": round(self._seconds, 3)}

    def _turn(self) -> None:
        midnight = _last_midnight()
        if midnight != self._midnight:
            self._midnight, self._jobs, self._seconds = midnight, set(), 0.0


def _last_midnight() -> float:
    return time.mktime((*time.localtime()[:3], 0, 0, 0, 0, 0, -1))
