"""Lenders that speak, fall silent, forget, or come back."""

import msgpack
import pytest
from broker_world import ALICE, BOB, L1, L2, World, check_places, class_of, job_spec, ok

from broker.core.events import ClockJumped, HearingLost, HearingRestored, OfferReceived
from broker.core.leasing.leases import ANSWER_S
from lender.protocol.codec import encode
from lender.protocol.lease import Lease, Offer


def held(world: World, lender: str = L1, **fields: float) -> Lease:
    """A job's lease, held by a lender."""
    world.submit(job_spec(**fields))
    world.offer(lender)
    lease = world.pull()
    world.offer(lender, leases=[lease])
    return lease


def beat(world: World, lease: Lease, seconds: float, lender: str = L1) -> None:
    for _ in range(int(seconds / 0.5)):
        world.pass_time(0.5)
        world.offer(lender, leases=[lease])


def test_a_silent_lender_loses_its_leases_after_2_5_seconds() -> None:
    world = World()
    lease = held(world)
    beat(world, lease, 10)
    world.pass_time(2.4)
    assert [one.attempt for one in world.queued()] == [1]
    world.pass_time(0.2)
    assert world.work == {}
    assert world.verdict(world.report(lease, [ok()])) == "stale"
    world.offer(L2)
    assert [one.attempt for one in world.queued()] == [2]
    assert world.run(world.pull(), L2) == "committed"
    world.offer(L1, leases=[lease])
    assert world.cancelled(L1) == [lease.lease]
    assert world.terminal().lender == L2


def test_an_idle_lender_is_forgotten_after_12_5_seconds() -> None:
    world = World()
    world.offer()
    world.pass_time(12.4)
    assert len(world.broker.state.fleet) == 1
    world.pass_time(0.2)
    assert len(world.broker.state.fleet) == 0
    assert world.broker.next_deadline() is None


def test_idle_offers_keep_a_lender_known() -> None:
    world = World()
    for _ in range(20):
        world.offer()
        world.pass_time(5)
    assert len(world.broker.state.fleet) == 1


def test_a_report_is_a_sign_of_life() -> None:
    world = World()
    lease = held(world, count=1)
    for _ in range(5):
        world.pass_time(2)
        world.report(lease, [], final=False)
    assert world.run(lease) == "committed"


def test_a_holder_that_never_offers_is_watched_too() -> None:
    world = World()
    world.submit(job_spec())
    world.offer(L1)
    lease = world.pull()
    world.report(lease, [], L2, final=False)
    world.pass_time(12.6)
    world.offer(L1)
    assert [one.attempt for one in world.queued()] == [2]


def test_a_lease_that_its_holder_forgot_is_lost_after_a_grace() -> None:
    world = World()
    lease = held(world)
    world.offer()
    world.pass_time(0.9)
    assert world.queued() == [lease]
    world.offer(leases=[lease])
    world.pass_time(0.5)
    world.offer()
    world.pass_time(0.9)
    assert world.queued() == [lease], "listing it again starts a new grace"
    world.offer()
    world.pass_time(0.2)
    assert [one.attempt for one in world.queued()] == [2]


def test_a_final_report_within_the_grace_counts() -> None:
    world = World()
    lease = held(world)
    world.offer()
    assert world.run(lease) == "committed"
    world.pass_time(5)
    assert world.terminal().state == "succeeded"


def test_a_lender_that_says_good_bye_loses_its_leases_at_once() -> None:
    world = World()
    held(world)
    world.offer(L2)
    world.offer(L1, phase="offline")
    assert [one.attempt for one in world.queued()] == [2]


def test_a_lender_is_told_of_queues_as_they_open() -> None:
    world = World()
    world.offer(L1)
    world.offer(L2, classes=[class_of(BOB)])
    assert world.opened(L1) == []
    world.submit(job_spec())
    assert world.opened(L1) == [class_of()]
    assert world.opened(L2) == []
    world.offer(L2, classes=[class_of(BOB), class_of(ALICE)])
    assert world.opened(L2) == [class_of(ALICE)]


def test_a_lender_with_free_slots_is_reminded_of_work_that_waits() -> None:
    world = World()
    world.offer()
    world.submit(job_spec())
    assert len(world.opened()) == 1
    for _ in range(10):
        world.pass_time(1)
        world.offer()
    assert 3 < len(world.opened()) < 8
    lease = world.pull()
    world.offer(leases=[lease])
    told = len(world.opened())
    beat(world, lease, 5)
    assert len(world.opened()) == told


def test_nobody_is_told_of_work_that_was_taken_before_its_queue_answered() -> None:
    world = World()
    first = held(world)
    world.pass_time(2)
    world.answer_feeds = False
    world.submit(job_spec(job="job-0002"))
    world.offer(L1, leases=[first, world.feeds[0].lease])
    told = len(world.opened())
    world.store_feed()
    assert len(world.opened()) == told


