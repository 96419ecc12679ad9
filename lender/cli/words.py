"""Wording for people: durations, sizes, dates, colours that a terminal shows."""

import contextlib
import os
import sys
import time
from collections.abc import Iterable

_SIZE_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_COLOURS = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}


def duration(seconds: float) -> str:
    """`0.6 ms`, `14.2 s`, `6m12s`, `3h05m`, `2d 4h`."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02d}m"
    return f"{hours // 24}d {hours % 24}h"


def span(seconds: float) -> str:
    """A time where seconds do not matter: `40 s`, `14 min`, `3 h 5 min`, `2 days`."""
    if seconds < 60:
        return f"{max(0, int(seconds))} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"


def size(count: float) -> str:
    """`512 bytes`, `1.1 GiB`; powers of 1024."""
    for unit in _SIZE_UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if count == int(count) else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_SIZE_UNITS[-1]}"


def count(number: int, noun: str) -> str:
    """`1 job`, `3 jobs`, `2 processes`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def moment(timestamp: float) -> str:
    """Local date and minute: `21 Nov 2025 09:03`."""
    return time.strftime("%-d %b %Y %H:%M", time.localtime(timestamp))


def when(timestamp: float, now: float) -> str:
    """A local time, as short as its distance allows: `18:00`, `tomorrow 08:00`, `1 Dec`."""
    then, today = time.localtime(timestamp), time.localtime(now)
    tomorrow = time.localtime(time.mktime((*today[:2], today[2] + 1, 12, 0, 0, 0, 0, -1)))
    if then[:3] == today[:3]:
        return time.strftime("%H:%M", then)
    if then[:3] == tomorrow[:3]:
        return time.strftime("tomorrow %H:%M", then)
    return time.strftime("%-d %b" if then[0] == today[0] else "%-d %b %Y", then)


def clock(timestamp: float) -> str:
    """Local time of day with milliseconds: `16:41:02.114`."""
    whole = time.strftime("%H:%M:%S", time.localtime(timestamp))
    return f"{whole}.{int(timestamp % 1 * 1000):03d}"


def key(public_key: str) -> str:
    """A public key short enough for a line: `UABCDEF…WXYZ`."""
    return f"{public_key[:7]}…{public_key[-4:]}" if len(public_key) > 12 else public_key


def printable(text: str) -> str:
    """Text from elsewhere (a job's name) without what could steer the owner's terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def colour(name: str, text: str) -> str:
    """Colour `text` where standard output is a terminal and NO_COLOR is not set."""
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    if not on_terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\033[{_COLOURS[name]}m{text}\033[0m"


said: list[str] = []
"""The lines of the last `say`: where they can't be written, they are said elsewhere."""


def say(lines: Iterable[str]) -> None:
    """Print lines, marks in colour. A terminal that lacks a character gets a question mark."""
    said[:] = lines
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    marks = {"✓": "green", "●": "green", "!": "yellow", "✗": "red", "○": "yellow"}
    for line in said:
        mark = line[:1]
        print(colour(marks[mark], mark) + line[1:] if mark in marks else line)


def complain(*lines: str) -> None:
    """Print to standard error; what can't be written there is told nowhere."""
    with contextlib.suppress(OSError):
        print(*lines, sep="\n", file=sys.stderr, flush=True)
