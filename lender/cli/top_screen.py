"""What `lender top` shows: rows of styled text for a given size, from answers of lenderd. Pure."""

import textwrap
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lender.cli import comfort_words
from lender.cli.columns import columns_of, fit
from lender.cli.reading import Fields, Reading, names_of
from lender.cli.status_lines import head
from lender.cli.words import duration, key, printable, size

Style = Literal["plain", "bold", "dim", "own", "lent", "good", "warn", "title"]
Row = list[tuple[str, Style]]

_KEYS = "p pause   r resume   x revoke all   q quit"
_COLUMNS = ("JOB", "NAME", "FOR", "WORKLOAD", "STATE", "CORES", "MEMORY", "TIME")
_WIDTHS = (12, 10, 10, 9, 9, 7, 8, 7)
_LABEL_CHARS = 8
_BAR_CHARS_MIN, _BAR_CHARS_MAX = 10, 40
_COMFORT_LINES_MAX = 3
_MESSAGE_LINES_MAX = 4


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Of the bars: what the terminal's character set has."""

    own: str = "█"
    lent: str = "▒"
    free: str = "·"


ASCII = Glyphs("#", "=", ".")


class Rates:
    """Cores that each lease keeps busy, from the CPU time that successive answers tell.

    lenderd meters every second or slower: a rate holds until the next figure comes.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}
        self._rates: dict[str, float] = {}

    def take(self, now: float, running: list[dict[str, Any]]) -> dict[str, float]:
        """Return the rate by lease; what has no second figure yet counts with what it may use."""
        known = {str(one.get("lease")): one for one in running}
        self._last = {lease: last for lease, last in self._last.items() if lease in known}
        self._rates = {lease: rate for lease, rate in self._rates.items() if lease in known}
        for lease, one in known.items():
            self._take(now, lease, one)
        return dict(self._rates)

    def _take(self, now: float, lease: str, one: dict[str, Any]) -> None:
        moving = one.get("state") != "frozen"
        cpu_s = one.get("cpu_s")
        last = self._last.get(lease)
        if cpu_s is None or last is None:
            self._rates[lease] = float(one.get("cpu") or 0.0) if moving else 0.0
        elif cpu_s > last[0] and now > last[1]:
            self._rates[lease] = (cpu_s - last[0]) / (now - last[1])
        elif not moving:
            self._rates[lease] = 0.0
        if cpu_s is not None and (last is None or cpu_s != last[0]):
            self._last[lease] = (cpu_s, now)


def screen(
    reading: Reading,
    rates: dict[str, float],
    now: float,
    size_of: tuple[int, int],
    message: str,
    glyphs: Glyphs,
) -> list[Row]:
    """Return one row per line of the screen, each at most as wide as it.

    Args:
        reading: the last answer.
        rates: of `Rates`.
        now: seconds since the epoch.
        size_of: lines and columns.
        message: of the last key, or a question; empty for the keys' names.
        glyphs: of the bars.
    """
    lines, columns = size_of
    status = reading.fields
    footer = _footer(message, columns)
    rows = [_title(status, now, columns), *_comfort(reading, columns), []]
    rows += _bars(_gauges(status, rates), columns, glyphs)
    rows += [[], [(_table_line(_COLUMNS), "title")]]
    room = max(0, lines - len(rows) - 1 - len(footer))
    jobs = [_job(one, rates, names_of(status), now) for one in status.get("running", [])]
    if len(jobs) > room:
        jobs = [*jobs[: max(0, room - 1)], [(f"and {len(jobs) - room + 1} more", "dim")]]
    rows += jobs or [[("nothing runs", "dim")]]
    rows = rows[: max(0, lines - len(footer))]
    rows += [[] for _ in range(lines - len(footer) - len(rows))]
    return [_cut(row, columns - 1) for row in [*rows, *footer[:lines]]]


def _footer(message: str, columns: int) -> list[Row]:
    """The message in full, on as many lines as it takes, up to a bound."""
    if not message:
        return [[(_KEYS, "dim")]]
    wrapped = textwrap.wrap(printable(message), max(20, columns - 1))[:_MESSAGE_LINES_MAX]
    return [[(line, "bold")] for line in wrapped]


def _title(status: Fields, now: float, columns: int) -> Row:
    left = f"lender top  {printable(str(status.get('name', '')))}"
    said = head(status, now)
    style: Style = "good" if said.startswith("●") else "warn"
    gap = max(2, columns - 1 - len(left) - len(said))
    return [(left, "bold"), (" " * gap, "plain"), (said, style)]


def _comfort(reading: Reading, columns: int) -> list[Row]:
    comfort = reading.fields.get("comfort")
    if not reading.answered:
        return [[(str(reading.fields.get("reason", "")), "warn")]]
    if not comfort:
        return []
    style: Style = "plain" if comfort.get("rung") == "full" else "warn"
    machine = textwrap.wrap(comfort_words.machine(comfort), max(20, columns - 1))
    you: Row = [(f"You: {comfort_words.presence(comfort)}", "plain")]
    return [you, *([(line, style)] for line in machine[:_COMFORT_LINES_MAX])]


class _Gauge(NamedTuple):
    label: str
    own: float
    lent: float
    text: str


def _gauges(status: Fields, rates: dict[str, float]) -> list[_Gauge]:
    machine = status.get("machine") or {}
    gauges = []
    cores = machine.get("cores")
    if cores:
        own, lent = machine.get("cpu_others") or 0.0, sum(rates.values())
        text = f"you {own:.1f}  lent {lent:.1f}  of {cores:g}"
        gauges.append(_Gauge("Cores", own / cores, lent / cores, text))
    total, available = machine.get("memory_bytes"), machine.get("memory_available_bytes")
    if total and available is not None:
        lent_bytes = sum(one.get("memory_peak_bytes") or 0 for one in status.get("running", []))
        own_bytes = max(0, total - available - lent_bytes)
        text = f"you {size(own_bytes)}  lent {size(lent_bytes)}  of {size(total)}"
        gauges.append(_Gauge("Memory", own_bytes / total, lent_bytes / total, text))
    return [*gauges, *(_gpu(n, gpu) for n, gpu in enumerate(machine.get("gpus") or []))]


def _gpu(number: int, gpu: dict[str, Any]) -> _Gauge:
    """Your share of the time: of the memory no total is told, so what is lent has no figure."""
    others, free = gpu.get("vram_others_bytes") or 0, gpu.get("vram_free_bytes") or 0
    used = gpu.get("use_others") or 0.0
    text = f"you {100 * used:.0f} % of the time, {size(others)}  free {size(free)}"
    return _Gauge(f"GPU {number}", used, 0.0, text)


def _bars(gauges: list[_Gauge], columns: int, glyphs: Glyphs) -> list[Row]:
    """All of the same length, so that they can be compared."""
    text_chars = max((len(gauge.text) for gauge in gauges), default=0)
    chars = max(_BAR_CHARS_MIN, min(_BAR_CHARS_MAX, columns - _LABEL_CHARS - text_chars - 5))
    return [_bar(gauge, chars, glyphs) for gauge in gauges]


def _bar(gauge: _Gauge, chars: int, glyphs: Glyphs) -> Row:
    own = min(chars, round(max(0.0, gauge.own) * chars))
    lent = min(chars - own, round(max(0.0, gauge.lent) * chars))
    if gauge.lent > 0 and own < chars:
        lent = max(1, lent)  # a little is not nothing
    return [
        (f"{gauge.label:<{_LABEL_CHARS}}[", "plain"),
        (glyphs.own * own, "own"),
        (glyphs.lent * lent, "lent"),
        (glyphs.free * (chars - own - lent), "dim"),
        (f"]  {gauge.text}", "plain"),
    ]


def _job(one: dict[str, Any], rates: dict[str, float], names: dict[str, str], now: float) -> Row:
    submitter = str(one.get("submitter", ""))
    rate, cpu = rates.get(str(one.get("lease")), 0.0), one.get("cpu")
    memory = one.get("memory_peak_bytes") or one.get("memory_bytes")
    cells = (
        str(one.get("job", "")),
        printable(str(one.get("job_name") or "")),
        names.get(submitter) or key(submitter),
        str(one.get("workload", "")),
        str(one.get("state") or ""),
        f"{rate:.1f}/{cpu}" if cpu else f"{rate:.1f}",
        size(memory) if memory else "",
        duration(max(0.0, now - one["since"])) if one.get("since") else "",
    )
    row: Row = [(_table_line(cells), "warn" if one.get("state") == "frozen" else "plain")]
    if one.get("held"):
        row.append((f"  {printable(str(one['held']))}", "warn"))
    return row


def _table_line(cells: tuple[str, ...]) -> str:
    fitted = (fit(printable(cell), width) for cell, width in zip(cells, _WIDTHS, strict=True))
    padded = (
        cell + " " * (width - columns_of(cell)) for cell, width in zip(fitted, _WIDTHS, strict=True)
    )
    return " ".join(padded).rstrip()


def _cut(row: Row, columns: int) -> Row:
    cut: Row = []
    left = columns
    for text, style in row:
        fitted = fit(text, left)
        cut.append((fitted, style))
        left -= columns_of(fitted)
    return cut
