"""What a sandbox was asked for: several at once, first asked, first answered."""

from lender.sandbox.asked import Asked
from lender.sandbox.plan import TaskOutcome

FIRST, SECOND, THIRD = (TaskOutcome(task, "succeeded", 0) for task in range(3))


def test_one_is_asked_and_answered() -> None:
    asked = Asked(4, 8)
    assert asked.want([0]) == [0]
    assert (asked.at_work, len(asked), asked.take()) == (0, 1, [])
    assert asked.hear([FIRST])
    assert (asked.at_work, len(asked), asked.early) == (None, 1, 1)
    assert asked.take() == [FIRST]
    assert (len(asked), asked.early) == (0, 0)


def test_what_nobody_asked_for_is_not_heard() -> None:
    asked = Asked(4, 8)
    assert not asked.hear([FIRST])
    asked.want([0])
    assert not asked.hear([FIRST, SECOND])
    assert asked.hear([FIRST])
    assert not asked.hear([SECOND])


def test_those_behind_are_asked_for_in_batches() -> None:
    asked = Asked(4, 8)
    tasks = list(range(20))
    assert asked.want(tasks) == [0, 1, 2, 3, 4]
    for task in (0, 1):
        assert not asked.want(tasks[task:])
        assert asked.hear([FIRST])
        assert asked.take() == [FIRST]
    assert not asked.want(tasks[2:])
    assert asked.hear([FIRST])
    assert asked.want(tasks[2:]) == [5, 6, 7], "two are left to do"
    assert asked.at_work == 3


def test_answers_wait_until_they_are_wanted() -> None:
    asked = Asked(4, 8)
    asked.want([0, 1, 2])
    assert asked.hear([FIRST, SECOND])
    assert (asked.at_work, asked.early) == (2, 2)
    assert (asked.take(1), asked.early, len(asked)) == ([FIRST], 1, 2)
    assert not asked.want([1, 2])
    assert asked.hear([THIRD])
    assert asked.take() == [SECOND, THIRD]
    assert (asked.take(), asked.early, len(asked)) == ([], 0, 0)


def test_what_is_answered_already_keeps_it_from_no_work() -> None:
    asked = Asked(4, 6)
    tasks = list(range(20))
    assert asked.want(tasks) == [0, 1, 2, 3, 4]
    for _ in range(4):
        asked.hear([FIRST])
    assert asked.want(tasks) == [5, 6], "one is left to do; six behind the first is all"
    assert asked.take(1) == [FIRST]


def test_who_is_gone_answers_nothing() -> None:
    asked = Asked(4, 6)
    asked.want([0, 1])
    asked.hear([FIRST])
    asked.forget()
    assert (asked.at_work, asked.early, len(asked), asked.take()) == (None, 0, 0, [])
