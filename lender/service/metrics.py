"""What a program counts of itself, and the text that a monitoring system reads it by. Pure.

The format is OpenMetrics 1.0 (https://prometheus.io/docs/specs/om/open_metrics_spec/). Every metric
is declared, with all values that its label may take: all series are there from the start, and no
client can make more of them.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

OTHER = "other"
"""Stands for each value of a label that was not declared."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What is counted or measured: its name with the base unit last, without `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    label: str = ""
    values: tuple[str, ...] = ()
    """All that the label may be; what is not among them counts as `OTHER`, if that is."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending; one without a bound comes after them."""

    @property
    def exposed(self) -> str:
        """The name under which it is queried."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


_AMOUNT_MAX = 1e18


class _Spread:
    """How measured values are spread over the buckets of a histogram."""

    __slots__ = ("counts", "sum")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        """Of each bucket by itself."""
        self.sum = 0.0


class Registry:
    """The values of a fixed list of metrics.

    Raises:
        KeyError: of a metric that is not in the list, or of a label that it does not declare.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._values: dict[Metric, dict[str, float]] = {}
        self._spreads: dict[Metric, _Spread] = {}
        for metric in metrics:
            if metric.kind == "histogram":
                self._spreads[metric] = _Spread(len(metric.bounds) + 1)
            else:
                self._values[metric] = dict.fromkeys(metric.values or ("",), 0.0)

    def add(self, metric: Metric, amount: float = 1.0, label: str = "") -> None:
        """Let a counter grow."""
        values = self._values[metric]
        values[label if label in values else OTHER] += amount

    def set(self, metric: Metric, value: float, label: str = "") -> None:
        """Say what a gauge is now, or how far a counter that is kept elsewhere has come."""
        values = self._values[metric]
        if label not in values:
            raise KeyError(label)
        values[label] = value

    def observe(self, metric: Metric, value: float) -> None:
        """Count a value into a histogram; one below 0, of a clock that was set, as 0."""
        spread, value = self._spreads[metric], max(0.0, value)
        spread.counts[bisect_left(metric.bounds, value)] += 1
        spread.sum += value

    def dump(self) -> dict[str, Any]:
        """Return all values, as `absorb` takes them."""
        spreads = {one.name: [*kept.counts, kept.sum] for one, kept in self._spreads.items()}
        return {**{one.name: dict(values) for one, values in self._values.items()}, **spreads}

    def absorb(self, dumped: Mapping[str, Any]) -> None:
        """Add what was dumped, as far as it is of these metrics; what is damaged is left out."""
        for metric, values in self._values.items():
            found = dumped.get(metric.name)
            for label, value in found.items() if isinstance(found, dict) else ():
                if label in values and _is_amount(value):
                    values[label] += value
        for metric, spread in self._spreads.items():
            row = dumped.get(metric.name)
            if not isinstance(row, list) or len(row) != len(spread.counts) + 1:
                continue
            if all(map(_is_amount, row)):
                *counts, total = row
                spread.counts = [a + int(b) for a, b in zip(spread.counts, counts, strict=True)]
                spread.sum += total

    def render(self) -> str:
        """Return all of it as a monitoring system reads it."""
        lines: list[str] = []
        for metric, values in self._values.items():
            lines += _head(metric)
            for label, value in values.items():
                lines.append(f"{metric.exposed}{_labels(metric.label, label)} {_number(value)}")
        for metric, spread in self._spreads.items():
            lines += _head(metric)
            lines += _buckets(metric, spread)
        return "\n".join((*lines, "# EOF", ""))


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < _AMOUNT_MAX


def _head(metric: Metric) -> tuple[str, str]:
    return f"# TYPE {metric.name} {metric.kind}", f"# HELP {metric.name} {_escaped(metric.help)}"


def _buckets(metric: Metric, spread: _Spread) -> list[str]:
    lines, below = [], 0
    for bound, count in zip((*metric.bounds, float("inf")), spread.counts, strict=True):
        below += count
        lines.append(f"{metric.name}_bucket{_labels('le', _number(bound))} {below}")
    return [*lines, f"{metric.name}_count {below}", f"{metric.name}_sum {_number(spread.sum)}"]


def _labels(name: str, value: str) -> str:
    return f'{{{name}="{_escaped(value)}"}}' if name else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(float(value))
