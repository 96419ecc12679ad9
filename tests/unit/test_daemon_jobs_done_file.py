"""What was done of each job outlives lenderd, in a file that does not grow without end."""

import os
from pathlib import Path

import pytest

from lender.core.jobs_done import JobDone
from lender.daemon.jobs_done_file import JobsDoneFile


def done(number: int, taken: int = 1) -> JobDone:
    return JobDone(f"{number:032x}", taken, taken + 1)


def test_what_was_kept_is_read_in_its_order(tmp_path: Path) -> None:
    file = JobsDoneFile(tmp_path / "jobs-done")
    assert list(file.read()) == []
    for one in (done(1), done(2), done(1, 5)):
        file.append(one)
    file.close()
    again = JobsDoneFile(tmp_path / "jobs-done")
    assert list(again.read()) == [done(1), done(2), done(1, 5)]
    assert (tmp_path / "jobs-done").stat().st_mode & 0o777 == 0o600
    again.close()


def test_a_full_file_takes_the_place_of_the_one_before_it(tmp_path: Path) -> None:
    file = JobsDoneFile(tmp_path / "jobs-done", lines_max=3)
    kept = []
    for number in range(10):
        file.append(done(number))
        kept = [int(one.key, 16) for one in file.read()]
        assert len(kept) <= 6
        assert kept[-3:] == list(range(number + 1))[-3:], "the last are there"
    file.close()
    again = JobsDoneFile(tmp_path / "jobs-done", lines_max=3)
    assert [int(one.key, 16) for one in again.read()] == kept
    again.append(done(10))
    again.append(done(11))
    assert len(list(again.read())) <= 6, "what an earlier run wrote counts"
    again.close()


def test_lines_that_were_cut_off_or_damaged_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "jobs-done"
    whole = f"{done(1).key} 1 2"
    path.write_bytes(f"{whole}\n{whole} 3\n\xff\n{whole[:20]}\n{'x' * 32} 1 1\n".encode() + b"ab")
    file = JobsDoneFile(path)
    assert list(file.read()) == [done(1)]
    file.close()


def test_a_disk_that_is_full_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = JobsDoneFile(tmp_path / "jobs-done")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._file)
    os.close(full)
    file.append(done(1))
    assert "is not on the disk" in caplog.text
    file.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "jobs-done").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        JobsDoneFile(tmp_path / "jobs-done")
