"""The tasks that every peer runs. Needs nothing but the standard library."""

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

BUSY_S = 60.0
TRUE = "/bin/true"


def noop() -> None:
    """Do nothing."""


def many(count: int) -> int:
    """Do nothing, so many times: what peers run that take many calls to a message."""
    for _ in range(count):
        noop()
    return count


def true() -> None:
    """Run a program that does nothing."""
    subprocess.run([TRUE], check=True)


def busy(path: str) -> None:
    """Say who runs it and since when, a line for each start; then compute, and count aloud.

    Who stops it sees by the counter beside `path` when it no longer runs.
    """
    with mark_start(Path(path)) as beats:
        end = time.monotonic() + BUSY_S
        count = 0
        while time.monotonic() < end:
            count += 1
            beats[:8] = count.to_bytes(8, "little")


def mark_start(path: Path, pid: int | None = None) -> mmap.mmap:
    """Write a line with process id (ours) and monotonic time; return the counter's memory."""
    counter = path.with_suffix(".beats")
    counter.write_bytes(bytes(8))
    with counter.open("r+b") as shared:
        beats = mmap.mmap(shared.fileno(), 8)
    with path.open("a") as starts:
        starts.write(f"{pid or os.getpid()} {time.monotonic()}\n")
    return beats


def starts(path: Path) -> list[tuple[int, float]]:
    """Read who started the busy task, and when."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(pid), float(at)) for pid, at in (line.split() for line in lines)]


if __name__ == "__main__":
    busy(sys.argv[1])
