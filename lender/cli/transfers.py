"""How far files have come, on standard error: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable
from typing import TextIO

from lender.cli.status_line import StatusLine, bar
from lender.cli.words import duration, printable, size
from lender.client import Transfer

_LARGE_BYTES = 32 << 20
"""What is smaller is through before anybody reads of it, unless the line is slow."""


class Transfers:
    """Shows one transfer after another; says nothing of those that take no time."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._status = StatusLine(stream)
        self._clock = clock
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
            if self._status.on_terminal and one.total_bytes >= _LARGE_BYTES:
                self._show(one, now)
            return
        if self._flows_from is None:
            self._flows_from = now, one.done_bytes
        if one.done_bytes >= one.total_bytes:
            self._end(one, now)
        elif now - self._shown_at >= self._status.pause_s:
            self._show(one, now)

    def close(self) -> None:
        """Leave nothing of a bar whose transfer has ended otherwise."""
        if self._shown:
            self._status.clear()
        self._current, self._shown = None, False

    def _end(self, one: Transfer, now: float) -> None:
        shown = self._shown
        self.close()
        if shown:
            took = duration(now - self._began_at)
            what = _what(one, "sent", "fetched")
            self._status.print(f"lender: {what}: {size(one.total_bytes)} in {took}\n")

    def _show(self, one: Transfer, now: float) -> None:
        self._shown, self._shown_at = True, now
        counts = f"{size(one.done_bytes)} of {size(one.total_bytes)}"
        since, from_bytes = self._flows_from or (now, 0)
        if now > since:
            counts += f", {size((one.done_bytes - from_bytes) / (now - since))}/s"
        what = _what(one, "sending", "fetching")
        begin = bar(one.done_bytes, one.total_bytes) if self._status.on_terminal else "lender:"
        self._status.show(f"{begin} {what}: {counts}")


def _what(one: Transfer, to_fleet: str, from_there: str) -> str:
    return f"{to_fleet if one.to_fleet else from_there} {printable(one.name) or 'a value'}"
