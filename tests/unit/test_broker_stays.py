"""For how long a machine is expected to stay."""

import pytest
from broker_world import L1, World, class_of, job_spec

from broker.core.events import ClockJumped
from broker.core.matching.stays import STAY_GUESS_S, TIERS, Stays, tier_of

HOUR = 3600.0


@pytest.mark.parametrize(
    ("seconds", "tier"),
    [(0, 0), (63.9, 0), (64, 1), (128, 2), (HOUR, 6), (65_535, 10), (65_536, 11), (1e9, 11)],
)
def test_tiers_are_powers_of_two(seconds: float, tier: int) -> None:
    assert tier_of(seconds) == tier
    assert tier < TIERS


def test_a_lender_that_nothing_is_known_of_may_stay_an_hour() -> None:
    stays = Stays()
    assert stays.expected_s("a", 0.0, None) == STAY_GUESS_S
    stays.begin("a", 0.0)
    assert stays.expected_s("a", 0.0, None) == STAY_GUESS_S
    assert stays.expected_s("a", 0.0, 600.0) == 600.0
    assert stays.expected_s("a", 0.0, 9 * HOUR) == STAY_GUESS_S


def test_who_yields_often_is_expected_to_yield_soon_again() -> None:
    stays, now = Stays(), 0.0
    for _ in range(12):
        stays.begin("a", now)
        stays.begin("a", now + 5)
        stays.end("a", now + 60)
        stays.end("a", now + 70)
        now += 600
    assert stays.expected_s("a", now, None) == pytest.approx(60, rel=2)
    for _ in range(12):
        stays.begin("a", now)
        now += 9 * HOUR
        stays.end("a", now)
    assert stays.expected_s("a", now, None) == pytest.approx(9 * HOUR, rel=0.1), "it may change"


def test_who_has_stayed_longer_than_usual_stays_as_long_again() -> None:
    stays = Stays()
    stays.begin("a", 0.0)
    assert stays.expected_s("a", 20 * HOUR, None) == 20 * HOUR


def test_a_jump_of_the_clock_is_no_stay() -> None:
    stays = Stays()
    stays.begin("a", 0.0)
    stays.shift(20 * HOUR)
    assert stays.expected_s("a", 20 * HOUR, None) == STAY_GUESS_S
    stays.end("a", 10 * HOUR)
    assert stays.expected_s("a", 20 * HOUR, None) == 0.75 * STAY_GUESS_S, "never less than nothing"


def test_a_lender_moves_with_its_hours_and_its_habits() -> None:
    world = World()
    world.offer(stay_s=9 * HOUR)
    lender = world.broker.state.fleet.get(L1)
    assert lender.tier == tier_of(STAY_GUESS_S)
    world.offer(stay_s=100.0)
    assert lender.tier == tier_of(100)
    for _ in range(20):
        world.offer(phase="yielding")
        world.offer()
    assert lender.tier < tier_of(STAY_GUESS_S) - 3
    for _ in range(3):
        world.pass_time(10)
        world.offer()
    world.now += HOUR
    world.do(ClockJumped(HOUR))
    world.offer()
    assert lender.tier < tier_of(STAY_GUESS_S) - 3


def test_who_falls_silent_has_left() -> None:
    world = World()
    for _ in range(20):
        world.offer()
        world.pass_time(15)
        assert len(world.broker.state.fleet) == 0
    world.submit(job_spec())
    world.offer(classes=[class_of()])
    assert world.broker.state.fleet.get(L1).tier < tier_of(STAY_GUESS_S) - 3
    assert len(world.work) == 1, "a short stay is better than none"
