"""How deep the queues are kept, for whom first, and how large a lease is."""

from collections import Counter

import pytest
from broker_world import ALICE, BOB, L1, L2, L3, World, bad, class_of, job_spec

from broker.core.leasing.feed import lease_size
from broker.core.matching.groups import LEARNT_MIN
from lender.protocol.signature import Signer

ANY = [class_of(ALICE), class_of(BOB)]


def submit_many(
    world: World, count: int, signer: Signer = ALICE, prefix: str = "job", **fields: str
) -> None:
    for number in range(count):
        world.submit(job_spec(signer, f"{prefix}-{number:04d}", **fields), signer)


def test_nothing_is_fed_where_nobody_would_take_it() -> None:
    world = World()
    submit_many(world, 5)
    assert world.work == {}
    world.offer(phase="paused")
    assert world.work == {}
    world.offer(classes=[class_of(BOB)])
    assert world.work == {}


def test_the_queue_is_about_twice_as_deep_as_there_are_slots() -> None:
    world = World()
    submit_many(world, 50)
    world.offer(slots=3)
    assert len(world.work) == 6
    taken = world.queued()[:3]
    world.offer(slots=3, leases=taken)
    assert len(world.work) == 6
    for lease in taken:
        world.run(lease)
    assert len(world.work) == 6


def test_classes_share_the_room_of_a_machine_fairly_between_submitters() -> None:
    world = World()
    submit_many(world, 20, ALICE)
    submit_many(world, 20, ALICE, "more", workload="checksum")
    submit_many(world, 20, BOB)
    world.offer(slots=4, classes=[*ANY, class_of(ALICE, "checksum")])
    owners = Counter(lease.submitter for lease in world.queued())
    assert owners == {ALICE.public_key: 4, BOB.public_key: 4}


def test_a_submitter_that_comes_late_is_served_next() -> None:
    world = World()
    submit_many(world, 20, ALICE)
    world.offer(slots=2, classes=ANY)
    submit_many(world, 20, BOB)
    for _ in range(2):
        world.run(world.pull(class_of(ALICE)))
    assert Counter(one.submitter for one in world.queued())[BOB.public_key] == 2


def test_jobs_of_a_submitter_go_in_order() -> None:
    world = World()
    submit_many(world, 10)
    world.offer(slots=2)
    assert [lease.job for lease in world.queued()] == [f"job-{n:04d}" for n in range(4)]


def test_a_requeued_job_goes_before_later_ones() -> None:
    world = World()
    submit_many(world, 10)
    world.offer(slots=1)
    first = world.pull()
    world.report(first, [], outcome="evicted")
    world.ack(first)
    assert [lease.job for lease in world.queued()] == ["job-0001", "job-0000"]


def test_a_lender_that_is_gone_leaves_its_room_to_others() -> None:
    world = World()
    submit_many(world, 20)
    world.offer(L1, slots=3)
    assert len(world.work) == 6
    world.offer(L1, phase="offline")
    world.offer(L2, slots=1)
    assert len(world.work) == 6, "what waits takes the room before anything new"
    for lease in world.queued()[:5]:
        world.offer(L2, slots=1, leases=[lease])
        world.run(lease, L2)
    assert len(world.work) == 2


def test_a_lender_that_lists_fewer_classes_gets_fewer() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY, slots=1)
    world.offer(L1, classes=[class_of(BOB)])
    submit_many(world, 20, ALICE)
    assert len(world.work) == 2
    assert world.broker.state.fleet.slots_of(class_of(ALICE)) == 1
    assert world.broker.state.fleet.slots_of(class_of(BOB)) == 3
    world.offer(L2, classes=[])
    assert world.broker.state.fleet.slots_of(class_of(ALICE)) == 0


def test_slots_that_change_are_counted_in_every_class() -> None:
    world = World()
    world.offer(L1, classes=ANY, slots=1)
    world.offer(L1, classes=ANY, slots=5)
    assert world.broker.state.fleet.slots_of(class_of(BOB)) == 5
    world.offer(L1, classes=ANY, phase="yielding")
    assert world.broker.state.fleet.slots_of(class_of(BOB)) == 0
    assert len(world.broker.state.fleet) == 1


def test_a_lease_taken_by_another_is_counted_to_that_one() -> None:
    world = World()
    submit_many(world, 20)
    world.offer(L1, slots=1)
    taken = world.pull()
    world.offer(L2, slots=1, leases=[taken])
    assert {lender.id: len(lender.claims) for lender in world.broker.state.fleet} == {L1: 2, L2: 2}


@pytest.mark.parametrize(
    ("mean_s", "remaining", "slots", "size"),
    [
        (0.0, 10_000_000, 4, 20_000),
        (0.00001, 10_000_000, 4, 20_000),
        (0.0001, 1_000_000, 4, 10_000),
        (0.01, 1_000_000, 4, 100),
        (0.01, 80, 4, 10),
        (30.0, 1_000_000, 4, 1),
        (0.01, 3, 4, 1),
        (0.01, 3, 0, 1),
        # So many slots would ask for 10,000 leases a second.
        (0.05, 10_000_000, 10_000, 40),
        # An equal share of the rest would be two tasks, and 5,000 leases for three seconds' work.
        (0.0003, 10_000, 2_500, 81),
    ],
)
def test_a_lease_is_about_a_second_of_work(
    mean_s: float, remaining: int, slots: int, size: int
) -> None:
    assert lease_size(mean_s, remaining, slots) == size


