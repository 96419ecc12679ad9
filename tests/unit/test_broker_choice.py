"""Which lender a lease is meant for."""

from collections import Counter

import pytest
from broker_world import ALICE, L1, L2, L3, LENDERS, World, class_of, job_spec

from broker.core.matching.lender import Lender
from broker.core.matching.shelf import Shelf
from lender.protocol.classes import own_queue
from lender.protocol.job import BlobRef, Input, Limits, Requires
from lender.protocol.lease import PREPARE_FIELD

HOUR = 3600.0
GIB = 1 << 30


def meant_for(world: World, job: str = "job-0001") -> list[str]:
    """The lenders to whom a job's leases are counted, in order."""
    state = world.broker.state
    leases = [state.leases[lease.lease] for lease in world.queued() if lease.job == job]
    return [lease.claim for lease in leases]


@pytest.mark.parametrize(
    ("expected_s", "lender"),
    [(1.0, L1), (20.0, L1), (60.0, L2), (500.0, L2), (5 * HOUR, L3), (100 * HOUR, L3)],
)
def test_who_leaves_soon_gets_short_work(expected_s: float, lender: str) -> None:
    world = World()
    world.offer(L3, stay_s=9 * HOUR)
    world.pass_time(0.1)
    for _ in range(3):  # nine hours and more, as it turns out
        world.broker.state.fleet._stays._began[L3] -= 3 * HOUR
    world.offer(L3, stay_s=9 * HOUR)
    world.offer(L2, stay_s=1000.0)
    world.offer(L1, stay_s=50.0)
    world.submit(job_spec(expected_s=expected_s))
    assert meant_for(world) == [lender]


def test_a_short_stay_is_better_than_waiting_and_a_longer_one_better_than_a_short_one() -> None:
    world = World()
    world.offer(L1, stay_s=10.0, slots=1)
    world.offer(L2, stay_s=200.0, slots=1)
    for number in range(4):
        world.submit(job_spec(job=f"job-{number:04d}", expected_s=900.0))
    meant = [meant_for(world, f"job-{number:04d}")[0] for number in range(4)]
    assert meant == [L2, L2, L1, L1]


def test_times_are_learned_from_jobs_that_ask_for_the_same() -> None:
    world = World()
    world.offer(L1, stay_s=50.0)
    world.offer(L2, stay_s=1000.0)
    world.submit(job_spec())
    assert meant_for(world) == [L2], "unknown tasks might take a minute"
    world.run(world.pull(), L2, duration_s=2.0)
    world.submit(job_spec(job="job-0002"))
    assert meant_for(world, "job-0002") == [L1]
    world.run(world.pull(), L1, duration_s=900.0)
    world.submit(job_spec(job="job-0003"))
    assert meant_for(world, "job-0003") == [L2]


def test_labels_and_systems_are_kept_apart() -> None:
    world = World()
    world.offer(L1)
    world.offer(L2, os="macos")
    world.offer(L3, labels=("ssd", "quiet"))
    world.submit(job_spec(requires=Requires(os="macos")))
    world.submit(job_spec(job="job-0002", requires=Requires(labels=("ssd",))))
    world.submit(job_spec(job="job-0003", requires=Requires(labels=("ssd", "loud"))))
    assert meant_for(world) == [L2]
    assert meant_for(world, "job-0002") == [L3]
    assert meant_for(world, "job-0003") == []
    world.offer(L1, labels=("loud", "ssd"))
    assert meant_for(world, "job-0003") == [L1]


def test_a_sealed_job_goes_to_those_alone_that_have_its_key() -> None:
    world = World()
    for lender in (L1, L2):
        world.offer(lender, slots=1)
    keys = {ALICE.public_key: "A" * 107, L2: "B" * 107, L3: "C" * 107}
    for number in range(3):
        world.submit(job_spec(job=f"job-{number:04d}", sealing={"keys": keys}))
    meant = [meant_for(world, f"job-{number:04d}") for number in range(3)]
    assert meant == [[L2], [L2], []]
    assert world.queued()[0].lease in {one.lease for one in world.queued(own_queue(L2))}
    world.offer(L3)
    assert meant_for(world, "job-0002") == [L3]


