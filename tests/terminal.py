"""A terminal for tests: runs a program in a real pty and keeps the screen that a person would see.

Understands what curses writes for TERM=xterm-256color and nothing more; an unknown sequence is an
error, so that a test can't pass on a screen that was misread.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable
from pathlib import Path

_CSI = re.compile(r"\x1b\[([?>]?)([0-9;]*)([A-Za-z@`])")
_IGNORED = re.compile(r"\x1b(?:[()][0AB]|[=>78M]|\][^\x07]*\x07)")


class Terminal:
    """One program on one screen.

    Attributes:
        shown: everything that was written, to look for sequences in it.
        code: of the ended program.
    """

    def __init__(
        self, command: list[str], environment: dict[str, str], lines: int = 24, columns: int = 80
    ) -> None:
        self.lines, self.columns = lines, columns
        self._cells = [[" "] * columns for _ in range(lines)]
        self._row = self._column = self._top = 0
        self._bottom = lines
        self._rest = ""
        self.shown = ""
        self.code: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
            os.execve(command[0], command, environment)
        self.settings = termios.tcgetattr(self._fd)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._fd, keys.encode())

    def resize(self, lines: int, columns: int) -> None:
        """Change the size; the kernel tells the program (SIGWINCH)."""
        self.lines, self.columns = lines, columns
        self._cells = [[" "] * columns for _ in range(lines)]
        self._row = self._column = self._top = 0
        self._bottom = lines
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def signal(self, number: signal.Signals) -> None:
        """Send the program a signal."""
        os.kill(self.pid, number)

    @property
    def text(self) -> str:
        """The screen, line by line, without blanks at their ends."""
        return "\n".join("".join(row).rstrip() for row in self._cells)

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
        """Read until the condition holds, with a bound."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, (
                f"not within {timeout_s} s: {what}\n{self.text}\n{self.shown[-2000:]!r}"
            )
            self._read(min(left, 0.2))

    def sees(self, text: str) -> None:
        """Wait until the screen shows it."""
        self.until(lambda: text in self.text, f"{text!r} on the screen")

    def ends(self) -> int:
        """Wait for the program's end; return its exit code (minus the signal that killed it)."""
        self.until(self._ended, "the program ends")
        assert self.code is not None
        return self.code

    def close(self) -> None:
        """End the program, however it is."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def _ended(self) -> bool:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.code = os.waitstatus_to_exitcode(status)
            self._read(0.0)
        return pid != 0

    def _read(self, timeout_s: float) -> None:
        while select.select([self._fd], [], [], timeout_s)[0]:
            try:
                part = os.read(self._fd, 1 << 16)
            except OSError:
                return  # the last process on the terminal is gone
            if not part:
                return
            self._show(part.decode(errors="replace"))
            timeout_s = 0.0

    def _show(self, text: str) -> None:
        self.shown += text
        text, self._rest = self._rest + text, ""
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                self._put(text[at])
                at += 1
            elif match := _CSI.match(text, at):
                self._control(match)
                at = match.end()
            elif match := _IGNORED.match(text, at):
                at = match.end()
            elif len(text) - at < 20:
                self._rest = text[at:]  # cut off in the middle of a sequence
                return
            else:
                raise AssertionError(f"unknown sequence {text[at : at + 20]!r}")

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._row = min(self.lines - 1, self._row + 1)
        elif char == "\b":
            self._column = max(0, self._column - 1)
        elif char.isprintable() and self._row < self.lines and self._column < self.columns:
            self._cells[self._row][self._column] = char
            self._column += 1

    def _control(self, match: re.Match[str]) -> None:  # noqa: C901, PLR0912 - a table of sequences
        private, numbers, letter = match.groups()
        if private or letter in "mhltc":
            if letter in "hl" and numbers == "1049":
                self._cells = [[" "] * self.columns for _ in range(self.lines)]
            return
        values = [int(n) if n else 0 for n in numbers.split(";")]
        first = max(1, values[0])
        if letter in "STLM":
            self._scroll(self._row if letter in "LM" else self._top, first, up=letter in "SM")
            return
        row = self._cells[self._row]
        match letter:
            case "H":
                self._row = first - 1
                self._column = max(1, values[1]) - 1 if len(values) > 1 else 0
            case "r":
                self._top = first - 1
                self._bottom = values[1] if len(values) > 1 else self.lines
                self._row = self._column = 0
            case "d":
                self._row = first - 1
            case "G":
                self._column = first - 1
            case "A":
                self._row = max(0, self._row - first)
            case "B":
                self._row = min(self.lines - 1, self._row + first)
            case "C":
                self._column = min(self.columns - 1, self._column + first)
            case "D":
                self._column = max(0, self._column - first)
            case "K" if values[0] == 0:
                row[self._column :] = [" "] * (self.columns - self._column)
            case "K" if values[0] == 1:
                row[: self._column + 1] = [" "] * (self._column + 1)
            case "J" if values[0] == 0:
                row[self._column :] = [" "] * (self.columns - self._column)
                for below in self._cells[self._row + 1 :]:
                    below[:] = [" "] * self.columns
            case "J":
                for one in self._cells:
                    one[:] = [" "] * self.columns
            case "X":
                row[self._column : self._column + first] = [" "] * first
            case "b":
                row[self._column : self._column + first] = [row[self._column - 1]] * first
                self._column += first
            case "P":
                row[self._column : self._column + first] = []
                row += [" "] * first
            case "@":
                row[self._column : self._column] = [" "] * first
                del row[self.columns :]
            case _:
                raise AssertionError(f"unknown sequence {match[0]!r}")

    def _scroll(self, top: int, count: int, *, up: bool) -> None:
        region = self._cells[top : self._bottom]
        blank = [[" "] * self.columns for _ in range(count)]
        moved = [*region[count:], *blank] if up else [*blank, *region[:-count]]
        self._cells[top : self._bottom] = moved[: len(region)]


def environment(state: Path, **more: str) -> dict[str, str]:
    """What a person's shell would give the command."""
    return {
        "LENDER_STATE": str(state),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        **more,
    }
