"""Gangs: n tasks at once or none, whoever comes, goes, or holds the room before."""

from dataclasses import replace

import pytest
from broker_world import ALICE, BOB, L1, L2, L3, World, bad, check_places, class_of, job_spec, ok
from gangs import ANY, begun, gang, pass_time, started, take, tasks, why

from broker.core.events import (
    ClockJumped,
    FeedFailed,
    HearingLost,
    HearingRestored,
)
from broker.core.gangs.gang import GATHER_MAX_S, GATHER_S, Gang
from broker.core.gangs.turns import LOOKS_MAX, LOOKS_OF_ONE_MAX
from broker.core.jobs.job import JobKey
from broker.core.matching.need import Amounts, Need
from lender.protocol.job import Limits


def test_nothing_is_leased_before_there_is_room_for_all() -> None:
    world = World()
    world.submit(gang(4))
    assert why(world).startswith("no machine offers it")
    world.offer(L1, classes=ANY)
    world.pass_time(1.0)
    assert world.work == {}
    assert why(world) == "a gang of 4 can't ever run at once: the fleet has 2 places for it"
    world.offer(L1, classes=ANY, slots=1, slots_total=4)
    assert why(world) == "a gang of 4: the fleet lends 1 place for it now"
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    world.pass_time(1.0)
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    world.offer(L3, classes=ANY, phase="paused")
    world.pass_time(1.0)
    assert [lease.tasks() for lease in world.queued()] == [[0], [1], [2], [3]]
    assert why(world) == "a gang of 4: 0 of 4 places taken, 0 ready, waiting for the others"


def test_nobody_begins_before_all_are_held() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    world.submit(gang(4))
    leases = world.queued()
    take(world, {L1: leases[:2], L2: leases[2:3]})
    assert started(world) == {}
    status = world.query("gang-0001").jobs[0]
    assert (status.state, status.tasks_running) == ("running", 0)
    assert status.why == "a gang of 4: 3 of 4 places taken, 3 ready, waiting for the others"
    take(world, {L2: leases[2:]})
    ids = [lease.lease for lease in leases]
    assert started(world) == {L1: ids[:2], L2: ids[2:]}
    assert world.query("gang-0001").jobs[0].tasks_running == 4
    for lease in leases:
        world.run(lease, L1 if lease in leases[:2] else L2)
    end = world.terminal("gang-0001")
    assert end is not None
    assert end.state == "succeeded"
    assert len(world.broker.state.gangs) == 0


def test_nobody_begins_before_all_are_ready() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    world.submit(gang(3))
    leases = world.queued()
    pass_time(world, GATHER_S - 2.0, {L1: leases[:2], L2: ()})
    for _ in range(30):
        world.pass_time(1.0)
        world.offer(L1, classes=ANY, leases=leases[:2], state="preparing", ready=True)
        world.offer(L2, classes=ANY, leases=leases[2:], state="preparing")
    assert started(world) == {}
    assert world.cancelled(L1) == [], "to prepare may take its time"
    assert why(world) == "a gang of 3: 3 of 3 places taken, 2 ready, waiting for the others"
    world.report(leases[2], [], L2, outcome="refused", reason="it was not prepared in time")
    world.ack(leases[2])
    world.pass_time(0.2)
    pass_time(world, GATHER_S, {L1: leases[:2], L2: ()})
    assert world.cancelled(L1) != [], "and then all gather anew"


def test_a_lender_that_missed_the_word_hears_it_again() -> None:
    world, leases = begun()
    world.controls.clear()
    ordinary = world.submit(job_spec(BOB), BOB)
    take(world, {L1: leases[:2]})
    assert started(world) == {L1: [lease.lease for lease in leases[:2]]}
    world.controls.clear()
    world.offer(L1, classes=ANY, leases=leases[:2])
    take(world, {L2: leases[:2]})  # another's
    other = next(one for one in world.queued() if one.job == ordinary.id)
    take(world, {L3: [other]})
    assert started(world) == {}