def test_of_those_with_room_the_one_with_preferred_labels_comes_first() -> None:
    world = World()
    world.offer(L1)
    world.offer(L2, labels=("ssd", "quiet"), slots=1)
    world.offer(L3, labels=("ssd",), stay_s=9 * HOUR)
    prefers = Requires(prefers=("ssd", "quiet"))
    for number in range(3):
        world.submit(job_spec(job=f"job-000{number}", requires=prefers))
    meant = [meant_for(world, f"job-000{number}")[0] for number in range(3)]
    assert meant == [L2, L2, L3]


def test_work_goes_to_where_its_inputs_are() -> None:
    world = World()
    large = BlobRef(sha256="a" * 64, size_bytes=GIB)
    small = Input(name="small", sha256="b" * 64, size_bytes=1000)
    world.offer(L1)
    world.offer(L2, blobs=(large.sha256,))
    world.offer(L3, blobs=(small.sha256,))
    world.submit(job_spec(inputs=(small,)))
    world.submit(job_spec(job="job-0002", program=large, inputs=(small,)))
    assert meant_for(world) == [L1], "what is small is nowhere far"
    assert meant_for(world, "job-0002") == [L2]


def test_a_few_are_compared_and_not_the_whole_fleet() -> None:
    world = World()
    for lender in LENDERS[1:]:
        world.offer(lender, classes=[])
    state = world.broker.state
    for number in range(200):
        offer = state.fleet.get(LENDERS[1]).offer
        state.fleet.hear(
            world.now,
            offer.model_copy(update={"lender": f"L{number}", "classes": (class_of(),)}),
            (),
        )
    world.offer(LENDERS[0], labels=("ssd",))
    world.submit(job_spec(requires=Requires(prefers=("ssd",))))
    assert meant_for(world) == ["L0"]


