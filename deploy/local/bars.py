"""A progress bar per lender on a terminal, one line a second in a pipe."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence

WIDTH = 28
LINE_S = 1.0
DRAW_S = 0.05


class Bars:
    """Counts tasks by the lender that ran them, and shows them."""

    def __init__(self, names: Sequence[str], total: int) -> None:
        self._counts = dict.fromkeys(names, 0)
        self._notes: dict[str, str] = {}
        self._total = total
        self._terminal = sys.stdout.isatty()
        self._drawn_lines = 0
        self._drawn_at = 0.0
        self._counted = asyncio.Event()

    @property
    def counts(self) -> Mapping[str, int]:
        """Tasks per lender so far."""
        return self._counts

    @property
    def done(self) -> int:
        """Tasks of all lenders so far."""
        return sum(self._counts.values())

    def count(self, name: str) -> None:
        """One more task of `name`."""
        self._counts[name] = self._counts.get(name, 0) + 1
        self._counted.set()
        pause_s = DRAW_S if self._terminal else LINE_S
        if time.monotonic() - self._drawn_at >= pause_s or self.done == self._total:
            self.draw()

    async def reached(self, tasks: float) -> None:
        """Wait until all lenders together have done so many tasks."""
        while self.done < tasks:
            self._counted.clear()
            await self._counted.wait()

    def note(self, name: str, text: str) -> None:
        """Show `text` behind the bar of `name`."""
        self._notes[name] = text
        self.draw()

    def draw(self) -> None:
        """Show the bars as they are now, in place on a terminal."""
        self._drawn_at = time.monotonic()
        if not self._terminal:
            parts = [f"{name} {count}" for name, count in self._counts.items()]
            print(f"  {self.done:>4}/{self._total}  " + "  ".join(parts), flush=True)
            return
        lines = [
            f"  {name:<8} {_bar(count / self._total)} {count:>4}  {self._notes.get(name, '')}"
            for name, count in self._counts.items()
        ]
        lines.append(f"  {'all':<8} {_bar(self.done / self._total)} {self.done:>4}/{self._total}")
        up = f"\x1b[{self._drawn_lines}F" if self._drawn_lines else ""
        print(up + "".join(f"\x1b[2K{line}\n" for line in lines), end="", flush=True)
        self._drawn_lines = len(lines)

    def say(self, text: str) -> None:
        """Print a line that stays above the bars."""
        if self._terminal and self._drawn_lines:
            print(f"\x1b[{self._drawn_lines}F\x1b[0J", end="")
            self._drawn_lines = 0
        print(text, flush=True)
        self.draw()


def _bar(part: float) -> str:
    filled = round(part * WIDTH)
    return "█" * filled + "░" * (WIDTH - filled)
