"""Charts as SVG: lines by n or by the hour, on a plain or a logarithmic axis; and bars."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

_HEIGHT, _MARGIN, _LEGEND_HEIGHT, _LEGEND_WIDTH = 320, 56, 16, 110
_COLOURS = ("#1b6ca8", "#c8553d", "#4f772d", "#7b4b94", "#8a6d1d", "#444444", "#2a9d8f", "#d17b0f")
_PALE = "0.45"
_SPOTS_MAX = 20


@dataclass(frozen=True)
class Line:
    """One series of (n, value); a value that is not positive has no place on a logarithmic axis."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One chart."""

    title: str
    lines: list[Line]
    along: Literal["decades", "days"] = "decades"
    """What n is: a number, on a logarithmic axis; or days, on a plain one."""
    up: Literal["plain", "decades"] = "plain"


@dataclass(frozen=True)
class Bar:
    """One value, which is positive, of one system."""

    name: str
    value: float
    pale: bool = False
    """Whether it is another kind than those it stands beside; the chart's title says which."""


class _Axis:
    """Where a number comes to stand, between 0 and 1, and which numbers are written there."""

    def __init__(self, scale: str, values: Iterable[float]) -> None:
        shown = list(values)
        self._log = scale == "decades"
        if self._log:
            self._low = math.floor(math.log10(min(shown)))
            self._high = max(self._low + 1, math.ceil(math.log10(max(shown))))
            self.ticks = [10.0**decade for decade in range(self._low, self._high + 1)]
        elif scale == "days":
            self._low, self._high = 0, max(1, math.ceil(max(shown)))
            self.ticks = [step / 2 for step in range(2 * self._high + 1)]
        else:
            self._low, self._high = 0, _round_up(max(shown))
            self.ticks = [self._high * step / 4 for step in range(5)]

    def at(self, value: float) -> float:
        number = math.log10(value) if self._log else value
        return (number - self._low) / (self._high - self._low)

    def label(self, value: float) -> str:
        return f"{value:,.0f}" if value >= 1 and value == int(value) else f"{value:g}"


def write_svg(path: Path, panels: list[Panel], width: int = 460) -> None:
    """Write the charts side by side, each of them so many pixels wide."""
    per_row = max(1, (width - _MARGIN) // _LEGEND_WIDTH)
    rows = max(math.ceil(len(panel.lines) / per_row) for panel in panels)
    height = _HEIGHT + _LEGEND_HEIGHT * (rows - 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * len(panels)}" height="{height}">',
        "<style>text { font: 11px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        drawn = _panel(panel, width, per_row)
        parts.append(f'<g transform="translate({number * width} 0)">{drawn}</g>')
    path.write_text("\n".join([*parts, "</svg>", ""]))


def write_bars(path: Path, title: str, bars: Sequence[Bar], width: int = 720) -> None:
    """Write a bar for each value below the last one, their lengths by the logarithm."""
    axis = _Axis("decades", [bar.value for bar in bars])
    left, right, height = 3 * _MARGIN, width - 1.5 * _MARGIN, 22
    below = _MARGIN + height * len(bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{below + 8}">',
        "<style>text { font: 11px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="18" font-weight="bold">{escape(title)}</text>',
    ]
    for tick in axis.ticks:
        x = left + axis.at(tick) * (right - left)
        parts.append(f'<path d="M{x:.1f} 44V{below}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="38" text-anchor="middle">{axis.label(tick)}</text>')
    for number, bar in enumerate(bars):
        y, size = 48 + number * height, axis.at(bar.value) * (right - left)
        colour = _COLOURS[1 if bar.name.partition(",")[0] == "lender" else 0]
        look = f'fill="{colour}" opacity="{_PALE if bar.pale else 1}"'
        parts += [
            f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect x="{left}" y="{y}" width="{size:.1f}" height="{height - 6}" {look}/>',
            f'<text x="{left + size + 4:.1f}" y="{y + 12}">{_short(bar.value)}</text>',
        ]
    path.write_text("\n".join([*parts, "</svg>", ""]))


def _panel(panel: Panel, width: int, per_row: int) -> str:
    points = [point for line in panel.lines for point in _shown(line, panel)]
    along = _Axis(panel.along, [n for n, _ in points] or [1.0])
    up = _Axis(panel.up, [value for _, value in points] or [1.0])
    left, right, bottom = _MARGIN, width - _MARGIN / 2, _HEIGHT - _MARGIN

    def across(n: float) -> float:
        return left + along.at(n) * (right - left)

    def above(value: float) -> float:
        return bottom - up.at(value) * (bottom - _MARGIN)

    parts = [f'<text x="{left}" y="24" font-weight="bold">{escape(panel.title)}</text>']
    for tick in up.ticks:
        y = above(tick)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{up.label(tick)}</text>'
        )
    for tick in along.ticks:
        x = across(tick)
        label = along.label(tick)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    for number, line in enumerate(panel.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        spots = [(across(n), above(value)) for n, value in _shown(line, panel)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(spots) <= _SPOTS_MAX:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots
            ]
        x = left + 4 + _LEGEND_WIDTH * (number % per_row)
        y = _HEIGHT - 12 + _LEGEND_HEIGHT * (number // per_row)
        parts.append(f'<text x="{x}" y="{y}" fill="{colour}">{escape(line.name)}</text>')
    return "\n".join(parts)


def _shown(line: Line, panel: Panel) -> list[tuple[float, float]]:
    return [(n, value) for n, value in line.points if value > 0 or panel.up == "plain"]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    size = 10 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 4, 6, 8, 10) if step * size >= value)
