"""What a sandbox was asked for: several at once, first asked, first answered."""

from lender.sandbox.asked import PLAN, Asked
from lender.sandbox.frames import Frame

FIRST, SECOND = Frame({"n": 1}), Frame({"n": 2})


def test_one_is_asked_and_answered() -> None:
    asked = Asked(4, 8)
    assert asked.want(PLAN) == [PLAN]
    assert (asked.at_work, len(asked), asked.take()) == (PLAN, 1, None)
    assert asked.hear(FIRST)
    assert (asked.at_work, len(asked), asked.take()) == (None, 1, FIRST)
    assert len(asked) == 0


def test_what_nobody_asked_for_is_not_heard() -> None:
    asked = Asked(4, 8)
    assert not asked.hear(FIRST)
    asked.want(0)
    assert asked.hear(FIRST)
    assert not asked.hear(SECOND)


def test_those_behind_are_asked_for_in_batches() -> None:
    asked = Asked(4, 8)
    tasks = list(range(20))
    assert asked.want(0, tasks[1:]) == [0, 1, 2, 3, 4]
    for task in (0, 1):
        assert asked.want(task, tasks[task + 1 :]) == []
        assert asked.hear(FIRST)
        assert asked.take() is FIRST
    assert asked.want(2, tasks[3:]) == []
    assert asked.hear(FIRST)
    assert asked.want(2, tasks[3:]) == [5, 6, 7], "two are left to do"
    assert asked.at_work == 3


def test_answers_wait_until_they_are_wanted() -> None:
    asked = Asked(4, 8)
    asked.want(0, [1])
    assert asked.hear(FIRST._replace(body=b"123"))
    assert asked.hear(SECOND)
    assert asked.early_bytes == 3
    assert asked.at_work is None
    first = asked.take()
    assert first is not None
    assert (first.body, asked.early_bytes) == (b"123", 0)
    assert (asked.want(1), asked.take(), asked.take()) == ([], SECOND, None)


def test_what_is_answered_already_keeps_it_from_no_work() -> None:
    asked = Asked(4, 6)
    tasks = list(range(20))
    assert asked.want(0, tasks[1:]) == [0, 1, 2, 3, 4]
    for _ in range(4):
        asked.hear(FIRST)
    assert asked.want(0, tasks[1:]) == [5, 6], "one is left to do; six behind the first is all"
    assert asked.take() is FIRST
    assert asked.want(1, tasks[2:]) == [], "three are left to do"


def test_without_room_each_is_asked_for_alone() -> None:
    asked = Asked(4, 0)
    assert asked.want(0, [1, 2]) == [0]
    assert asked.hear(FIRST)
    assert asked.take() is FIRST
    assert asked.want(1, [2]) == [1]


def test_nothing_is_expected_of_who_has_ended() -> None:
    asked = Asked(4, 8)
    asked.want(0, [1])
    asked.hear(FIRST)
    asked.forget()
    assert (len(asked), asked.at_work, asked.take()) == (0, None, None)
