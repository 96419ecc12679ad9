"""What our token names bounds what we pull and offer; another is asked for when grants change."""

import pytest
from core_world import BOB, START, Bench, class_of, make_grant, make_spec, the

from lender.core.effects import PullWork, SendOffer
from lender.core.events import (
    BrokerGreeted,
    Capabilities,
    CapabilitiesFound,
    ClassesOpened,
    TokenRead,
)
from lender.core.token_pace import AGAIN_FIRST_S, AGAIN_MAX_S, SETTLE_S, TokenPace
from lender.protocol.bounds import ENROL_CLASSES_MAX

A, B = class_of(), class_of(make_spec(BOB))
NONE: frozenset[str] = frozenset()


def two_grants() -> Bench:
    return Bench().ready(make_grant(), make_grant("G-2", BOB))


def offered(bench: Bench) -> set[str]:
    return set(the(SendOffer, bench.tell(BrokerGreeted())).offer.classes)


def pulled(bench: Bench, *classes: str) -> list[str]:
    effects = bench.tell(ClassesOpened(classes))
    return [one.work_class for one in effects if isinstance(one, PullWork)]


def test_only_what_the_token_names_is_offered_and_pulled() -> None:
    bench = two_grants()
    assert {A, B} <= offered(bench)
    bench.tell(TokenRead(frozenset((A,))))
    assert offered(bench) == {A}
    assert pulled(bench, A, B) == [A]
    bench.tell(TokenRead(NONE))
    assert offered(bench) == set()
    assert bench.lender.status(START).classes == ()
    bench.tell(TokenRead(None))
    assert {A, B} <= offered(bench)
    assert pulled(bench, B) == [B]


def test_what_grants_name_is_known_whatever_closes_them() -> None:
    bench = Bench()
    assert bench.lender.classes_granted is None
    bench = two_grants()
    named = bench.lender.classes_granted
    assert named is not None
    assert {A, B} <= set(named)
    bench.pause()
    bench.tell(CapabilitiesFound(Capabilities("x86_64", "linux", frozenset(), "none")))
    assert bench.lender.classes_granted == ()


class Clock:
    """A pace and its time; the chance is in the middle."""

    def __init__(self, held: frozenset[str] | None) -> None:
        self.now = 0.0
        self.pace = TokenPace(lambda: 0.5)
        self.pace.read(held)

    def due(self, *wanted: str, after_s: float = 0.0) -> tuple[str, ...] | None:
        self.pace.due(self.now, wanted)
        self.now += after_s
        return self.pace.due(self.now, wanted)


def test_nothing_is_asked_for_by_who_may_take_all_or_was_told_nothing() -> None:
    clock = Clock(None)
    assert clock.due("a", after_s=1000) is None
    fresh = TokenPace(lambda: 0.5)
    fresh.refused()
    assert fresh.due(0, ("a",)) is None
    assert fresh.lacking == NONE
    clock = Clock(NONE)
    assert clock.pace.due(1000, None) is None, "grants and runtimes are not known yet"
    assert clock.pace.lacking == NONE


def test_it_asks_once_for_each_change_when_that_has_settled() -> None:
    clock = Clock(NONE)
    assert clock.due("a", after_s=SETTLE_S / 2) is None
    assert clock.due("a", "b", after_s=SETTLE_S / 2) is None
    assert clock.due("a", "b", after_s=SETTLE_S) == ("a", "b")
    clock.pace.answered(clock.now, ("a", "b"), frozenset("a"))
    assert clock.due("a", "b", after_s=1000) is None, "the operator's word does not reach further"
    assert clock.pace.lacking == {"b"}
    assert clock.due("a", after_s=1000) is None, "that is what it has"
    assert clock.pace.lacking == NONE
    assert clock.due(after_s=1000) == (), "a narrower one, too"
    clock.pace.answered(clock.now, (), NONE)
    assert clock.due("a", after_s=1000) == ("a",)


def test_a_token_that_somebody_put_there_is_held_against_the_grants_anew() -> None:
    clock = Clock(NONE)
    clock.pace.answered(0, ("a",), NONE)
    assert clock.due("a", after_s=1000) is None
    clock.pace.read(NONE)
    assert clock.due("a", after_s=1000) == ("a",)


def test_it_rests_while_nothing_will_have_to_be_asked_for() -> None:
    assert TokenPace(lambda: 0.5).rests, "it keeps no token"
    assert Clock(None).pace.rests
    clock = Clock(NONE)
    assert clock.pace.rests, "grants are not known yet"
    clock.due("a")
    assert not clock.pace.rests
    clock.pace.answered(0, ("a",), frozenset("a"))
    assert clock.pace.rests
    clock.due("b")
    clock.pace.answered(0, ("b",), NONE)
    assert clock.pace.rests, "the operator's word does not reach further"
    clock.pace.refused()
    assert not clock.pace.rests
    clock.pace.barred()
    assert clock.pace.rests


def test_it_asks_for_no_more_than_a_token_holds() -> None:
    clock = Clock(NONE)
    many = tuple(f"{n:03d}" for n in range(ENROL_CLASSES_MAX + 1))
    asked = clock.due(*many, after_s=1)
    assert asked == many[:-1]
    clock.pace.answered(clock.now, asked, frozenset(asked))
    assert clock.due(*many, after_s=1000) is None
    assert clock.pace.beyond == {many[-1]}
    clock.due(*many[1:])
    assert clock.pace.beyond == NONE
    everything = Clock(None)
    everything.due(*many)
    assert everything.pace.beyond == NONE


@pytest.mark.parametrize("held", [None, frozenset("a")])
def test_who_is_refused_asks_at_once_and_then_ever_less_often(held: frozenset[str] | None) -> None:
    clock = Clock(held)
    clock.pace.refused()
    assert clock.pace.due(0, None) == ()
    pauses = []
    for turn in range(12):
        before = clock.now
        if turn % 2:
            clock.pace.failed(clock.now)
        else:
            clock.pace.answered(clock.now, ("a",), held)
        while clock.due("a", after_s=0.25) is None:
            assert clock.now < before + AGAIN_MAX_S
        pauses.append(clock.now - before)
    assert pauses == sorted(pauses)
    assert pauses[0] == AGAIN_FIRST_S
    assert pauses[-1] == AGAIN_MAX_S * 0.75
    clock.pace.let_in()
    assert clock.due("a", after_s=1000) is None
    clock.pace.refused()
    clock.pace.barred()
    assert clock.due("b", after_s=1000) is None, "until somebody lets it in anew"
    clock.pace.read(NONE)
    assert clock.due("b", after_s=1000) == ("b",)
