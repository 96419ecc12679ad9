"""What receipts say was used up: budgets outlive a restart of lenderd."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lender.core.budget import Usage

_OLDER_MAX = 1000
"""So many in a row, and there is nothing of this week behind them."""


def used_since(
    since: float, newest_first: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, float, Usage]]:
    """Tell grant, end in epoch seconds and amount of each attempt that ended since `since`.

    The log is history: what an older version, or `lender revoke`, left out counts as nothing.
    Times need not fall in order, where the clock was wrong for a while.
    """
    older = 0
    for receipt in newest_first:
        ended_at = _number(receipt, "ended_at")
        if ended_at < since:
            older += 1
            if older > _OLDER_MAX:
                return
            continue
        older = 0
        moved_bytes = int(_number(receipt, "bytes_in") + _number(receipt, "bytes_out"))
        usage = Usage(_number(receipt, "cpu_s"), moved_bytes, _number(receipt, "energy_wh"))
        yield str(receipt.get("grant", "")), ended_at, usage


def _number(receipt: Mapping[str, Any], field: str) -> float:
    value = receipt.get(field)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return max(0.0, float(value))
