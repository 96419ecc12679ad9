"""Of a class that many list a few keep a pull waiting; the others are told when needed."""

import pytest
from broker_world import BOB, L1, L2, LENDERS, World, class_of, job_spec

from broker.core.events import ClockJumped, HearingLost, HearingRestored
from broker.core.leasing import standing
from broker.core.leasing.standing import HELP_S, LEFT_S, STAND_S
from broker.core.state import Due
from lender.protocol.lease import Lease

LEFT = Due("left", (class_of(),))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two may stand."""
    monkeypatch.setattr(standing, "STANDING_MAX", 2)


def world_of(lenders: int = 5, **fields: object) -> World:
    world = World()
    for lender in LENDERS[:lenders]:
        world.offer(lender, **fields)
    return world


def submit(world: World, number: int, **fields: object) -> Lease:
    """The lease of a job that comes alone."""
    world.submit(job_spec(job=f"job-{number:04d}", **fields))
    return world.queued()[-1]


def told(world: World) -> list[tuple[str, float | None]]:
    """Who was told of the class, and for how long, since this was last asked."""
    words = [
        (sent.lender, sent.control.stand_s)
        for sent in world.controls
        if sent.control.kind == "open" and class_of() in sent.control.classes
    ]
    world.controls.clear()
    return words


def settled() -> tuple[World, list[str]]:
    """A fleet in which two stand, all were told of nothing else for a while, and who those are."""
    world = world_of()
    world.run(submit(world, 0))
    stand = [lender for lender, _ in told(world)]
    for _ in range(5):
        world.pass_time(1.0)
        for lender in LENDERS[:5]:
            world.offer(lender)
    assert told(world) == []
    return world, stand


def test_where_no_more_list_a_class_than_may_stand_all_do_for_good() -> None:
    world = world_of(2)
    submit(world, 1)
    assert told(world) == [(L1, None), (L2, None)]
    world.offer(L2, classes=[class_of(), class_of(BOB)])
    world.offer(L2, classes=[class_of(BOB)])
    world.offer(L2)
    assert told(world) == [(L2, None)], "who lists it anew, too"


def test_where_many_do_some_are_told_to_stand_and_then_nobody_of_jobs_that_come_alone() -> None:
    world = world_of()
    world.run(submit(world, 1))
    words = told(world)
    assert [stand_s for _, stand_s in words] == [STAND_S, STAND_S]
    assert len({lender for lender, _ in words}) == 2
    for number in range(2, 30):
        world.pass_time(1.0)
        for lender in LENDERS[:5]:
            world.offer(lender)
        world.run(submit(world, number), words[0][0])
    assert told(world) == []


def test_others_stand_when_their_time_is_over_and_for_other_classes() -> None:
    world, stand = settled()
    for _ in range(int(STAND_S)):
        world.pass_time(1.0)
        for lender in LENDERS[:5]:
            world.offer(lender)
    world.run(submit(world, 2))
    again = told(world)
    assert [stand_s for _, stand_s in again] == [STAND_S, STAND_S]
    assert {lender for lender, _ in again} != set(stand)


def test_more_than_those_who_stand_have_slots_for_is_told_to_others_for_a_while() -> None:
    world, stand = settled()
    for number in (1, 2):
        submit(world, number)
        assert told(world) == []
    submit(world, 3)
    assert len(told(world)) == 1
    world.offer(stand[0])
    world.pass_time(2.0)
    for lender in LENDERS[:5]:
        world.offer(lender)
    assert {lender for lender, _ in told(world)} == set(LENDERS[:5]), "it waits still"


def test_a_lease_that_is_left_to_those_who_stand_is_nobody_elses_to_be_told_of() -> None:
    world, stand = settled()
    world.broker.state.stands.put(class_of(), stand[0], world.now + 9.0)
    lease = submit(world, 1)
    for lender in LENDERS[:5]:
        world.offer(lender)
    assert told(world) == []
    world.offer(stand[0], leases=[lease])
    world.pass_time(2 * LEFT_S)
    assert LEFT not in world.broker.state.due
    assert told(world) == []


def test_what_those_who_stand_do_not_take_is_told_and_nobody_counts_on_them_any_more() -> None:
    world, _ = settled()
    submit(world, 1)
    world.pass_time(LEFT_S - 0.01)
    assert told(world) == []
    world.pass_time(0.02)
    ((lender, stand_s),) = told(world)
    assert (lender, stand_s) == (L1, STAND_S), "in whose room it is counted"
    world.offer(L2)
    assert [one for one, _ in told(world)] == [L2], "and whoever offers while it waits"


def test_each_is_left_for_as_long() -> None:
    world, _ = settled()
    first = submit(world, 1)
    world.pass_time(LEFT_S - 0.1)
    second = submit(world, 2)
    world.run(first)
    world.pass_time(0.2)
    assert told(world) == []
    world.pass_time(0.1)
    assert len(told(world)) == 1
    world.run(second)


def test_who_has_gone_or_has_no_slot_is_not_counted_on() -> None:
    world, stand = settled()
    for one in stand:
        world.offer(one, phase="yielding")
    submit(world, 1)
    assert [stand_s for _, stand_s in told(world)] == [HELP_S]
    world, stand = settled()
    for one in stand:
        world.offer(one, phase="offline")
    submit(world, 1)
    words = told(world)
    assert [stand_s for _, stand_s in words] == [STAND_S, STAND_S]
    assert {lender for lender, _ in words}.isdisjoint(stand)


@pytest.mark.parametrize(
    "limits", [{"cpu": 3}, {"memory_bytes": 1 << 40}, {"scratch_bytes": 1 << 30}]
)
def test_those_who_stand_are_not_counted_on_for_what_they_have_no_room_for(
    limits: dict[str, int],
) -> None:
    world, stand = settled()
    other = next(one for one in LENDERS[:5] if one not in stand)
    for one in LENDERS[:5]:
        world.offer(one, disk_free_bytes=1 << 20, memory_free_bytes=1 << 39)
    world.offer(other, slots=4, memory_free_bytes=1 << 40, disk_free_bytes=1 << 31)
    submit(world, 1, limits=limits)
    assert told(world) == [(other, HELP_S)]


def test_who_refused_a_job_does_not_keep_it_from_the_one_that_it_is_meant_for() -> None:
    world, stand = settled()
    lease = submit(world, 1)
    world.report(lease, [], stand[0], outcome="refused", reason="not here")
    world.ack(lease)
    world.pass_time(3.0)
    for lender in LENDERS[:5]:
        world.offer(lender)
    assert told(world) != []


def test_a_clock_that_jumps_changes_nothing() -> None:
    for by_s in (-3600.0, 3600.0):
        world, _ = settled()
        submit(world, 1)
        world.now += by_s
        world.do(ClockJumped(by_s))
        world.pass_time(LEFT_S - 0.01)
        assert told(world) == []
        world.pass_time(0.02)
        assert len(told(world)) == 1


def test_while_the_broker_is_deaf_nobody_is_late() -> None:
    world, stand = settled()
    lease = submit(world, 1)
    world.do(HearingLost())
    world.pass_time(1.0)
    assert told(world) == []
    world.do(HearingRestored())
    world.offer(stand[0], leases=[lease])
    world.pass_time(2.0)
    assert LEFT not in world.broker.state.due
    assert told(world) == []
