"""The ledger's messages are taken up by a reader of all, and by one for whom was put off."""

from broker.core.intake.arrivals import Arrivals


def test_what_comes_is_taken_up_at_once_and_in_order() -> None:
    arrivals = Arrivals()
    assert [arrivals.came(who, at) for at, who in enumerate("aba", 1)] == [True, True, True]
    assert arrivals.position == 3
    assert arrivals.behind == ()
    assert arrivals.wanted_from("a") == 4


def test_who_was_put_off_is_read_by_itself_from_there_while_others_go_on() -> None:
    arrivals = Arrivals()
    arrivals.came("a", 1)
    arrivals.put_off("a", 1)
    assert not arrivals.came("a", 2), "after one that waits"
    assert arrivals.came("b", 3)
    assert not arrivals.came("a", 4)
    assert arrivals.behind == ("a",)
    assert arrivals.wanted_from("a") == 1
    assert [arrivals.wants("a", at) for at in range(6)] == [False, True, True, True, True, False]
    arrivals.took("a", 2)
    assert arrivals.wanted_from("a") == 3
    assert not arrivals.wants("a", 2), "once is enough"
    arrivals.took("a", 4)
    assert arrivals.behind == ()
    assert arrivals.came("a", 5)


def test_who_was_read_ahead_is_not_taken_up_again() -> None:
    arrivals = Arrivals()
    arrivals.came("b", 1)
    assert not arrivals.wants("a", 1)
    assert arrivals.wants("a", 2)
    arrivals.took("a", 3)
    arrivals.took("a", 2)
    assert arrivals.wanted_from("a") == 4
    assert [arrivals.came("a", at) for at in (2, 3, 4)] == [False, False, True]


def test_what_lies_between_two_that_were_put_off_is_not_read_again() -> None:
    arrivals = Arrivals()
    arrivals.put_off("a", 1)
    arrivals.took_one("a")
    arrivals.put_off("a", 3)
    assert [arrivals.wants("a", at) for at in (1, 2, 3)] == [True, False, True]