def test_leases_of_an_array_grow_with_what_is_measured() -> None:
    world = World()
    world.submit(job_spec(count=1_000_000))
    world.offer(slots=2)
    assert [lease.task_count for lease in world.queued()] == [1, 1, 1, 1]
    world.run(world.pull(), duration_s=0.01)
    assert [lease.task_count for lease in world.queued()] == [1, 1, 1, 100]
    (job,) = world.broker.state.jobs
    assert sum(len(list(tasks)) for tasks in job.pending.values()) == 1, "intervals, not tasks"


def test_a_refused_job_comes_back_later_each_time() -> None:
    world = World()
    world.submit(job_spec())
    world.offer()
    waits = []
    for _ in range(9):
        lease = world.pull()
        world.report(lease, [], outcome="refused", reason="too large")
        world.ack(lease)
        start = world.now
        while not world.work:
            world.offer()
            world.pass_time(0.05)
        waits.append(round(world.now - start, 1))
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert waits == sorted(waits)
    assert max(waits) <= 10.1


def test_a_refused_job_is_meant_for_others_while_there_are_any() -> None:
    world = World()
    world.submit(job_spec())
    world.submit(job_spec(job="job-0002"))
    world.offer(L1, slots=1)
    first, second = world.queued()
    world.report(first, [], outcome="refused")
    world.ack(first)
    world.offer(L2, slots=1, phase="paused")
    world.pass_time(0.1)
    assert [lease.job for lease in world.queued()] == ["job-0002"], "L2 is to have it, not L1"
    world.offer(L2, slots=1)
    assert [lease.job for lease in world.queued()] == ["job-0002", "job-0001"]
    assert world.run(world.queued()[1], L2) == "committed"
    assert world.run(second, L1) == "committed"


def test_no_lender_is_avoided_for_good() -> None:
    world = World()
    world.submit(job_spec())
    world.offer(L1, slots=1)
    lease = world.pull()
    world.report(lease, [], outcome="refused")
    world.ack(lease)
    world.offer(L2, slots=1, phase="paused")
    for _ in range(4):
        world.pass_time(0.1)
        world.offer(L1, slots=1)
    assert world.run(world.pull(), L1) == "committed"


def test_a_job_set_aside_does_not_hold_up_the_next() -> None:
    world = World()
    world.submit(job_spec(count=2))
    world.offer(L1, slots=1)
    for lease in world.queued():
        world.report(lease, [], outcome="refused")
        world.ack(lease)
    world.offer(L2, slots=0)
    world.offer(L3, slots=0)
    world.pass_time(0.1)
    world.submit(job_spec(job="job-0002"))
    assert [lease.job for lease in world.queued()] == ["job-0002"]


def test_work_goes_on_while_refused_tasks_rest() -> None:
    world = World()
    world.submit(job_spec(count=4))
    world.offer(slots=1)
    first, second = world.queued()
    world.report(first, [], outcome="refused")
    world.ack(first)
    third = world.queued()[-1]
    assert {first.tasks()[0], second.tasks()[0]}.isdisjoint(third.tasks())
    assert world.run(second) == "committed"
    world.pass_time(0.1)
    world.offer(slots=1)
    while world.terminal() is None:
        world.run(world.pull())
    assert len(world.tasks()) == 4


def test_a_task_that_failed_before_says_so_in_its_lease() -> None:
    world = World()
    world.submit(job_spec(retries=3))
    world.offer()

    lease = world.pull()
    world.report(lease, [bad()])
    world.ack(lease)
    world.pass_time(2)
    (queued,) = world.work.values()
    assert queued.headers == {"Lender-Failures": "1"}


def test_leases_of_an_array_begin_with_what_its_submitter_has_foretold() -> None:
    world = World()
    world.submit(job_spec(count=1_000_000, expected_s=0.01))
    world.offer(slots=2)
    assert [lease.task_count for lease in world.queued()] == [100] * 4


def test_leases_of_an_array_begin_with_what_is_usual_of_jobs_like_it() -> None:
    world = World()
    world.offer(slots=2)
    for number in range(LEARNT_MIN):
        world.submit(job_spec(job=f"job-{number:04d}"))
        world.run(world.pull(), duration_s=0.01)
        world.offer(slots=2)
    world.submit(job_spec(job="job-other", count=1_000_000, workload="checksum"))
    world.submit(job_spec(job="job-alike", count=1_000_000))
    world.offer(slots=2, classes=[class_of(ALICE)])
    sizes = [lease.task_count for lease in world.queued()]
    assert sizes == [100] * 4, "as long as they did"
    for duration_s in (0.5, 1.5):
        world.run(world.pull(), duration_s=duration_s)
    assert world.queued()[-1].task_count == 1, "what is measured counts"


def test_what_varies_is_foretold_to_take_long() -> None:
    world = World()
    world.offer(slots=2)
    for number in range(20):
        world.submit(job_spec(job=f"job-{number:04d}"))
        world.run(world.pull(), duration_s=0.001 if number % 2 else 0.5)
        world.offer(slots=2)
    world.submit(job_spec(job="job-alike", count=1_000_000))
    assert max(lease.task_count for lease in world.queued()) <= 2


def test_a_job_is_not_cut_to_pieces_where_others_like_it_wait() -> None:
    world = World()
    for number in range(10):
        world.submit(job_spec(job=f"job-{number:04d}", count=100, expected_s=0.001))
    world.offer(slots=2)
    assert [lease.task_count for lease in world.queued()] == [100] * 4
    world = World()
    world.submit(job_spec(count=100, expected_s=0.001))
    world.offer(slots=2)
    assert [lease.task_count for lease in world.queued()] == [25, 18, 14, 10]
