"""Line charts as SVG: n on a logarithmic axis, what it costs on a plain one from zero."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _MARGIN = 460, 320, 56
_COLOURS = ("#1b6ca8", "#c8553d", "#4f772d", "#7b4b94", "#8a6d1d", "#444444")


@dataclass(frozen=True)
class Line:
    """One series of (n, value)."""

    name: str
    points: list[tuple[int, float]]


@dataclass(frozen=True)
class Panel:
    """One chart."""

    title: str
    lines: list[Line]


def write_svg(path: Path, panels: list[Panel]) -> None:
    """Write the charts side by side."""
    width = _WIDTH * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT}">',
        "<style>text { font: 11px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number * _WIDTH} 0)">{_panel(panel)}</g>')
    path.write_text("\n".join([*parts, "</svg>", ""]))


def _panel(panel: Panel) -> str:
    decades = [math.log10(n) for line in panel.lines for n, _ in line.points]
    low, high = math.floor(min(decades)), math.ceil(max(decades))
    top = _round_up(max(value for line in panel.lines for _, value in line.points))
    right, bottom = _WIDTH - _MARGIN / 2, _HEIGHT - _MARGIN

    def at(n: float, value: float) -> tuple[float, float]:
        along = (math.log10(n) - low) / max(1, high - low)
        return (
            _MARGIN + along * (right - _MARGIN),
            bottom - value / top * (bottom - _MARGIN),
        )

    parts = [f'<text x="{_MARGIN}" y="24" font-weight="bold">{escape(panel.title)}</text>']
    for step in range(5):
        value = top * step / 4
        x, y = at(10**low, value)
        parts.append(f'<path d="M{x} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for decade in range(low, high + 1):
        x, y = at(10**decade, 0)
        label = f"{10**decade:,}"
        parts.append(f'<text x="{x:.1f}" y="{y + 18}" text-anchor="middle">{label}</text>')
    for number, line in enumerate(panel.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        spots = [at(n, value) for n, value in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots]
        x = _MARGIN + 4 + 100 * number
        parts.append(f'<text x="{x}" y="{_HEIGHT - 12}" fill="{colour}">{escape(line.name)}</text>')
    return "\n".join(parts)


def _round_up(value: float) -> float:
    size = 10 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 4, 6, 8, 10) if step * size >= value)
