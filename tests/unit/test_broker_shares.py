"""How use is counted, and who is entitled to what."""

from dataclasses import replace

import pytest
from broker_world import ALICE, BOB, START, World, class_of, job_spec

from broker.core.events import ClockJumped, SubmittersChanged
from broker.core.matching.need import Amounts, Need
from broker.core.matching.shares import HALF_LIFE_S, HELD_S, Shares
from lender.protocol.job import Limits

GIB = 1 << 30
FLEET = Amounts(10, 100 * GIB, 0, 0)


def need(cpu: int = 1, memory_bytes: int = GIB) -> Need:
    return Need.of(job_spec(limits=Limits(cpu=cpu, memory_bytes=memory_bytes)))


def shares(**weights: float) -> Shares:
    one = Shares(weights)
    one.advance(0.0)
    one.resize(FLEET)
    return one


def use(one: Shares, who: str, since: float, until: float, what: Need) -> None:
    one.advance(since)
    one.lease(who, what)
    one.start(who, what)
    one.advance(until)
    one.end(who, what, started=True)


def test_use_is_a_part_of_the_fleet_for_a_time() -> None:
    one = shares()
    use(one, "a", 0, 1, need())
    assert one.level("a") == pytest.approx(0.1, rel=0.01)
    use(one, "b", 1, 3, need(cpu=5))
    assert one.level("b") == pytest.approx(1.0, rel=0.01)
    assert one.level("c") == 0.0


def test_the_resource_of_which_it_is_most_counts() -> None:
    one = shares()
    use(one, "a", 0, 1, need(memory_bytes=60 * GIB))
    assert one.level("a") == pytest.approx(0.6, rel=0.01)


def test_what_runs_counts_as_it_runs() -> None:
    one = shares()
    one.lease("a", need())
    waiting = one.level("a")
    assert waiting == pytest.approx(0.1 * HELD_S)
    one.advance(100)
    assert one.level("a") == pytest.approx(waiting, rel=0.05), "it waits, and uses nothing"
    one.start("a", need())
    one.advance(200)
    assert one.level("a") == pytest.approx(waiting + 10, rel=0.1)
    one.end("a", need(), started=True)
    assert one.level("a") == pytest.approx(10, rel=0.1)


def test_old_use_counts_half() -> None:
    one = shares()
    use(one, "a", 0, 1, need())
    use(one, "b", HALF_LIFE_S, HALF_LIFE_S + 1, need())
    assert one.level("b") == pytest.approx(2 * one.level("a"), rel=0.01)


def test_the_order_is_kept_when_counting_begins_again() -> None:
    one, now = shares(), 0.0
    version = one.version
    one.lease("d", need())
    one.start("d", need())
    for _ in range(10):
        now += 40 * HALF_LIFE_S
        use(one, "a", now, now + 1, need())
        use(one, "b", now + 1, now + 3, need())
        assert 0 < one.level("a") < one.level("b") < one.level("d") < 1e30
        use(one, "c", now + 3, now + 4, need())
    assert one.version > version + 3
    one.end("d", need(), started=True)
    now += 100 * HALF_LIFE_S
    one.advance(now)
    one.advance(now + 100 * HALF_LIFE_S)
    assert one.level("a") == 0.0, "forgotten"
    assert one.level("d") == 0.0


def test_a_weight_divides_what_was_used() -> None:
    one = shares(a=2.0)
    use(one, "a", 0, 2, need())
    use(one, "b", 2, 3, need())
    assert one.level("a") == pytest.approx(one.level("b"), rel=0.01)
    one.weigh({"b": 2.0})
    assert one.level("a") == pytest.approx(4 * one.level("b"), rel=0.01)


def test_shares_are_of_the_fleet_as_it_is() -> None:
    one = shares()
    use(one, "a", 0, 1, need())
    before, version = one.level("a"), one.version
    one.resize(replace(FLEET, cores=11))
    assert (one.level("a"), one.version) == (before, version), "too little to count anew"
    one.resize(replace(FLEET, cores=20))
    assert one.level("a") == pytest.approx(before / 2)
    assert one.version > version


def test_who_comes_starts_on_a_level_with_the_lowest_that_is_served() -> None:
    one = shares(late=2.0)
    use(one, "a", 0, 100, need())
    use(one, "b", 100, 300, need())
    one.lift("late", above=["a", "b"])
    assert one.level("late") == 0.0, "nobody is served now"
    one.lease("b", need())
    one.lift("late", above=["a", "b", "nobody"])
    assert one.level("late") == pytest.approx(one.level("b"), rel=0.3)
    assert one.level("late") < one.level("b"), "it holds nothing yet"
    before = one.level("b")
    one.lift("b", above=["late", "b"])
    assert one.level("b") == before


def test_a_jump_of_the_clock_is_no_use() -> None:
    world = World()
    world.submit(job_spec(), ALICE)
    world.offer()
    world.offer(leases=[world.pull()])
    state = world.broker.state
    before = state.shares.level(ALICE.public_key)
    for by_s in (40_000.0, -80_000.0):
        world.now += by_s
        world.do(ClockJumped(by_s))
        assert state.shares.level(ALICE.public_key) == pytest.approx(before)


def test_weights_come_with_the_submitters() -> None:
    world = World()
    weights = {ALICE.public_key: 3.0}
    world.do(SubmittersChanged(frozenset((ALICE.public_key, BOB.public_key)), weights))
    for number in range(20):
        world.submit(job_spec(ALICE, f"job-{number:04d}"), ALICE)
        world.submit(job_spec(BOB, f"job-{number:04d}"), BOB)
    world.offer(slots=4, classes=[class_of(ALICE), class_of(BOB)])
    owners = [lease.submitter for lease in world.queued()]
    assert owners.count(ALICE.public_key) == 6
    assert len(owners) == 8
    assert world.now == START
