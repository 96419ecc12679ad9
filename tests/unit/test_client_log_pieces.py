"""A task's log is put together from what was published and from its result: no byte twice."""

import tracemalloc

from lender.client.collector import TaskRecord
from lender.client.log_pieces import LogAssembly, LogPiece
from lender.protocol.bounds import STDERR_TAIL_BYTES_MAX
from lender.protocol.result import TaskResult
from lender.protocol.task_log import TaskLogPiece

L = "U" + "L" * 55


def said(content: bytes, offset: int = 0, task: int = 0, attempt: int = 1) -> TaskLogPiece:
    return TaskLogPiece(task=task, attempt=attempt, offset_bytes=offset, content=content)


def take(log: LogAssembly, lender: str, message: TaskLogPiece, now: float = 0.0) -> LogPiece | None:
    """What is new in a message, where it is one piece at most."""
    pieces = log.take(lender, message, now)
    assert len(pieces) <= 1
    return pieces[0] if pieces else None


def ended(tail: bytes, task: int = 0, attempt: int = 1) -> TaskRecord:
    return TaskRecord(TaskResult(task=task, state="succeeded", stderr_tail=tail), L, attempt)


def test_what_comes_in_order_misses_nothing() -> None:
    log = LogAssembly(1)
    assert take(log, L, said(b"one\n")) == LogPiece(0, 1, L, b"one\n")
    assert take(log, L, said(b"two\n", 4)) == LogPiece(0, 1, L, b"two\n")
    assert log.end(ended(b"one\ntwo\n")) == LogPiece(0, 1, L, b"", last=True)
    assert take(log, L, said(b"late\n", 8)) is None
    assert log.end(ended(b"one\ntwo\n")) is None


def test_a_gap_is_counted() -> None:
    log = LogAssembly(1)
    late = take(log, L, said(b"d", 3))
    assert late is not None
    assert late.missed_bytes == 3
    gap = take(log, L, said(b"g", 6))
    assert gap is not None
    assert gap.missed_bytes == 2


def test_what_was_left_out_of_tasks_that_nobody_saw_is_counted_too() -> None:
    log = LogAssembly(9)
    message = said(b"x", task=8).model_copy(update={"left_out_bytes": 700})
    piece = take(log, L, message)
    assert piece is not None
    assert piece.missed_bytes == 700


def test_what_comes_twice_is_told_once() -> None:
    log = LogAssembly(1)
    take(log, L, said(b"one\n"))
    assert take(log, L, said(b"one\n")) is None
    assert take(log, L, said(b"e\ntwo\n", 2)) == LogPiece(0, 1, L, b"two\n")


def test_a_copy_on_another_machine_is_not_cut_into_it() -> None:
    log, other = LogAssembly(1), "U" + "M" * 55
    assert take(log, L, said(b"one\n")) == LogPiece(0, 1, L, b"one\n")
    assert take(log, other, said(b"ONE\nTWO\n")) is None
    assert take(log, L, said(b"two\n", 4)) == LogPiece(0, 1, L, b"two\n")
    result = TaskResult(task=0, state="succeeded", stderr_tail=b"ONE\nTWO\n")
    won = log.end(TaskRecord(result, other, 1))
    assert won == LogPiece(0, 1, other, b"ONE\nTWO\n", last=True), "whose result counts"


def test_another_attempt_begins_anew() -> None:
    log = LogAssembly(1)
    take(log, L, said(b"one\n"))
    assert take(log, L, said(b"ONE\n", attempt=2)) == LogPiece(0, 2, L, b"ONE\n")
    assert take(log, L, said(b"two\n", 4, attempt=1)) is None
    assert log.end(ended(b"one, in a third\n", attempt=3)) == LogPiece(
        0, 3, L, b"one, in a third\n", last=True
    )


