"""Progress of an array on standard error: a bar on a terminal, a line now and then in a pipe."""

import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from lender.cli.status_line import StatusLine, bar
from lender.client import TaskRecord

_LENDERS_SHOWN_MAX = 4
_KEY_CHARS_SHOWN = 8


class Progress:
    """Counts task results and shows them, not more often than a person reads."""

    def __init__(
        self,
        total: int,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        *,
        quiet: bool = False,
    ) -> None:
        """Prepare; where it is `quiet` it only says what it is told to."""
        self._quiet = quiet
        self._total = total
        self._status = StatusLine(stream)
        self._clock = clock
        self._by_lender: Counter[str] = Counter()
        self._done = self._failed = 0
        self._started = self._shown_at = clock()

    @property
    def done(self) -> int:
        """Number of results so far."""
        return self._done

    def count(self, record: TaskRecord) -> None:
        """Take a result in."""
        self._done += 1
        if record.lender:  # nobody ran one that was cancelled before
            self._by_lender[record.lender] += 1
        self._failed += record.result.state == "failed"
        if self._quiet:
            return
        if self.done == self._total or self._clock() - self._shown_at >= self._status.pause_s:
            self._show()

    def say(self, text: str) -> None:
        """Print a line without tearing the bar."""
        self.give_way()
        self._status.print(f"{text}\n")

    def give_way(self) -> None:
        """Take the bar away until it is drawn again: something else is printed there."""
        if not self._quiet:
            self._status.clear()

    def close(self) -> None:
        """End the bar's line."""
        if self._status.on_terminal and self.done and not self._quiet:
            self._show()
            self._status.print("\n")

    def _show(self) -> None:
        self._shown_at = self._clock()
        self._status.show(self._line())

    def _line(self) -> str:
        seconds = max(self._clock() - self._started, 1e-3)
        failed = f", {self._failed} failed" if self._failed else ""
        shown = self._by_lender.most_common(_LENDERS_SHOWN_MAX)
        lenders = "  ".join(f"{key[:_KEY_CHARS_SHOWN]} {count}" for key, count in shown)
        more = len(self._by_lender) - len(shown)
        counts = f"{self.done}/{self._total}{failed}  {self.done / seconds:.0f}/s  {lenders}"
        if more:
            counts += f"  and {more} more"
        if not self._status.on_terminal:
            return counts
        return f"{bar(self.done, self._total)} {counts}"
