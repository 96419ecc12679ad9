"""How much lent work may use up in a day and in a week, under one grant or in all.

Standard library only: `lender grant` shows it without the daemon.
"""

from dataclasses import dataclass
from typing import Literal

Measure = Literal["cpu_s", "moved_bytes", "energy_wh"]
Period = Literal["day", "week"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What work used up; amounts add.

    Attributes:
        cpu_s: CPU time.
        moved_bytes: inputs fetched and outputs sent.
        energy_wh: the estimate of the receipts.
    """

    cpu_s: float = 0.0
    moved_bytes: int = 0
    energy_wh: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.cpu_s + other.cpu_s,
            self.moved_bytes + other.moved_bytes,
            self.energy_wh + other.energy_wh,
        )


@dataclass(frozen=True, slots=True)
class Bound:
    """At most `amount` of a measure in a day or a week of the owner's: local, from Monday."""

    measure: Measure
    amount: float
    per: Period


Budget = tuple[Bound, ...]
UNLIMITED: Budget = ()