@pytest.mark.parametrize("outcome", ["evicted", "revoked", "refused", "finished"])
def test_one_that_comes_back_takes_all_others_along(outcome: str) -> None:
    world, leases = begun()
    world.report(leases[0], [], outcome=outcome)
    world.ack(leases[0])
    assert world.cancelled(L1) == [leases[1].lease]
    assert world.cancelled(L2) == [leases[2].lease, leases[3].lease]
    take(world, {L1: (), L2: ()})
    pass_time(world, 2.0, {L1: (), L2: ()})
    anew = world.queued()
    assert tasks(anew) == [0, 1, 2, 3]
    assert {lease.attempt for lease in anew} == {2}
    assert world.verdict(world.report(leases[3], [ok(3)], L2)) == "stale"
    check_places(world)


def test_a_lost_lender_takes_all_others_along() -> None:
    world, leases = begun()
    world.pass_time(2.0)
    world.offer(L1, classes=ANY, leases=leases[:2])
    world.pass_time(1.0)
    assert world.cancelled(L1) == [leases[0].lease, leases[1].lease]
    assert world.work == {}
    world.offer(L2, classes=ANY)
    world.offer(L1, classes=ANY)
    world.pass_time(1.0)
    assert tasks(world.queued()) == [0, 1, 2, 3]


def test_a_failure_with_retries_left_starts_all_anew() -> None:
    world, leases = begun(retries=1)
    world.report(leases[0], [bad(0)])
    world.ack(leases[0])
    take(world, {L1: (), L2: ()})
    world.pass_time(1.0)
    anew = world.queued()
    assert tasks(anew) == [0, 1, 2, 3]
    failures = {one.lease.tasks()[0]: one.headers for one in world.work.values()}
    assert failures == {0: {"Lender-Failures": "1"}, 1: {}, 2: {}, 3: {}}


def test_a_failure_for_good_leaves_the_others_running() -> None:
    world, leases = begun()
    world.report(leases[0], [bad(0)])
    assert world.cancelled(L1) == []
    for lease in leases[1:]:
        world.run(lease, L1 if lease is leases[1] else L2)
    end = world.terminal("gang-0001")
    assert end is not None
    assert (end.state, end.tasks_failed) == ("failed", 1)


def test_results_that_are_there_are_kept() -> None:
    world, leases = begun()
    world.report(leases[0], [ok(0)], final=False)
    world.report(leases[1], [], outcome="evicted")
    world.ack(leases[1])
    assert world.cancelled(L1) == [], "its last word on task 0 is still to come"
    world.run(leases[0])
    take(world, {L1: (), L2: ()})
    world.pass_time(1.0)
    assert tasks(world.queued()) == [1, 2, 3]


def test_who_is_not_complete_in_time_gives_up_what_it_holds_and_takes_longer_next_time() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    world.submit(gang(4))
    held = world.queued()[:2]
    pass_time(world, GATHER_S, {L1: held, L2: ()})
    assert set(world.cancelled(L1)) == {lease.lease for lease in held}
    assert world.work == {}
    assert why(world).endswith("after it was handed back: 2 of 4 tasks found a place within 10 s")
    pass_time(world, GATHER_S, {L1: (), L2: ()})
    assert tasks(world.queued()) == [0, 1, 2, 3]
    pass_time(world, 2 * GATHER_S - 1.0, {L1: (), L2: ()})
    assert tasks(world.queued()) == [0, 1, 2, 3]
    pass_time(world, 1.0, {L1: (), L2: ()})
    assert world.work == {}


def test_nothing_is_held_for_others_that_cannot_come_any_more() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    world.submit(gang(4))
    held = world.queued()[:2]
    take(world, {L1: held})
    world.offer(L2, classes=[class_of(BOB)])
    pass_time(world, 1.0, {L1: held})
    assert set(world.cancelled(L1)) == {lease.lease for lease in held}
    assert world.work == {}
    assert why(world).startswith("a gang of 4 can't ever run at once")
    take(world, {L1: (), L2: ()})
    world.pass_time(1.0)
    assert tasks(world.queued()) == [0, 1, 2, 3]


def test_no_gather_takes_longer_than_an_hour() -> None:
    world = World()
    world.submit(gang())
    one = world.broker.state.gangs[JobKey(ALICE.public_key, "gang-0001")]
    one.gathers = 1000
    assert one.gather_s == GATHER_MAX_S
    with pytest.raises(RuntimeError, match="waiting -> running"):
        one.enter("running")


