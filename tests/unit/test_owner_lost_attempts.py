"""Each attempt that a killed lenderd leaves behind gets its receipt, once."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lender.core.budget import Usage
from lender.daemon import leftovers
from lender.daemon.usage_recall import used_since
from lender.sandbox.processes import tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords, AttemptTerms
from lender.state.closing_receipts import closing_receipt
from lender.state.folder import StateFolder
from lender.state.receipts import ReceiptLog


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        yield process.pid
        process.kill()


def left_behind(
    state: StateFolder, lease: str, *pids: int, terms: AttemptTerms | None = None
) -> None:
    scratch = state.scratch / lease
    scratch.mkdir()
    (scratch / "file").write_text("x")
    roots = tuple(tree.identify(pid) for pid in pids)
    AttemptRecords(state.attempts).write(
        AttemptRecord(
            lease, f"job-{lease}", "U1", "render", "G-1", roots, str(scratch), None, terms
        )
    )
    os.utime(state.attempts / f"{lease}.json", (1000.0, 1000.0))


def test_it_is_killed_wiped_and_written_down(state: StateFolder, sleeper: int) -> None:
    root = tree.identify(sleeper)
    left_behind(state, "L1", sleeper)
    left_behind(state, "L2")
    log = ReceiptLog(state.receipts)
    leftovers.clear(state, log, 2000.0)
    assert [(one["lease"], one["outcome"], one["ended"]) for one in log.read()] == [
        ("L1", "lost", "lenderd died"),
        ("L2", "lost", "lenderd died"),
    ]
    first = next(log.read())
    assert (first["job"], first["grant"], first["submitter"]) == ("job-L1", "G-1", "U1")
    assert (first["started_at"], first["ended_at"]) == (1000.0, 2000.0)
    assert not tree.alive(root)
    assert list(state.scratch.iterdir()) == list(state.attempts.iterdir()) == []
    leftovers.clear(state, log, 3000.0)
    assert len(list(log.read())) == 2


def test_what_was_written_before_the_kill_is_not_written_again(state: StateFolder) -> None:
    left_behind(state, "L1")
    log = ReceiptLog(state.receipts)
    log.append({"lease": "L1", "outcome": "succeeded"})
    leftovers.clear(state, log, time.time())
    assert [one["outcome"] for one in log.read()] == ["succeeded"]
    assert list(state.attempts.iterdir()) == []


def test_what_earlier_attempts_used_in_the_same_cgroup_is_not_charged_again(
    state: StateFolder,
) -> None:
    terms = AttemptTerms(1000.0, 2, 0, None, (), cpu_before_s=30.0)
    left_behind(state, "L1", terms=terms)
    (record,) = AttemptRecords(state.attempts).read_all().records
    for counted_s, charged_s in ((37.5, 7.5), (4.0, 4.0)):  # or in one that was made anew
        fields = closing_receipt(
            record,
            "lost",
            "lenderd died",
            written_at=1000.0,
            ran_until=2000.0,
            ended_at=2000.0,
            cpu_s=counted_s,
        )
        assert fields["cpu_s"] == charged_s


def test_a_record_stays_until_its_receipt_is_on_the_disk(state: StateFolder) -> None:
    left_behind(state, "L1")
    leftovers.clear(state, ReceiptLog(state.path / "no-such-folder" / "log.jsonl"), 2000.0)
    assert [path.name for path in state.attempts.iterdir()] == ["L1.json"]
    assert list(state.scratch.iterdir()) == []


TERMS = AttemptTerms(900.0, 4, 5000, "ab" * 32, (("in.npz", "cd" * 32),))


def test_a_crash_does_not_lift_a_budget(state: StateFolder) -> None:
    left_behind(state, "L1", terms=TERMS._replace(traceparent="00-1-2-01"))
    log = ReceiptLog(state.receipts)
    leftovers.clear(state, log, 2000.0)
    (told,) = log.read()
    assert told["traceparent"] == "00-1-2-01"
    assert (told["started_at"], told["ended_at"]) == (900.0, 2000.0)
    assert (told["program_sha256"], told["inputs"]) == ("ab" * 32, [["in.npz", "cd" * 32]])
    assert told["cpu_method"].startswith("estimate")
    assert list(used_since(0.0, log.read_back())) == [("G-1", 2000.0, Usage(4400.0, 5000, 0.0))]


@pytest.mark.parametrize(
    ("last_reading_at", "cpu_s"),
    [
        (1500.0, 4 * (1500.0 + 600.0 - 900.0)),
        (999_990.0, 4 * (1_000_000.0 - 900.0)),
        (100.0, 4 * (1_000_000.0 - 900.0)),  # says nothing about an attempt that came later
    ],
)
def test_days_without_power_are_not_charged(
    state: StateFolder, last_reading_at: float, cpu_s: float
) -> None:
    left_behind(state, "L1", terms=TERMS)
    (state.path / "signals").mkdir()
    for number, at in ((1, 50.0), (2, last_reading_at)):
        block = state.path / "signals" / f"{number:08d}.signals"
        block.touch()
        os.utime(block, (at, at))
    log = ReceiptLog(state.receipts)
    leftovers.clear(state, log, 1_000_000.0)
    assert [one["cpu_s"] for one in log.read()] == [cpu_s]


def test_a_clock_that_was_set_back_charges_nothing_negative(state: StateFolder) -> None:
    left_behind(state, "L1", terms=TERMS)
    log = ReceiptLog(state.receipts)
    leftovers.clear(state, log, 800.0)
    assert [one["cpu_s"] for one in log.read()] == [0.0]
