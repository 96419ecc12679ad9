"""What goes out of the logs of a lender's tasks: to who listens, in turns, never too much."""

from collections import Counter

from lender.daemon.log_queues import (
    ANSWER_S,
    ASK_AGAIN_S,
    BURST_BYTES,
    BYTES_PER_S,
    KEPT_BYTES_MAX,
    MESSAGE_BYTES,
    LogQueues,
    Outgoing,
)
from lender.protocol.bounds import LOG_PIECE_BYTES_MAX
from lender.protocol.task_log import TaskLogPiece

LINE = b"a line\n"


def drained(queues: LogQueues, now: float) -> list[Outgoing]:
    """All that goes out at once."""
    found = []
    while (one := queues.next(now)) is not None:
        found.append(one)
    return found


def pieces(outgoing: list[Outgoing]) -> list[TaskLogPiece]:
    return [one.piece for one in outgoing]


def heard(*leases: str, at: float = 0.0) -> LogQueues:
    """Queues to which somebody listens, with the burst still to come."""
    queues = LogQueues(at - 100.0)
    for lease in leases:
        queues.open(lease, f"log.S.{lease}.L", 1)
        queues.add(lease, 0, b"first\n")
        assert len(drained(queues, at - 10.0)) == 1
    return queues


def test_the_first_piece_is_the_question_and_the_rest_waits_for_the_complaint() -> None:
    queues = LogQueues(0.0)
    queues.open("one", "log.S.J.L", 3)
    assert queues.wait_s(0.0) is None
    assert queues.add("one", 5, b"1\n")
    assert not queues.add("one", 5, b"2\n")
    (asked,) = drained(queues, 0.0)
    wanted = TaskLogPiece(task=5, attempt=3, offset_bytes=0, content=b"1\n")
    assert asked == ("one", "log.S.J.L", wanted)
    assert queues.wait_s(0.0) == ANSWER_S
    queues.nobody_heard(0.1, "one")
    assert drained(queues, 0.1 + ASK_AGAIN_S / 2) == []
    (again,) = drained(queues, 0.1 + ASK_AGAIN_S)
    assert again == asked
    (rest,) = drained(queues, 0.1 + ASK_AGAIN_S + ANSWER_S)
    assert (rest.piece.offset_bytes, rest.piece.content) == (2, b"2\n")
    assert queues.wait_s(100.0) is None


def test_leases_of_one_job_ask_once() -> None:
    queues = LogQueues(0.0)
    queues.open("one", "log.S.J.L", 1)
    queues.add("one", 0, LINE)
    assert len(drained(queues, 0.0)) == 1
    queues.open("next", "log.S.J.L", 1)
    queues.close("one")
    queues.add("next", 1, LINE)
    queues.add("next", 2, LINE)
    assert len(drained(queues, ANSWER_S)) == 2


def test_who_went_away_is_asked_for_again() -> None:
    queues = heard("one")
    for at in range(3):
        queues.add("one", 0, LINE)
        assert len(drained(queues, at / 100)) == 1
    queues.nobody_heard(1.0, "one")
    queues.add("one", 0, LINE)
    assert drained(queues, 1.5) == []
    assert len(drained(queues, 2.0)) == 1


def test_what_nobody_reads_is_kept_up_to_a_bound_and_the_oldest_goes() -> None:
    queues = LogQueues(0.0)
    queues.open("one", "log.S.J.L", 1)
    for task in range(100_000):
        queues.add("one", task, LINE)
    kept = len(queues._queues["one"]._pieces)
    assert kept == KEPT_BYTES_MAX // (len(LINE) + MESSAGE_BYTES)
    asked, *rest = pieces(drained(queues, 0.0) + drained(queues, ANSWER_S))
    assert asked.left_out_bytes == (100_000 - kept) * len(LINE)
    assert [one.task for one in rest] == list(range(100_001 - kept, 100_000))
    assert not any(one.left_out_bytes for one in rest)


def test_what_was_left_out_is_told_once_more_where_the_question_was_not_heard() -> None:
    queues = LogQueues(0.0)
    queues.open("one", "log.S.J.L", 1)
    for _ in range(3):
        queues.add("one", 0, b"x" * (KEPT_BYTES_MAX // 2))
    (asked,) = pieces(drained(queues, 0.0))
    assert asked.left_out_bytes == asked.offset_bytes > 0
    queues.nobody_heard(0.1, "one")
    (again,) = pieces(drained(queues, 2.0))
    assert again == asked


def test_all_leases_together_have_a_rate() -> None:
    queues = heard(*(f"lease {n}" for n in range(40)))
    sent_bytes, now = 0, 0.0
    while now < 20.0:
        for lease in list(queues._queues):
            queues.add(lease, 0, b"x" * (16 << 10))
        sent_bytes += sum(len(one.piece.content) for one in drained(queues, now))
        assert queues.wait_s(now) is not None
        now += 0.1
    allowed = BURST_BYTES + 20.0 * BYTES_PER_S
    assert 0.9 * allowed < sent_bytes < allowed + LOG_PIECE_BYTES_MAX


def test_one_that_floods_takes_nothing_from_the_others() -> None:
    queues = heard("flood", "quiet")
    now, seen = 0.0, Counter[str]()
    for _ in range(200):
        queues.add("flood", 0, b"x" * (64 << 10))
        queues.add("quiet", 0, LINE)
        for one in drained(queues, now):
            seen[one.lease] += len(one.piece.content)
        now += 0.1
    assert seen["quiet"] == 200 * len(LINE)
    assert seen["flood"] > 100 * seen["quiet"]


def test_nothing_goes_out_of_what_stands_still_or_was_closed() -> None:
    queues = heard("one", "other")
    queues.halt("one")
    queues.add("one", 0, LINE)
    queues.add("other", 0, LINE)
    queues.close("other")
    assert not queues.add("other", 0, LINE)
    assert drained(queues, 0.0) == []
    assert queues.wait_s(0.0) is None
    queues.go_on("one")
    assert [one.lease for one in drained(queues, 0.0)] == ["one"]
    for gone in (queues.halt, queues.go_on, queues.close):
        gone("other")
    queues.nobody_heard(0.0, "other")


def test_each_task_has_a_log_of_its_own() -> None:
    queues = heard("one")
    long = bytes(2 * LOG_PIECE_BYTES_MAX)
    for task, content in ((7, LINE), (7, long), (8, LINE)):
        queues.add("one", task, content)
    found = [(one.task, one.offset_bytes, len(one.content)) for one in pieces(drained(queues, 0))]
    size = LOG_PIECE_BYTES_MAX
    assert found == [(7, 0, 7), (7, 7, size), (7, 7 + size, size), (8, 0, 7)]
