"""The file by which lenderd and a sandbox's proxies tell each other what was moved, and may be."""

import os
from pathlib import Path

import pytest

from lender.sandbox.egress.counters import UNBOUNDED, Counters, Moved


def test_one_counts_and_the_other_reads_and_says_how_much_more(tmp_path: Path) -> None:
    path = tmp_path / "L1.moved"
    ours = Counters.make(path)
    theirs = Counters.at(path)
    assert (theirs.read(), theirs.left()) == (Moved(), 0), "nothing before it is allowed"
    ours.allow(100)
    theirs.add(in_bytes=30, refused=1)
    theirs.add(out_bytes=20)
    theirs.add()
    assert ours.read() == Moved(30, 20, 1)
    assert theirs.left() == 50
    theirs.add(in_bytes=60)
    assert theirs.left() == 0
    for one in (ours, theirs):
        one.close()
    left_behind = Counters.at(path)
    assert left_behind.read() == Moved(90, 20, 1), "it outlives both"
    left_behind.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_file_there_is_no_bound() -> None:
    alone = Counters.at(None)
    alone.add(in_bytes=1 << 40)
    assert alone.left() == UNBOUNDED - (1 << 40)
    alone.close()


def test_what_a_sandbox_makes_of_its_file_harms_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "L1.moved"
    ours = Counters.make(path)
    ours.allow(UNBOUNDED)
    path.write_bytes(b"\xff" * 32)
    assert max(ours.read()) == 1 << 60
    path.write_bytes(b"\xff" * 7)
    assert (ours.read(), ours.left()) == (Moved(), 0)
    ours.close()
    with pytest.raises(FileExistsError):
        Counters.make(path)
    path.unlink()
    os.symlink("/etc/passwd", path)  # noqa: PTH211 - as an attacker would
    with pytest.raises(OSError, match="symbolic"):
        Counters.at(path)
