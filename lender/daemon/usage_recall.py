"""What receipts say was used up: budgets outlive a restart of lenderd."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lender.core.budget import Usage


def used_since(
    since: float, newest_first: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, float, Usage]]:
    """Tell grant, end in epoch seconds and amount of each attempt that ended since `since`.

    The log is history: what an older version, or `lender revoke`, left out counts as nothing.
    """
    for receipt in newest_first:
        ended_at = _number(receipt, "ended_at")
        if not ended_at:
            continue
        if ended_at < since:
            return
        moved_bytes = int(_number(receipt, "bytes_in") + _number(receipt, "bytes_out"))
        usage = Usage(_number(receipt, "cpu_s"), moved_bytes, _number(receipt, "energy_wh"))
        yield str(receipt.get("grant", "")), ended_at, usage


def _number(receipt: Mapping[str, Any], field: str) -> float:
    value = receipt.get(field)
    return value if isinstance(value, int | float) and value > 0 else 0.0
