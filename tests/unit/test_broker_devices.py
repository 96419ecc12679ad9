"""A device goes to one lease at a time, and only who has it is asked."""

from broker_world import L1, L2, L3, World, class_of, job_spec

from broker.core.matching.lender import Lender
from broker.core.matching.need import Need
from broker.core.matching.places import free_places
from lender.protocol.classes import own_queue
from lender.protocol.job import Requires
from lender.protocol.lease import Offer

HAILO = "accel-hailo8"
CORAL = "accel-coral-pcie"
ON_HAILO = Requires(labels=(HAILO,))
OFFER = {
    "lender": L1,
    "name": "",
    "phase": "lending",
    "slots_total": 8,
    "slots_free": 8,
    "cpu_free": 8.0,
    "memory_free_bytes": 8 << 30,
    "arch": "aarch64",
    "os": "linux",
    "labels": (HAILO,),
    "runtimes": ("process",),
    "classes": (class_of(),),
    "consent_digest": "",
}


def submit(world: World, number: int, *labels: str) -> None:
    world.submit(job_spec(job=f"job-{number:04d}", requires=Requires(labels=labels)))


def near(world: World, lender: str) -> list[str]:
    """The jobs that wait in a lender's own queue."""
    return [lease.job for lease in world.queued(own_queue(lender))]


def why(world: World, number: int = 1) -> str:
    return world.query(f"job-{number:04d}").jobs[0].why


def test_of_many_machines_only_the_one_with_the_device_is_given_the_work() -> None:
    world = World()
    for lender in (L1, L2):
        world.offer(lender, slots=8)
    world.offer(L3, labels=(HAILO,))
    submit(world, 1, HAILO)
    assert near(world, L3) == ["job-0001"]
    assert len(world.work) == 1


def test_nobody_is_given_it_where_none_has_the_device() -> None:
    world = World()
    world.offer(L1, labels=(CORAL,))
    submit(world, 1, HAILO)
    assert not world.work
    assert why(world) == (
        "no machine matches, 1 that lends it lacks something; "
        "1 would match without the label accel-hailo8"
    )


def test_a_device_is_one_slot_whatever_else_is_free() -> None:
    world = World()
    world.offer(L1, slots=8, labels=(HAILO, CORAL))
    for number in (1, 2):
        submit(world, number, HAILO)
    submit(world, 3, CORAL)
    submit(world, 4)
    assert near(world, L1) == ["job-0001", "job-0003"]
    assert [lease.job for lease in world.queued()] == ["job-0001", "job-0003", "job-0004"]
    assert why(world, 2) == "1 machine matches it: 1 busy"


def test_who_waits_for_the_device_gets_it_next() -> None:
    world = World()
    world.offer(L1, slots=8, labels=(HAILO,))
    for number in (1, 2):
        submit(world, number, HAILO)
    lease = world.pull()
    world.offer(L1, slots=8, labels=(HAILO,), leases=[lease])
    assert near(world, L1) == ["job-0001"]
    assert world.run(lease, L1) == "committed"
    assert near(world, L1) == ["job-0002"]


def test_another_machine_with_the_device_takes_what_waits() -> None:
    world = World()
    world.offer(L1, slots=8, labels=(HAILO,))
    for number in (1, 2):
        submit(world, number, HAILO)
    world.offer(L2, labels=(HAILO,))
    assert near(world, L2) == ["job-0002"]


def test_the_tasks_of_a_gang_find_one_place_at_one_device() -> None:
    said = Offer.model_validate(OFFER)
    lender = Lender(L1, said, 0.0)
    lender.hear(0.0, said, ())
    need = Need.of(job_spec(requires=ON_HAILO))
    assert list(free_places([lender], need, frozenset(), 4)) == [L1]
    lender.claim("lease-1", need)
    lender.claim("lease-2", need)
    assert not lender.release("lease-1"), "another has the device"
    assert list(free_places([lender], need, frozenset(), 4)) == []
    assert not lender.lies_idle_for(need)
    assert lender.release("lease-2"), "there is room that was not there before"
    assert lender.lies_idle_for(need)
