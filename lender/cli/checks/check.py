"""One finding of `lender doctor` or `lender preflight`."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "info", "warning", "blocker"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was seen, and what to do about it.

    Attributes:
        name: stable, for scripts.
        level: a blocker keeps this machine from lending, or from joining.
        text: what was seen.
        mend: what to do; empty where nothing is.
    """

    name: str
    level: Level
    text: str
    mend: str = ""