def test_an_attempt_is_followed_as_long_as_it_goes_on_and_a_later_one_from_its_beginning() -> None:
    """The later one is a copy, or takes the place of one that is gone."""
    log, other = LogAssembly(2), "U" + "M" * 55
    take(log, L, said(b"one\n"), now=0.0)
    assert take(log, other, said(b"ONE\n", attempt=2), now=2.0) is None
    assert take(log, L, said(b"two\n", 4), now=2.5) == LogPiece(0, 1, L, b"two\n")
    assert take(log, other, said(b"TWO\n", 4, attempt=2), now=5.0) is None
    assert log.overdue(5.4) == []
    assert log.overdue(5.5) == [
        LogPiece(0, 2, other, b"ONE\n"),
        LogPiece(0, 2, other, b"TWO\n"),
    ]
    assert log.overdue(99.0) == []
    assert take(log, L, said(b"three\n", 8), now=99.0) is None
    take(log, L, said(b"one\n", task=1), now=0.0)
    take(log, other, said(b"ONE\n", task=1, attempt=2), now=2.0)
    assert log.take(other, said(b"TWO\n", 4, task=1, attempt=2), 3.0) == [
        LogPiece(1, 2, other, b"ONE\n"),
        LogPiece(1, 2, other, b"TWO\n"),
    ]


def test_what_is_held_of_copies_is_bounded_and_ends_with_its_task() -> None:
    log, other, count = LogAssembly(1000), "U" + "M" * 55, 1000
    for task in range(count):
        take(log, L, said(b"x", task=task))
        take(log, other, said(b"%8192d" % task, task=task, attempt=2))
    log.end(ended(b"x", task=count - 1))
    assert len(log.overdue(10.0)) < 200


def test_the_end_comes_with_the_result_where_it_was_not_seen() -> None:
    log = LogAssembly(3)
    take(log, L, said(b"one\n"))
    last = log.end(ended(b"one\ntwo\n"))
    assert last == LogPiece(0, 1, L, b"two\n", last=True)
    assert log.end(ended(b"all of it\n", task=1)) == LogPiece(1, 1, L, b"all of it\n", last=True)
    assert log.end(ended(b"", task=2)) is None


def test_where_the_cut_end_joins_nothing_that_was_seen_some_is_missing() -> None:
    tail = b"%05d\n" * (STDERR_TAIL_BYTES_MAX // 6) % tuple(range(STDERR_TAIL_BYTES_MAX // 6))
    tail = tail.rjust(STDERR_TAIL_BYTES_MAX, b"\n")
    log = LogAssembly(3)
    take(log, L, said(b"0\n"))  # whose last byte is, by chance, the tail's first
    last = log.end(ended(tail))
    assert last == LogPiece(0, 1, L, tail, missed_bytes=None, last=True)
    unseen = log.end(ended(tail, task=1))
    assert unseen is not None
    assert unseen.missed_bytes is None
    take(log, L, said(b"before\n" + tail[:-12], task=2))
    assert log.end(ended(tail, task=2)) == LogPiece(2, 1, L, tail[-12:], last=True)


def test_who_comes_late_is_told_nothing_twice() -> None:
    log = LogAssembly(2)
    late = take(log, L, said(b"two\n", 4))
    assert late == LogPiece(0, 1, L, b"two\n", missed_bytes=4)
    assert log.end(ended(b"one\ntwo\nthree\n")) == LogPiece(0, 1, L, b"three\n", last=True)
    tail = b"".join(b"%07d\n" % number for number in range(STDERR_TAIL_BYTES_MAX // 8))
    take(log, L, said(b"long before\n", task=1))
    take(log, L, said(tail[800:4000], 20_000, task=1))
    assert log.end(ended(tail, task=1)) == LogPiece(1, 1, L, tail[4000:], last=True)


def test_a_task_that_the_job_does_not_have_is_passed_over() -> None:
    log = LogAssembly(2)
    assert take(log, L, said(b"x", task=2)) is None
    assert log.end(ended(b"x", task=2)) is None


def test_who_writes_for_every_task_fills_no_memory() -> None:
    count = 20_000
    log = LogAssembly(count)
    tracemalloc.start()
    try:
        for task in range(count):
            assert take(log, L, said(b"%8192d" % task, task=task)) is not None
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 64 << 20
    more = b"%8192d" % count
    first = log.end(ended(more, task=0))
    assert first == LogPiece(0, 1, L, more, missed_bytes=None, last=True)
    last = log.end(ended(b"%8192d" % (count - 1), task=count - 1))
    assert last == LogPiece(count - 1, 1, L, b"", last=True)
