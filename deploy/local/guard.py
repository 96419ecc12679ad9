"""Ends what a fleet has started once whoever started it is gone, also where that was killed.

It is a process of its own, at the far end of a pipe over which it is told each process id; the
pipe's end says that nobody looks after them any more. A parent-death signal (prctl(2),
PR_SET_PDEATHSIG) would not do: lenderd loses it where it becomes an ordinary user, and it comes
with the end of the thread that started it, too.
"""

import contextlib
import subprocess
import sys

from lender.sandbox.processes import tree


class Guard:
    """The near end of the pipe; the process starts with the first one that it is to watch."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def watch(self, pid: int) -> None:
        """Have this process, and all below it, end with us."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", __file__],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,  # what is sent to our group is not for it
            )
        assert self._process.stdin is not None
        print(pid, file=self._process.stdin, flush=True)

    def close(self) -> None:
        """Let go: what it watches and still runs ends now."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


def main() -> None:
    """Take process ids until the pipe ends, then kill what is left of their trees."""
    watched: list[tree.Root] = []
    for line in sys.stdin:
        with contextlib.suppress(ProcessLookupError):
            watched.append(tree.identify(int(line)))
    tree.kill(watched)


if __name__ == "__main__":
    main()