def test_before_the_start_one_that_comes_back_is_leased_again_alone() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    world.submit(gang(4))
    leases = world.queued()
    take(world, {L1: leases[:2]})
    world.report(leases[2], [], L2, outcome="refused", reason="too large")
    world.ack(leases[2])
    world.pass_time(0.2)
    assert world.cancelled(L1) == []
    again = world.queued()
    assert tasks(again) == [0, 1, 2, 3]
    assert {lease.tasks()[0]: lease.attempt for lease in again} == {0: 1, 1: 1, 2: 2, 3: 1}
    take(world, {L2: [one for one in again if one.tasks()[0] in (2, 3)]})
    assert sum(map(len, started(world).values())) == 4


def test_one_whose_only_lease_comes_back_waits_again() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.submit(gang(1))
    (lease,) = world.queued()
    world.report(lease, [], outcome="refused")
    world.ack(lease)
    world.pass_time(0.2)
    assert world.queued() == []
    assert "handed back" not in why(world)
    world.pass_time(20.0)
    world.offer(L1, classes=ANY)
    world.pass_time(1.0)
    assert tasks(world.queued()) == [0]


def test_a_feed_that_failed_is_tried_again() -> None:
    world = World(answer_feeds=False)
    world.offer(L1, classes=ANY)
    world.submit(gang(2))
    lost = world.feeds.pop(0)
    world.do(FeedFailed(lost.lease_id, "no answer"))
    world.store_feed()
    world.pass_time(0.2)
    world.store_feed()
    assert tasks(world.queued()) == [0, 1]


def test_what_is_given_up_before_it_is_stored_is_deleted_later() -> None:
    world = World(answer_feeds=False)
    world.offer(L1, classes=ANY)
    world.submit(gang(2))
    pass_time(world, GATHER_S, {L1: ()})
    world.store_feed()
    world.store_feed()
    assert world.work == {}


def busy_fleet() -> World:
    """Bob's tasks hold all of two lenders, and as many wait in the queue."""
    world = World()
    for number in range(20):
        world.submit(job_spec(BOB, f"job-{number:04d}"), BOB)
    world.offer(L3, classes=ANY, phase="paused")
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    held = world.queued()
    take(world, {L1: held[:2], L2: held[2:4]})
    return world


def test_in_its_turn_a_gang_gathers_while_others_hold_the_room() -> None:
    world = busy_fleet()
    before = len(world.queued())
    world.submit(gang(3))
    mine = [one for one in world.queued() if one.job == "gang-0001"]
    assert tasks(mine) == [0, 1, 2]
    for lease, lender in zip(world.queued()[:3], (L1, L1, L2), strict=True):
        assert world.run(lease, lender) == "committed"
    others = [one for one in world.queued() if one.job != "gang-0001"]
    assert len(others) == before - 3, "what comes free is the gang's, and nothing new is leased"


def test_others_that_had_less_go_first() -> None:
    world = busy_fleet()
    world.submit(gang(3, "gang-0002", BOB, created_at=world.now + 1), BOB)
    assert why(world, "gang-0002", BOB) == (
        "a gang of 3: 0 of 3 places free now, and other work comes first"
    )
    for number in range(20):
        world.submit(job_spec(ALICE, f"job-{number:04d}"))
    first = world.pull(class_of(BOB))
    world.run(first)
    assert any(one.submitter == ALICE.public_key for one in world.queued())
    world.submit(gang(3, "gang-0003", BOB, priority=100), BOB)
    assert "other work comes first" in why(world, "gang-0003", BOB)
    assert not any("gang" in one.job for one in world.queued())


def test_what_no_machine_could_take_now_holds_no_gang_up() -> None:
    world = World()
    world.submit(job_spec(job="job-0000", limits=Limits(cpu=64)))
    world.offer(L1, classes=ANY)
    for number in range(9):
        world.submit(job_spec(BOB, f"job-{number:04d}"), BOB)
    take(world, {L1: world.queued()[:2]})
    world.submit(gang(2))
    assert tasks([one for one in world.queued() if one.job == "gang-0001"]) == [0, 1]


def test_own_jobs_that_came_first_go_first() -> None:
    world = World()
    for number in range(9):
        world.submit(job_spec(job=f"job-{number:04d}"))
    world.offer(L1, classes=ANY)
    world.submit(gang(2, created_at=world.now + 1))
    assert not any("gang" in one.job for one in world.queued())
    world.submit(gang(2, "gang-0002", priority=1))
    world.pass_time(1.0)
    assert tasks([one for one in world.queued() if one.job == "gang-0002"]) == [0, 1]


