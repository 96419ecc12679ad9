"""What of a task's standard error is told while it runs."""

import pytest

from lender.sandbox.meters.task_log import BURST_BYTES, BYTES_PER_S, EVERY_S, TaskLog


def test_a_line_is_told_at_once_and_the_next_ones_together() -> None:
    log = TaskLog(10.0)
    log.add(10.0, b"first\n")
    assert log.due(10.0) == b"first\n"
    log.add(10.01, b"second\n")
    log.add(10.05, b"third\n")
    assert log.due(10.05) == b""
    assert log.due(10.0 + EVERY_S) == b"second\nthird\n"
    assert log.due(20.0) == b""
    assert log.last() == b""


def test_what_is_over_is_counted_in_a_line_of_its_own() -> None:
    log = TaskLog(0.0)
    log.add(0.0, b"x" * (BURST_BYTES + 5))
    assert log.due(0.0) == b"x" * BURST_BYTES
    log.add(0.0, b"y" * 7)
    assert log.due(1.0) == b"", "nothing fits yet"
    log.add(0.1, b"z\n")
    assert log.due(0.1) == b"", "too little to go on with"
    log.add(1.0, b"z\n")
    assert log.due(1.0) == b"\n[lender: 14 bytes left out]\nz\n"
    assert log.last() == b""


def test_at_the_end_nothing_is_kept_back() -> None:
    log = TaskLog(0.0)
    log.add(0.0, b"a line\n")
    assert log.due(0.0)
    log.add(0.01, b"the end\n")
    log.add(0.01, b"x" * 2 * BURST_BYTES)
    told = log.last()
    assert told.startswith(b"the end\nx")
    left_out = 2 * BURST_BYTES - told.count(b"x")
    assert told.endswith(b"\n[lender: %d bytes left out]\n" % left_out)


@pytest.mark.parametrize("piece_bytes", [1, 100, 2000])
def test_over_time_no_more_passes_than_burst_and_rate_allow(piece_bytes: int) -> None:
    log, told, now = TaskLog(0.0), 0, 0.0
    while now < 20.0:
        log.add(now, b"x" * piece_bytes * 50)
        told += len(log.due(now))
        now += 0.02
    told += len(log.last())
    allowed = BURST_BYTES + 20.0 * BYTES_PER_S
    written = 1000 * piece_bytes * 50
    assert min(written, allowed * 0.95) <= told <= allowed + 100


def test_a_pause_fills_no_more_than_a_burst() -> None:
    log = TaskLog(0.0)
    log.add(0.0, b"x" * BURST_BYTES)
    log.due(0.0)
    log.add(3600.0, b"x" * 2 * BURST_BYTES)
    assert log.due(3600.0).count(b"x") == BURST_BYTES
