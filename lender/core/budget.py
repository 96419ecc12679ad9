"""How much lent work may use up in a day and in a week, under one grant or in all.

Standard library only: `lender grant` shows it without the daemon.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

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

    def of(self, measure: Measure) -> float:
        """Return one of the amounts."""
        return cast("float", getattr(self, measure))


@dataclass(frozen=True, slots=True)
class Bound:
    """At most `amount` of a measure in a day or a week of the owner's: local, from Monday."""

    measure: Measure
    amount: float
    per: Period

    @property
    def text(self) -> str:
        """For people: `10 CPU hours a day`."""
        return f"{self._figure(self.amount, 6)} a {self.per}"

    def used_text(self, used: float) -> str:
        """For people: `9.5 of 10 CPU hours`."""
        return f"{self._figure(used, 2).partition(' ')[0]} of {self._figure(self.amount, 6)}"

    def _figure(self, amount: float, digits: int) -> str:
        unit = _UNITS[self.measure]
        return f"{amount / unit.size:.{digits}f}".rstrip("0").rstrip(".") + f" {unit.words}"


Budget = tuple[Bound, ...]
UNLIMITED: Budget = ()


def bounds_energy(budget: Budget) -> bool:
    """Tell whether a bound of `budget` holds only where energy is measured."""
    return any(bound.measure == "energy_wh" for bound in budget)


class _Unit(NamedTuple):
    """The unit in which people name a measure, and its size in the measure's own."""

    words: str
    size: float


_UNITS: dict[Measure, _Unit] = {
    "cpu_s": _Unit("CPU hours", 3600),
    "moved_bytes": _Unit("GB moved", 1e9),  # powers of ten, as networks are sold
    "energy_wh": _Unit("kWh", 1000),
}
_LEAST = 1e-6  # of such a unit: less would be shown as 0
_TYPED: dict[str, tuple[Measure, float]] = {
    "cpuh": ("cpu_s", 3600),
    "cpumin": ("cpu_s", 60),
    "mb": ("moved_bytes", 1e6),
    "gb": ("moved_bytes", 1e9),
    "tb": ("moved_bytes", 1e12),
    "wh": ("energy_wh", 1),
    "kwh": ("energy_wh", 1000),
}


def parse_budget(texts: Iterable[str]) -> Budget:
    """Read `10cpuh/day`, `5GB/week`, `0.5kWh/day`; one text may hold several behind commas.

    Raises:
        ValueError: one is no bound, or bounds the same twice; the message names it.
    """
    budget: list[Bound] = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        bound = _bound(part)
        if any((one.measure, one.per) == (bound.measure, bound.per) for one in budget):
            raise ValueError(f"{part!r}: a second bound on the same measure a {bound.per}")
        budget.append(bound)
    return tuple(budget)


def _bound(text: str) -> Bound:
    form = r"(\d{1,9}(?:\.\d{1,6})?)\s*([a-z]+)\s*/\s*(day|week)"
    found = re.fullmatch(form, text, re.IGNORECASE | re.ASCII)
    unit = _TYPED.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f"{text!r} is no budget: write 10cpuh/day, 5GB/week or 0.5kWh/day")
    amount = float(found[1]) * unit[1]
    if amount < _LEAST * _UNITS[unit[0]].size:
        raise ValueError(f"{text!r} allows next to nothing: grant nothing instead")
    per: Period = "day" if found[3].lower() == "day" else "week"
    return Bound(unit[0], amount, per)
