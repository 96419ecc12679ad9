"""Whom the broker lets answer alone: by what others have confirmed, and never for certain."""

import random
from collections.abc import Callable

import pytest
from broker_world import LENDERS, World, check_places, job_spec, ok

from broker.core.broker import Broker
from broker.core.copies.reputation import CHECKED_MIN, TRUSTED_AFTER, Reputation, checked_share
from lender.protocol.job import Verify
from lender.protocol.lease import Lease

L1, L2, L3 = LENDERS[:3]


class Checked(World):
    """A world whose broker draws what `chance` says."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self.chance = chance
        super().__init__()

    def new_broker(self) -> Broker:
        return Broker(self.new_lease_id, self.submitters, chance=self.chance)


def test_a_longer_record_is_checked_less_but_never_not_at_all() -> None:
    shares = [checked_share(confirmed) for confirmed in range(10_000)]
    assert shares[:TRUSTED_AFTER] == [1.0] * TRUSTED_AFTER
    assert shares == sorted(shares, reverse=True)
    assert shares[TRUSTED_AFTER] < 1.0
    assert shares[99] == pytest.approx(0.1)
    assert min(shares) == CHECKED_MIN > 0.0


def test_one_refuted_answer_ends_the_record() -> None:
    reputation = Reputation(lambda: 0.5)
    for _ in range(50):
        reputation.note(L1, valid=True)
    assert not reputation.is_checked(L1)
    assert reputation.is_checked(L2)
    reputation.note(L1, valid=False)
    assert reputation.confirmed(L1) == 0
    assert reputation.is_checked(L1)


def run_one(world: World, number: int, lender: str, value: bytes, others: bytes = b"4") -> bool:
    """Have a lender run a job; others run it too if they are asked: tells whether they were."""
    job = f"job-{number:04d}"
    world.submit(job_spec(job=job, verify=Verify(spot_check=True)))
    asked = False

    def take(who: str) -> Lease | None:
        world.offer(who, slots=1)
        lease = next(
            (one for one in world.queued() if one.job == job and not one.is_barred(who)), None
        )
        if lease is not None:
            world.offer(who, slots=1, leases=[lease])
            answer = ok(value=value if who == lender else others)
            world.report(lease, [answer], who)
            world.ack(lease)
            check_places(world)
        return lease

    assert take(lender) is not None
    for who in LENDERS:
        if world.terminal(job) is None and who != lender:
            asked = take(who) is not None or asked
        world.offer(who, slots=0)
    terminal = world.terminal(job)
    assert terminal is not None
    assert terminal.result is not None
    assert asked or terminal.result.value == value
    assert not asked or terminal.result.value == others
    return asked


def test_a_new_lender_is_checked_until_it_has_a_record_and_less_and_less_from_then_on() -> None:
    world = Checked(random.Random(1).random)
    checked = [run_one(world, number, L1, b"4") for number in range(120)]
    assert all(checked[:TRUSTED_AFTER])
    assert sum(checked[TRUSTED_AFTER:60]) > sum(checked[60:110]) > 0


def test_a_lender_that_lies_is_found_out_and_never_alone_again() -> None:
    world = Checked(lambda: 0.9)
    for number in range(12):
        run_one(world, number, L1, b"4")
    assert not run_one(world, 12, L1, b"a lie")
    world.chance = lambda: 0.0
    world.broker.state.reputation._chance = world.chance
    assert run_one(world, 13, L1, b"a lie")
    assert world.broker.state.reputation.confirmed(L1) == 0
    world.broker.state.reputation._chance = lambda: 0.9
    assert run_one(world, 14, L1, b"another")


def test_after_a_start_everybody_is_checked_anew() -> None:
    world = Checked(lambda: 0.99)
    checked = [run_one(world, number, L1, b"4") for number in range(TRUSTED_AFTER + 1)]
    assert checked == [True] * TRUSTED_AFTER + [False]
    world.start()
    assert run_one(world, 100, L1, b"4")


def test_a_start_is_no_way_out_for_who_has_lied() -> None:
    world = Checked(lambda: 0.0)
    run_one(world, 0, L1, b"4")
    world.submit(job_spec(verify=Verify(spot_check=True)))
    answers = {L1: b"a lie", L2: b"4", L3: b"4"}
    for who, value in answers.items():
        world.offer(who, slots=1)
        lease = next(one for one in world.queued() if not one.is_barred(who))
        world.offer(who, slots=1, leases=[lease])
        assert world.verdict(world.report(lease, [ok(value=value)], who)) == "committed"
        world.ack(lease)
        world.offer(who, slots=0)
        if who == L1:
            assert world.terminal() is None
            world.start()
            world.chance = lambda: 0.99
            assert world.broker.state.reputation.confirmed(L1) == 0, "the most checks there are"
    terminal = world.terminal()
    assert terminal is not None
    assert terminal.result is not None
    assert terminal.result.value == b"4"
    confirmed = world.broker.state.reputation.confirmed
    assert [confirmed(who) for who in answers] == [0, 1, 1]


def test_a_check_that_was_under_way_before_a_crash_goes_on_after_it() -> None:
    world = Checked(lambda: 0.0)
    world.submit(job_spec(verify=Verify(spot_check=True)))
    held: dict[str, Lease] = {}
    for who in (L1, L2):
        world.offer(who, slots=1)
        held[who] = next(
            one for one in world.queued() if one not in held.values() and not one.is_barred(who)
        )
        world.offer(who, slots=1, leases=[held[who]])
    world.chance = lambda: 0.99
    world.start()
    check_places(world)
    for who in (L1, L2):
        world.offer(who, slots=1, leases=[held[who]])
    check_places(world)
    world.report(held[L1], [ok(value=b"4")], L1)
    assert world.terminal() is None
    world.report(held[L2], [ok(value=b"4")], L2)
    assert world.terminal() is not None


def test_without_chance_everything_is_checked() -> None:
    world = World()
    for number in range(TRUSTED_AFTER + 5):
        assert run_one(world, number, L1, b"4")