def test_one_that_is_too_large_blocks_nobody() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.submit(gang(200))
    world.submit(gang(2, "gang-0002", created_at=world.now + 1))
    world.pass_time(1.0)
    assert tasks(world.queued()) == [0, 1]
    assert {one.job for one in world.queued()} == {"gang-0002"}
    for number in range(5):
        world.submit(job_spec(BOB, f"job-{number:04d}"), BOB)
    assert any(one.submitter == BOB.public_key for one in world.queued())


def test_gangs_that_share_machines_gather_one_after_another() -> None:
    world = busy_fleet()
    world.submit(gang(3))
    world.submit(gang(3, "gang-0002", created_at=world.now + 1))
    world.pass_time(1.0)
    assert {one.job for one in world.queued() if "gang" in one.job} == {"gang-0001"}
    world.offer(L3, classes=[class_of(ALICE, "render")], slots=4)
    world.submit(gang(4, "gang-0003", workload="render"))
    world.pass_time(1.0)
    assert "gang-0003" in {one.job for one in world.queued()}


def test_room_is_not_free_where_something_waits_for_it() -> None:
    world = World()
    world.offer(L1, classes=ANY, slots=1)
    for number in range(4):
        world.submit(job_spec(BOB, f"job-{number:04d}"), BOB)
    world.offer(L2, classes=[class_of(ALICE), class_of(BOB)], slots=0)
    world.submit(job_spec(job="job-0000", limits=Limits(cpu=3)))
    assert len(world.queued()) == 2
    world.offer(L2, classes=[class_of(ALICE)], slots=2)
    world.submit(gang(2, created_at=world.now + 1))
    assert tasks([one for one in world.queued() if one.job == "gang-0001"]) == [0, 1]
    claims = {one.id: len(one.claims) for one in world.broker.state.fleet}
    assert claims == {L1: 2, L2: 2}


def test_a_lender_that_refused_counts_for_nothing_for_a_while() -> None:
    world = World()
    world.offer(L1, classes=ANY, slots=1)
    world.submit(gang(1))
    lease = world.pull()
    world.report(lease, [], outcome="refused")
    world.ack(lease)
    job = world.broker.state.jobs[JobKey(ALICE.public_key, "gang-0001")]
    job.avoided[L1].until = world.now + 5.0
    pass_time(world, 3.0, {L1: ()})
    assert world.queued() == []
    assert why(world) == "a gang of 1: the fleet lends 0 places for it now"
    pass_time(world, 3.0, {L1: ()})
    assert tasks(world.queued()) == [0]


def test_a_gang_that_is_cancelled_lets_go_of_all() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.submit(gang(2))
    take(world, {L1: world.queued()[:1]})
    world.cancel("gang-0001")
    assert world.work == {}
    assert world.cancelled(L1) != []
    assert list(world.broker.state.gangs) == []
    world.cancel("gang-0002")
    world.submit(gang(2, "gang-0002"))
    end = world.terminal("gang-0002")
    assert end is not None
    assert end.state == "cancelled"


def test_after_a_crash_a_gang_that_is_held_goes_on() -> None:
    world, leases = begun()
    world.run(leases[0])
    world.controls.clear()
    world.start()
    assert world.query("gang-0001").jobs[0].tasks_running == 0
    take(world, {L1: leases[1:2], L2: leases[2:]})
    assert started(world) == {L1: [leases[1].lease], L2: [one.lease for one in leases[2:]]}
    assert world.cancelled(L1) == world.cancelled(L2) == []
    pass_time(world, 2 * GATHER_S, {L1: leases[1:2], L2: leases[2:]})
    for lease in leases[1:]:
        world.run(lease, L1 if lease is leases[1] else L2)
    end = world.terminal("gang-0001")
    assert end is not None
    assert (end.state, end.tasks_succeeded) == ("succeeded", 4)


def test_after_a_crash_a_gang_that_is_not_all_there_begins_anew() -> None:
    world, leases = begun()
    world.ack(leases[0])
    world.start()
    world.offer(L1, classes=ANY, leases=leases[1:2])
    assert world.cancelled(L1) == [leases[1].lease]
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    world.pass_time(1.0)
    anew = world.queued()
    assert tasks(anew) == [0, 1, 2, 3]
    assert min(lease.attempt for lease in anew) == 2


