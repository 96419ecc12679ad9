"""Carries out a table of checks within a bound, and prints what came of them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from lender.cli.checks.check import Check
from lender.cli.words import say

WITHIN_S: Final = 30.0
"""For all of them: what has not begun by then is left out, and said to be. Each is bounded too."""

Part = Callable[[float], Iterator[Check]]
"""A check or several; told how many seconds are left."""

_MEND: Final = "try again once the machine is less busy"
_MARKS: Final = {"ok": "✓", "info": "·", "warning": "!", "blocker": "✗"}


def carry_out(parts: Mapping[str, Part], verb: str, within_s: float = WITHIN_S) -> list[Check]:
    """Run all checks, each once. One that fails itself, or is not come to, is a warning."""
    end = time.monotonic() + within_s
    found: list[Check] = []
    for name, part in parts.items():
        left_s = end - time.monotonic()
        if left_s <= 0:
            text = f"not checked, as the others took {within_s:g} s: {name}"
            found.append(Check(name, "warning", text, _MEND))
            continue
        try:
            found += part(left_s)
        except (OSError, ValueError, ImportError) as error:
            text = f"{name} could not be checked: {error}"
            found.append(Check(verb, "warning", text, f"lender {verb}, as the owner or root"))
    return found


def show(checks: Iterable[Check], verdict: str) -> None:
    """Print them for people, and what follows from them."""
    say([*(line for check in checks for line in _lines(check)), verdict])


def _lines(check: Check) -> list[str]:
    mend = [f"    mend: {check.mend}"] if check.mend else []
    return [f"{_MARKS[check.level]} {check.text}", *mend]
