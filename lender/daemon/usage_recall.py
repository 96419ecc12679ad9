"""What receipts say was used up: budgets outlive a restart of lenderd."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lender.core.budget import Usage
from lender.daemon.today import number

MOVED_FIELDS = ("bytes_in", "bytes_out", "network_in_bytes", "network_out_bytes")
"""What counts as moved."""

_OLDER_MAX = 1000
"""So many in a row, and there is nothing of this week behind them."""


def used_since(
    since: float, newest_first: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, float, Usage]]:
    """Tell grant, end in epoch seconds and amount of each attempt that ended since `since`.

    The log is history: what an older version left out counts as nothing. Of an attempt that was
    lost the receipt tells what was counted, or else an estimate that is rather too high.
    Times need not fall in order, where the clock was wrong for a while.
    """
    older = 0
    for receipt in newest_first:
        ended_at = _amount(receipt, "ended_at")
        if ended_at < since:
            older += 1
            if older > _OLDER_MAX:
                return
            continue
        older = 0
        moved_bytes = int(sum(_amount(receipt, field) for field in MOVED_FIELDS))
        usage = Usage(_amount(receipt, "cpu_s"), moved_bytes, _amount(receipt, "energy_wh"))
        yield str(receipt.get("grant", "")), ended_at, usage


def _amount(receipt: Mapping[str, Any], field: str) -> float:
    return max(0.0, number(receipt, field) or 0.0)
