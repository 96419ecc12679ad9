"""Each attempt that a killed lenderd leaves behind gets its receipt, once."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lender.daemon import leftovers
from lender.sandbox import tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords
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


def left_behind(state: StateFolder, lease: str, *pids: int) -> None:
    scratch = state.scratch / lease
    scratch.mkdir()
    (scratch / "file").write_text("x")
    roots = tuple(tree.identify(pid) for pid in pids)
    AttemptRecords(state.attempts).write(
        AttemptRecord(lease, f"job-{lease}", "U1", "render", "G-1", roots, scratch)
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


def test_a_record_stays_until_its_receipt_is_on_the_disk(state: StateFolder) -> None:
    left_behind(state, "L1")
    leftovers.clear(state, ReceiptLog(state.path / "no-such-folder" / "log.jsonl"), 2000.0)
    assert [path.name for path in state.attempts.iterdir()] == ["L1.json"]
    assert list(state.scratch.iterdir()) == []