def test_a_large_task_gets_its_turn_between_small_ones() -> None:
    world = World()
    small = Limits(memory_bytes=GIB // 8)
    world.submit(job_spec(count=100, limits=small, created_at=world.now - 100))
    world.offer(slots=4, memory_free_bytes=GIB)
    world.submit(job_spec(job="large-01", limits=Limits(cpu=4, memory_bytes=GIB), priority=10))
    assert meant_for(world, "large-01") == []
    world.run(world.pull())
    assert meant_for(world, "large-01") == [L1]
    before = len(world.work)
    for lease in world.queued()[:3]:
        world.run(lease)
    assert len(world.work) == before - 3, "it takes as much room as it needs"


def test_memory_is_room_too() -> None:
    world = World()
    world.submit(job_spec(count=100, limits=Limits(memory_bytes=GIB)))
    world.offer(slots=8, memory_free_bytes=3 * GIB)
    assert len(world.work) == 6
    held = world.queued()[:2]
    world.offer(slots=8, memory_free_bytes=GIB, leases=held)
    assert len(world.work) == 6
    world.offer(slots=8, memory_free_bytes=2 * GIB, leases=held)
    assert len(world.work) == 8


def test_a_lease_in_the_queue_is_counted_where_there_is_room_for_its_kind() -> None:
    world = World()
    world.submit(job_spec(requires=Requires(labels=("ssd",))))
    world.submit(job_spec(job="job-0002"))
    world.offer(L1, labels=("ssd",))
    world.offer(L2)
    world.offer(L1, phase="offline")
    assert meant_for(world) == [None]
    assert meant_for(world, "job-0002") == [L2]
    world.offer(L3, labels=("ssd",))
    assert meant_for(world) == [L3]


def test_lenders_with_room_are_found_whatever_came_before_them() -> None:
    """Thousands of groups' worth of coming and going leave no gaps behind."""
    shelf = Shelf()
    world = World()
    world.offer()
    offer = world.broker.state.fleet.get(L1).offer
    lenders = [Lender(str(number), offer, 0.0) for number in range(200)]
    for one in lenders:
        shelf.put(one)
    for _ in range(50):
        for one in lenders[50:150]:
            shelf.drop(one)
            shelf.put(one)
        assert len(shelf.lenders) < 600
        standing = Counter(one.id for one in shelf.lenders if one is not None)
        assert standing == Counter(one.id for one in lenders)
        for one in lenders:
            assert shelf.lenders[one.place - shelf.first] is one
    end = shelf.end
    for one in lenders:
        shelf.drop(one)
    assert (shelf.lenders, shelf.end >= end) == ([], True)


def test_who_refused_is_asked_again_if_nobody_else_may_run_it() -> None:
    world = World()
    world.submit(job_spec(requires=Requires(labels=("ssd",)), retries=0))
    world.offer(L1, labels=("ssd",), slots=1)
    world.offer(L2, slots=1)
    lease = world.pull()
    world.report(lease, [], L1, outcome="refused", reason="no")
    world.ack(lease)
    world.pass_time(0.1)
    assert meant_for(world) == [L1], "it rests, but no longer"
    world.offer(L3, labels=("ssd",), slots=1)
    lease = world.pull()
    world.report(lease, [], L1, outcome="refused", reason="no")
    world.ack(lease)
    world.pass_time(0.2)
    assert meant_for(world) == [L3]


def test_a_job_put_aside_is_looked_at_again_when_the_first_refusal_is_forgotten() -> None:
    world = World()
    world.submit(job_spec())
    world.offer(L1, slots=1)
    world.offer(L2, slots=1, phase="paused")
    lease = world.pull()
    world.report(lease, [], L1, outcome="refused", reason="no")
    world.ack(lease)
    world.pass_time(0.15)
    assert world.work == {}, "L2 is to have it, if it comes back soon"
    world.pass_time(0.1)
    assert meant_for(world) == [L1], "nothing else has happened"


def test_one_of_several_jobs_put_aside_leaves_its_turn_to_the_next() -> None:
    world = World()
    world.offer(L2, slots=1, phase="paused")
    for number in range(3):
        world.submit(job_spec(job=f"job-000{number}"))
    world.offer(L1, slots=1)
    for lease in world.queued():
        world.report(lease, [], L1, outcome="refused", reason="no")
        world.ack(lease)
    assert [lease.job for lease in world.queued()] == ["job-0002"]
    world.pass_time(0.1)
    assert [lease.job for lease in world.queued()] == ["job-0002"]
    world.offer(L2, slots=1, classes=[class_of(ALICE)])
    assert {lease.job for lease in world.queued()} == {"job-0000", "job-0001", "job-0002"}


def test_who_took_too_long_to_prepare_is_avoided_as_long_as_that_may_take() -> None:
    world = World()
    world.submit(job_spec(limits=Limits(prepare_s=30.0)))
    world.offer(L1, slots=1)
    world.offer(L2, slots=1, phase="paused")
    lease = world.pull()
    world.report(lease, [], L1, outcome="refused", field=PREPARE_FIELD, reason="too long")
    world.ack(lease)
    for _ in range(29):
        world.pass_time(1)
        world.offer(L1, slots=1)
        world.offer(L2, slots=1, phase="paused")
        assert world.work == {}
    world.pass_time(1)
    assert meant_for(world) == [L1]
    lease = world.pull()
    world.report(lease, [], L1, outcome="refused", field=PREPARE_FIELD, reason="too long")
    world.ack(lease)
    world.pass_time(1)
    world.offer(L1, slots=1)
    world.offer(L2, slots=1)
    assert meant_for(world) == [L2]
