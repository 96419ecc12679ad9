"""What people see while files travel: a bar, lines in a pipe, nothing of what takes no time."""

import io
from dataclasses import replace

import pytest

from lender.cli.progress import Progress
from lender.cli.transfers import Transfers
from lender.client import TaskRecord, TaskResult, Transfer

MIB = 1 << 20
FILE = Transfer("big.bin", to_fleet=True, done_bytes=0, total_bytes=100 * MIB)


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class Shown:
    """A stream, and the clock of who writes to it."""

    def __init__(self, *, terminal: bool) -> None:
        self.now = 0.0
        self.stream = Stream(terminal=terminal)
        self.transfers = Transfers(self.stream, lambda: self.now)

    def after(self, seconds: float, one: Transfer, done_mib: int) -> str:
        """What comes once it has come so far."""
        self.now += seconds
        before = len(self.stream.getvalue())
        self.transfers.take(replace(one, done_bytes=done_mib * MIB))
        return self.stream.getvalue()[before:]


def test_a_terminal_gets_a_bar_that_goes_and_a_line_that_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    shown = Shown(terminal=True)
    assert shown.after(0, FILE, 0) == f"\r\x1b[K[{'.' * 30}] sending big.bin: 0 bytes o"
    # Its file is read first, which is no time of the line's.
    assert "big.bin: 10 MiB of" in shown.after(10.0, FILE, 10)
    assert shown.after(0.01, FILE, 10) == "", "it is redrawn more often than anybody reads"
    monkeypatch.setenv("COLUMNS", "120")
    half = shown.after(0.99, FILE, 50)
    assert half == f"\r\x1b[K[{'#' * 15}{'.' * 15}] sending big.bin: 50 MiB of 100 MiB, 40 MiB/s"
    assert shown.after(1, FILE, 100) == "\r\x1b[Klender: sent big.bin: 100 MiB in 12.0 s\n"
    fetched = replace(FILE, name="", to_fleet=False)
    assert "fetching a value: 60 MiB of 100 MiB" in shown.after(0, fetched, 60)
    shown.transfers.close()
    assert shown.stream.getvalue().endswith("\r\x1b[K"), (
        "half a bar stands before what is said next"
    )


def test_a_pipe_gets_a_line_every_two_seconds() -> None:
    shown = Shown(terminal=False)
    assert [shown.after(1, FILE, 20 * n) for n in range(5)] == [
        "",
        "",
        "lender: sending big.bin: 40 MiB of 100 MiB, 20 MiB/s\n",
        "",
        "lender: sending big.bin: 80 MiB of 100 MiB, 20 MiB/s\n",
    ]
    assert shown.after(1, FILE, 100) == "lender: sent big.bin: 100 MiB in 5.0 s\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_small_or_there_already_is_not_told_of(*, terminal: bool) -> None:
    shown = Shown(terminal=terminal)
    small = replace(FILE, total_bytes=2 * MIB)
    for one in (small, replace(small, name="another")):
        assert [shown.after(0.01, one, done) for done in (0, 1, 2)] == ["", "", ""]
    assert shown.after(1, replace(FILE, total_bytes=20 * MIB), 20) == ""
    assert shown.after(5, replace(FILE, total_bytes=20 * MIB), 20) == ""
    shown.transfers.close()
    assert shown.stream.getvalue() == ""


def test_who_wants_it_quiet_is_told_of_failures_alone() -> None:
    stream = Stream(terminal=True)
    progress = Progress(1, stream, quiet=True)
    progress.count(TaskRecord(TaskResult(task=0, state="failed"), "U", 1))
    progress.say("task 0 failed")
    progress.close()
    assert stream.getvalue() == "task 0 failed\n"
