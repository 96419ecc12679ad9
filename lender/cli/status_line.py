"""A line that is drawn over again while something goes on; in a pipe a new one now and then."""

import shutil
from typing import Final, TextIO

ERASE: Final = "\r\x1b[K"
"""Empties the line of a terminal that the cursor is in."""

_BAR_CHARS: Final = 30
_REDRAW_S: Final = 0.1
_LINE_EVERY_S: Final = 2.0


class StatusLine:
    """That of one stream.

    Attributes:
        on_terminal: it is drawn over; else each is a line of its own.
        pause_s: between two of them, as people read.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.on_terminal = stream.isatty()
        self.pause_s = _REDRAW_S if self.on_terminal else _LINE_EVERY_S

    def show(self, text: str) -> None:
        """Draw it, as much of it as has room."""
        if self.on_terminal:
            self.print(f"{ERASE}{text[: shutil.get_terminal_size().columns - 1]}")
        else:
            self.print(f"{text}\n")

    def clear(self) -> None:
        """Take it away, where it was drawn over."""
        if self.on_terminal:
            self.print(ERASE)

    def print(self, text: str) -> None:
        """Write as it is, and at once."""
        self._stream.write(text)
        self._stream.flush()


def bar(done: int, total: int) -> str:
    """Return how much of it is done, as a bar of always the same width."""
    filled = _BAR_CHARS * done // max(total, 1)
    return f"[{'#' * filled}{'.' * (_BAR_CHARS - filled)}]"