def test_after_a_crash_a_gang_that_is_not_heard_of_begins_anew() -> None:
    world, leases = begun()
    world.start()
    pass_time(world, GATHER_S, {L1: leases[:2]})
    assert set(world.cancelled(L1)) == {leases[0].lease, leases[1].lease}
    take(world, {L1: (), L2: ()})
    world.pass_time(1.0)
    assert tasks(world.queued()) == [0, 1, 2, 3]


def test_while_nobody_can_be_heard_the_time_to_gather_does_not_end() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.submit(gang(2))
    leases = world.queued()
    world.do(HearingLost())
    world.pass_time(2 * GATHER_S)
    assert world.queued() == leases
    world.do(HearingRestored())
    take(world, {L1: leases})
    assert started(world) != {}


def test_a_clock_that_jumps_changes_no_waiting() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.submit(gang(2))
    world.submit(gang(9, "gang-0002"))
    leases = world.queued()
    world.now += 500.0
    world.do(ClockJumped(500.0))
    assert world.queued() == leases
    pass_time(world, GATHER_S, {L1: ()})
    assert world.queued() == []
    world.cancel("gang-0002")
    pass_time(world, GATHER_S, {L1: ()})
    world.now -= 500.0
    world.do(ClockJumped(-500.0))
    assert tasks(world.queued()) == [0, 1]


def test_its_time_in_the_queue_ends_when_all_of_it_begins() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.submit(gang(2, queue_s=5.0))
    leases = world.queued()
    pass_time(world, 4.0, {L1: leases[:1]})
    assert world.terminal("gang-0001") is None
    pass_time(world, 1.5, {L1: leases[:1]})
    end = world.terminal("gang-0001")
    assert end is not None
    assert end.state == "expired"
    world.submit(gang(2, "gang-0002", queue_s=5.0, created_at=world.now))
    take(world, {L1: world.queued()})
    pass_time(world, 9.0, {L1: world.queued()})
    assert world.terminal("gang-0002") is None


def test_places_are_counted_by_what_is_scarcest() -> None:
    need = Need.of(gang(limits=Limits(cpu=2, memory_bytes=1 << 30, scratch_bytes=1 << 20)))
    roomy = Amounts(9.0, float(9 << 30), float("inf"), 0.0)
    assert need.times_within(roomy) == 4
    assert need.times_within(replace(roomy, memory_bytes=float(3 << 30))) == 3
    assert need.times_within(replace(roomy, disk_bytes=float(2 << 20))) == 2
    assert replace(need, vram_bytes=8).times_within(replace(roomy, vram_bytes=8.0)) == 1
    assert replace(need, disk_bytes=0).times_within(replace(roomy, disk_bytes=0.0)) == 4
    assert need.times_within(replace(roomy, cores=-1.0)) == 0


def test_a_gang_is_charged_for_what_it_keeps() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    world.submit(gang(2))
    take(world, {L1: world.queued()})
    assert world.broker.state.shares.leases_of(ALICE.public_key) == 2
    assert world.broker.state.shares.level(ALICE.public_key) > 0
    world.now += 5.0
    world.do(ClockJumped(5.0))
    assert world.cancelled(L1) == []


def test_a_look_at_gangs_that_wait_costs_the_same_however_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.offer(L1, classes=ANY)
    for number in range(100):
        world.submit(gang(4, f"gang-{number:04d}"))
    looked_at = []
    turn = Gang.turn.fget
    is_ready = Gang.is_ready.fget
    monkeypatch.setattr(Gang, "turn", property(lambda one: looked_at.append(one) or turn(one)))
    monkeypatch.setattr(
        Gang, "is_ready", property(lambda one: looked_at.append(one) or is_ready(one))
    )
    world.pass_time(0.99)
    looked_at.clear()
    world.pass_time(1.0)
    assert 0 < len(looked_at) <= 2 * (LOOKS_MAX + LOOKS_OF_ONE_MAX)


def test_a_gang_that_fits_has_its_turn_behind_many_that_do_not() -> None:
    world = World()
    world.offer(L1, classes=ANY)
    for number in range(100):
        world.submit(gang(4, f"gang-{number:04d}"))
    world.submit(gang(2, "gang-fits"))
    pass_time(world, 30.0, {L1: ()})
    assert {lease.job for lease in world.queued()} == {"gang-fits"}
