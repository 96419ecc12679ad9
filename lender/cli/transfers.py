"""How far files have come, on standard error: a bar on a terminal, else a line now and then."""

import shutil
import time
from collections.abc import Callable
from typing import TextIO

from lender.cli.words import duration, printable, size
from lender.client import Transfer

_BAR_CHARS = 30
_REDRAW_S = 0.1
_LINE_EVERY_S = 2.0
_LARGE_BYTES = 32 << 20
"""What is smaller is through before anybody reads of it, unless the line is slow."""


class Transfers:
    """Shows one transfer after another; says nothing of those that take no time."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._current: tuple[str, bool, int] | None = None
        self._began_at = self._shown_at = 0.0
        self._flows_from: tuple[float, int] | None = None
        """When the first of it had come through, and how much; before that its file is read."""
        self._shown = False

    def take(self, one: Transfer) -> None:
        """Take up how far one has come."""
        now = self._clock()
        which = (one.name, one.to_fleet, one.total_bytes)
        if which != self._current:
            self.close()
            self._current, self._began_at, self._shown_at = which, now, now
            self._flows_from = (now, one.done_bytes) if one.done_bytes else None
            if self._terminal and one.total_bytes >= _LARGE_BYTES:
                self._show(one, now)
            return
        if self._flows_from is None:
            self._flows_from = now, one.done_bytes
        if one.done_bytes >= one.total_bytes:
            self._end(one, now)
        elif now - self._shown_at >= (_REDRAW_S if self._terminal else _LINE_EVERY_S):
            self._show(one, now)

    def close(self) -> None:
        """Leave nothing of a bar whose transfer has ended otherwise."""
        if self._terminal and self._shown:
            self._print("\r\x1b[K")
        self._current, self._shown = None, False

    def _end(self, one: Transfer, now: float) -> None:
        shown = self._shown
        self.close()
        if shown:
            took = duration(now - self._began_at)
            what = _what(one, "sent", "fetched")
            self._print(f"lender: {what}: {size(one.total_bytes)} in {took}\n")

    def _show(self, one: Transfer, now: float) -> None:
        self._shown, self._shown_at = True, now
        counts = f"{size(one.done_bytes)} of {size(one.total_bytes)}"
        since, from_bytes = self._flows_from or (now, 0)
        if now > since:
            counts += f", {size((one.done_bytes - from_bytes) / (now - since))}/s"
        what = _what(one, "sending", "fetching")
        if self._terminal:
            filled = _BAR_CHARS * one.done_bytes // max(one.total_bytes, 1)
            line = f"[{'#' * filled}{'.' * (_BAR_CHARS - filled)}] {what}: {counts}"
            self._print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
        else:
            self._print(f"lender: {what}: {counts}\n")

    def _print(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _what(one: Transfer, to_fleet: str, from_there: str) -> str:
    return f"{to_fleet if one.to_fleet else from_there} {printable(one.name) or 'a value'}"