def test_who_began_anew_is_told_of_work_that_others_take_and_refuse_at_once() -> None:
    """Whenever it offers, nothing waits; yet it is the one that could do the work."""
    world = World()
    for lender in (L1, L2):
        world.offer(lender)
    world.submit(job_spec())
    told = len(world.opened(L1))
    for _ in range(6):
        lease = world.pull()
        world.offer(L2, leases=[lease])
        world.report(lease, [], L2, outcome="refused", reason="too narrow")
        world.ack(lease)
        world.offer(L1)
        world.pass_time(2.0)
    assert len(world.opened(L1)) >= told + 2


def test_nobody_is_given_up_while_the_broker_is_deaf() -> None:
    world = World()
    lease = held(world)
    world.offer()  # it no longer lists the lease
    world.do(HearingLost())
    world.pass_time(60)
    assert world.queued() == [lease]
    world.do(HearingRestored())
    world.pass_time(3)
    world.offer(leases=[lease])
    beat(world, lease, 5)
    assert world.run(lease) == "committed"


def test_silence_counts_again_after_deafness() -> None:
    world = World()
    held(world)
    world.do(HearingLost())
    world.pass_time(60)
    world.do(HearingRestored())
    world.pass_time(7)
    world.offer(L2)
    assert [one.attempt for one in world.queued()] == [2]


@pytest.mark.parametrize("by_s", [-3600.0, 3600.0])
def test_a_clock_that_jumps_gives_nobody_up(by_s: float) -> None:
    world = World()
    lease = held(world, not_after=world.now + 7200)
    world.submit(job_spec(job="job-0002"))
    other = world.queued()[-1]
    world.report(other, [], L2, outcome="refused")
    world.ack(other)
    world.now += by_s
    world.do(ClockJumped(by_s))
    world.pass_time(0.05)
    assert len(world.work) == 1
    world.pass_time(0.1)
    world.offer(leases=[lease])
    assert len(world.work) == 2, "a rest lasts as long as it would have"
    world.pass_time(2.6)
    assert lease not in world.queued(), "silence is noticed as it would have been"


def test_a_bad_offer_is_told_to_the_operator_and_nothing_else() -> None:
    world = World()
    world.do(OfferReceived(L1, b"\xc1"))
    assert L1 in world.warnings[0]
    world.submit(job_spec())

    world.offer(L1)
    payload = encode(Offer.model_validate(world.broker.state.fleet.get(L1).offer.model_dump()))
    world.do(OfferReceived(L2, payload))
    assert "speaks for" in world.warnings[1]
    assert world.broker.state.fleet.get(L2) is None


@pytest.mark.parametrize(
    "said",
    [
        {"cpu_free": 1e308},
        {"memory_free_bytes": 2**63},
        {"vram_free_bytes": 2**63},
        {"disk_free_bytes": 2**63},
        {"stay_s": 1e308},
        {"slots_free": 2**40},
    ],
)
def test_numbers_that_no_machine_has_are_a_bad_offer(said: dict[str, float]) -> None:
    world = World()
    world.offer(L1)
    fields = world.broker.state.fleet.get(L1).offer.model_dump() | {"lender": L2} | said
    world.do(OfferReceived(L2, msgpack.packb(fields)))
    assert next(iter(said)) in world.warnings[0]
    assert world.broker.state.fleet.get(L2) is None


def test_a_lease_lost_before_its_feed_was_answered_is_deleted_when_it_is() -> None:
    world = World(answer_feeds=False)
    world.submit(job_spec())
    world.offer(L1)
    lease = world.feeds[0].lease
    world.offer(L1, leases=[lease])
    world.pass_time(3)
    sequence = world.store_feed()
    assert sequence not in world.work


@pytest.mark.parametrize("state", ["preparing", "running", "frozen"])
def test_a_lease_that_is_listed_after_its_last_report_is_cancelled(state: str) -> None:
    """Its lender forgot it in a restart and was given it once more: it would be run in vain."""
    world = World()
    lease = held(world)
    world.report(lease, [ok()])
    world.pass_time(ANSWER_S)
    world.offer(leases=[lease], state=state)
    assert world.cancelled() == [lease.lease]
    world.offer(L2, leases=[lease], state=state)
    assert world.cancelled(L2) == [lease.lease], "another one must not run it again"


def test_a_lease_whose_last_report_is_still_to_be_answered_is_left_to_its_lender() -> None:
    """Told to stop, it would forget results that are not durable yet."""
    world = World(land_commits=False)
    lease = held(world)
    world.report(lease, [ok()])
    world.pass_time(ANSWER_S - 1)
    world.offer(leases=[lease], state="running")
    assert world.cancelled() == []


def test_a_lost_lease_whose_tasks_have_all_their_results_leaves_nothing_to_lease() -> None:
    world = World()
    world.submit(job_spec(count=2))
    world.offer(L1, slots=1)
    first, second = world.queued()
    world.offer(L1, slots=2, leases=[first, second])
    assert world.verdict(world.report(first, [ok(0)], final=False)) == "committed"
    world.pass_time(2.6)
    check_places(world)
    world.offer(L2, slots=2)
    assert [list(one.tasks()) for one in world.queued()] == [[1]]
