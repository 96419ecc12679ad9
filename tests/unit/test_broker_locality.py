"""A task with large inputs goes to the machine that holds them, if it takes it."""

import pytest
from broker_world import L1, L2, START, World, archive, job_spec

from broker.core.events import ClockJumped, HearingLost, HearingRestored
from broker.core.leasing.locality import FETCH_BYTES_MIN
from lender.protocol.classes import own_queue
from lender.protocol.job import BlobRef

MODEL = archive(FETCH_BYTES_MIN)


def submit(world: World, job: str = "job-0001", program: BlobRef = MODEL, **fields: object) -> None:
    world.submit(job_spec(job=job, program=program, **fields))


def near(world: World, lender: str = L2) -> list[str]:
    """The jobs that wait in a lender's own queue."""
    return [lease.job for lease in world.queued(own_queue(lender))]


def world_of_two() -> World:
    """Two lenders alike, the second of which has the model."""
    world = World()
    world.offer(L1)
    world.offer(L2, blobs=(MODEL.sha256,))
    return world


def test_it_waits_in_the_own_queue_of_who_holds_its_inputs() -> None:
    world = world_of_two()
    submit(world)
    assert near(world) == ["job-0001"]
    assert world.opened(L2) == [own_queue(L2)]
    assert world.opened(L1) == []
    lease = world.pull()
    world.offer(L2, leases=[lease], blobs=(MODEL.sha256,))
    world.pass_time(2.4)
    assert world.queued() == [lease], "who has taken it keeps it"
    assert world.run(lease, L2) == "committed"
    assert world.terminal().lender == L2


@pytest.mark.parametrize(
    "size_bytes", [FETCH_BYTES_MIN - 1, 1 << 19], ids=["soon fetched", "too small to be named"]
)
def test_what_is_soon_fetched_waits_for_nobody(size_bytes: int) -> None:
    world = World()
    model = archive(size_bytes)
    world.offer(L2, blobs=(model.sha256,))
    submit(world, program=model)
    assert near(world) == []
    assert len(world.work) == 1


def test_who_is_busy_is_not_waited_for() -> None:
    world = World()
    world.submit(job_spec(job="job-0000"))
    world.offer(L2, slots=1, blobs=(MODEL.sha256,))
    world.offer(L2, slots=1, blobs=(MODEL.sha256,), leases=[world.pull()])
    submit(world)
    assert near(world) == []
    assert [lease.job for lease in world.queued()] == ["job-0000", "job-0001"]


def test_what_it_does_not_take_goes_to_others() -> None:
    world = world_of_two()
    submit(world)
    before = world.pull()
    world.pass_time(1.9)
    assert world.queued() == [before]
    world.pass_time(0.3)
    (lease,) = world.queued()
    assert near(world) == []
    assert lease.attempt == 2
    assert world.run(lease, L1) == "committed"
    assert world.verdict(world.report(before, [], L2)) == "stale"


def test_a_lender_that_goes_leaves_it_to_others() -> None:
    world = world_of_two()
    submit(world)
    world.offer(L2, phase="offline")
    assert near(world) == []
    assert [lease.attempt for lease in world.queued()] == [2]


def test_one_that_was_never_stored_is_withdrawn_too() -> None:
    world = world_of_two()
    world.answer_feeds = False
    submit(world)
    world.pass_time(2.2)
    sequence = world.store_feed()
    assert sequence not in world.work
    assert world.feeds[0].class_token != own_queue(L2)


def test_one_that_was_taken_before_its_feed_was_answered_is_told_to_nobody() -> None:
    world = world_of_two()
    world.answer_feeds = False
    submit(world)
    lease = world.feeds[0].lease
    world.offer(L2, leases=[lease], blobs=(MODEL.sha256,))
    world.store_feed()
    assert world.opened(L2) == []


def test_a_broker_that_starts_gives_it_the_time_to_be_taken() -> None:
    world = world_of_two()
    submit(world)
    world.start()
    world.offer(L1)
    world.pass_time(5.0)
    world.offer(L1)
    assert near(world) == ["job-0001"]
    world.pass_time(1.2)
    assert near(world) == []
    assert [lease.attempt for lease in world.queued()] == [2]


def test_a_clock_that_jumps_takes_no_time_from_it() -> None:
    world = world_of_two()
    submit(world)
    world.now += 100
    world.do(ClockJumped(100))
    world.pass_time(1.5)
    assert near(world) == ["job-0001"]


def test_while_nobody_is_heard_it_is_not_withdrawn() -> None:
    world = world_of_two()
    submit(world)
    world.do(HearingLost())
    world.pass_time(10.0)
    assert near(world) == ["job-0001"]
    world.do(HearingRestored())
    world.pass_time(3.0)
    assert near(world) == ["job-0001"]
    assert world.now == START + 13.0
