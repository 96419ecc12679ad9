"""The receipt log shows every edit, removal, reordering and cut, and repairs a torn line aloud."""

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lender.state.receipts import ReceiptLog

Lines = list[bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = ReceiptLog(tmp_path / "receipts.jsonl")
    for number in range(1, 6):
        assert log.append({"job": f"job-{number}", "ended": 'by "you" · 1'}) == number
    return tmp_path / "receipts.jsonl"


def kinds(path: Path) -> set[str]:
    return {finding.kind for finding in ReceiptLog(path).verify()}


def test_an_untouched_log_has_no_findings(path: Path) -> None:
    assert ReceiptLog(path).verify() == []
    assert [r["job"] for r in ReceiptLog(path).read()] == [f"job-{n}" for n in range(1, 6)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_empty_log_has_no_findings(tmp_path: Path) -> None:
    assert ReceiptLog(tmp_path / "none.jsonl").verify() == []
    assert list(ReceiptLog(tmp_path / "none.jsonl").read()) == []


def test_another_process_goes_on_where_the_first_ended(path: Path) -> None:
    assert ReceiptLog(path).append({"job": "job-6"}) == 6
    assert ReceiptLog(path).verify() == []


def edit(lines: Lines) -> Lines:
    return [*lines[:2], lines[2].replace(b"job-3", b"job-9"), *lines[3:]]


def remove(lines: Lines) -> Lines:
    return [*lines[:2], *lines[3:]]


def remove_two(lines: Lines) -> Lines:
    return [*lines[:1], *lines[3:]]


def remove_first(lines: Lines) -> Lines:
    return lines[1:]


def swap(lines: Lines) -> Lines:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def repeat(lines: Lines) -> Lines:
    return [*lines, lines[-1]]


def cut(lines: Lines) -> Lines:
    return lines[:3]


def cut_all(_lines: Lines) -> Lines:
    return []


def tear(lines: Lines) -> Lines:
    return [*lines[:4], lines[4][:20]]


def blank(lines: Lines) -> Lines:
    return [*lines[:2], b"\n", *lines[3:]]


def append_foreign(lines: Lines) -> Lines:
    return [*lines, b'{"seq":6,"job":"made up"}\n']


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (edit, "edited"),
        (blank, "edited"),
        (append_foreign, "edited"),
        (remove, "removed"),
        (remove_two, "removed"),
        (remove_first, "removed"),
        (swap, "reordered"),
        (repeat, "reordered"),
        (cut, "truncated"),
        (cut_all, "truncated"),
        (tear, "torn"),
    ],
)
def test_a_change_shows(path: Path, change: Callable[[Lines], Lines], kind: str) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))
    assert kind in kinds(path)


@pytest.mark.parametrize("change", [edit, remove, remove_first, swap, cut, cut_all])
def test_it_still_shows_after_more_was_written(
    path: Path, change: Callable[[Lines], Lines]
) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    ReceiptLog(path).append({"job": "later"})
    ReceiptLog(path).append({"job": "later still"})
    assert kinds(path)


def test_an_edit_with_a_fitting_hash_breaks_the_chain(path: Path, tmp_path: Path) -> None:
    forged = ReceiptLog(tmp_path / "forged.jsonl")
    for number in range(1, 6):
        forged.append({"job": f"job-{number if number != 3 else 9}"})
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = (tmp_path / "forged.jsonl").read_bytes().splitlines(keepends=True)[2]
    path.write_bytes(b"".join(lines))
    assert "edited" in kinds(path)


def test_a_whole_other_log_does_not_fit_the_head(path: Path, tmp_path: Path) -> None:
    forged = ReceiptLog(tmp_path / "forged.jsonl")
    for number in range(1, 7):
        forged.append({"job": f"job-{number}", "forged": True})
    path.write_bytes((tmp_path / "forged.jsonl").read_bytes())
    assert "head" in kinds(path)


def test_a_missing_or_broken_head_shows(path: Path) -> None:
    head = path.with_suffix(".head")
    head.write_text("{")
    assert kinds(path) == {"head"}
    head.unlink()
    assert kinds(path) == {"head"}
    ReceiptLog(path).append({"job": "job-6"})
    assert "receipts.head was missing" in str(list(ReceiptLog(path).read()))


def test_a_crash_between_line_and_head_is_no_fault(path: Path) -> None:
    head = path.with_suffix(".head")
    before = head.read_bytes()
    ReceiptLog(path).append({"job": "job-6"})
    head.write_bytes(before)
    assert ReceiptLog(path).verify() == []
    assert ReceiptLog(path).append({"job": "job-7"}) == 7
    assert ReceiptLog(path).verify() == []


def test_a_head_far_behind_shows(path: Path) -> None:
    head = path.with_suffix(".head")
    before = head.read_bytes()
    log = ReceiptLog(path)
    log.append({"job": "job-6"})
    log.append({"job": "job-7"})
    head.write_bytes(before)
    assert kinds(path) == {"head"}


def test_a_torn_last_line_is_set_aside_and_told(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"seq":6,"prev":"ab')
    assert ReceiptLog(path).append({"job": "after the crash"}) == 7
    assert ReceiptLog(path).verify() == []
    entries = list(ReceiptLog(path).read())
    assert entries[5]["kind"] == "repair"
    assert "19 bytes of a cut line set aside" in entries[5]["note"]
    assert path.with_suffix(".torn").read_bytes() == b'{"seq":6,"prev":"ab\n'


def test_a_line_that_could_not_be_written_leaves_no_trace(path: Path) -> None:

    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = ReceiptLog(path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        with pytest.raises(OSError, match="too large"):
            log.append({"job": "job-6"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.stat().st_size == size
    assert log.append({"job": "job-6"}) == 6
    assert log.verify() == []
