"""A terminal that a program types into: tmux, on a socket of its own, gone with who started it."""

import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.fleet import wait_until
from deploy.local.guard import Guard

PROMPT = "$ "
COLUMNS, LINES = 110, 24
WITHIN_S = 90.0
"""Whole machines start processes for each line that is typed."""


class Screen:
    """One pane with a shell; `with Screen(...) as screen`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Prepare a shell in `folder` that has this environment and no settings of anybody's."""
        self._folder = folder
        self._environment = dict(environment)
        self._guard = Guard()

    def __enter__(self) -> Self:
        shell = ["env", *(f"{name}={value}" for name, value in self._environment.items())]
        shell += [f"PS1={PROMPT}", "bash", "--norc", "--noprofile", "-i"]
        size = ("-x", str(COLUMNS), "-y", str(LINES))
        session = ("new-session", "-d", *size, "-c", str(self._folder), shlex.join(shell))
        self._tmux("-f", "/dev/null", *session)
        self._guard.watch(int(self._tmux("display-message", "-p", "#{pid}")))
        self.until("$")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._guard.close()  # ends tmux, and the shell below it

    def type(self, line: str) -> None:
        """Type a line, and Enter."""
        self._tmux("send-keys", "-l", "--", line)
        self._tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        """Press one key, as tmux calls it: `C-c`."""
        self._tmux("send-keys", key)

    def clear(self) -> None:
        """Begin with an empty screen."""
        self._tmux("send-keys", "clear", "Enter")
        wait_until(lambda: self.shown() == PROMPT.strip(), "an empty screen", WITHIN_S)

    def shown(self) -> str:
        """Return what stands there, without the empty lines below it."""
        return self._tmux("capture-pane", "-p").rstrip()

    def until(self, pattern: str) -> str:
        """Wait until what matches a regular expression stands there; returns all that does then.

        Raises:
            FleetError: it does not come.
        """
        seen: list[str] = []

        def stands() -> bool:
            seen.append(self.shown())
            return re.search(pattern, seen[-1]) is not None

        wait_until(stands, f"{pattern!r} on the screen", WITHIN_S)
        return seen[-1]

    def until_prompt(self) -> str:
        """Wait until the shell asks for more; returns what stands above."""

        def asks() -> bool:
            time.sleep(0.05)
            return self.shown().splitlines()[-1:] == [PROMPT.strip()]

        wait_until(asks, "the end of the command", WITHIN_S)
        return self.shown().removesuffix(PROMPT.strip()).rstrip()

    def _tmux(self, *words: str) -> str:
        command: Sequence[str] = ("tmux", "-S", str(self._folder / "tmux"), *words)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout
