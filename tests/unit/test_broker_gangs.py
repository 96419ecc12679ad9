"""Gangs: n tasks at once or none, whoever comes, goes, or holds the room before."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from broker_world import ALICE, BOB, L1, L2, L3, World, bad, check_places, class_of, job_spec, ok

from broker.core.events import (
    ClockJumped,
    FeedFailed,
    HearingLost,
    HearingRestored,
    SubmittersChanged,
)
from broker.core.gangs.gang import GATHER_MAX_S, GATHER_S
from broker.core.intake.quotas import DEFAULT
from broker.core.jobs.job import JobKey
from broker.core.matching.need import Amounts, Need
from lender.protocol.job import JobSpec, Limits, Requires
from lender.protocol.lease import Lease
from lender.protocol.signature import Signer

_ONE = DEFAULT._replace(running_tasks_max=1)
ANY = [class_of(ALICE), class_of(BOB)]


def gang(
    count: int = 4, job: str = "gang-0001", signer: Signer = ALICE, **fields: object
) -> JobSpec:
    return job_spec(signer, job, count=count, gang=True, **fields)


def take(world: World, where: Mapping[str, Sequence[Lease]], **fields: object) -> None:
    """Have each lender say that it holds these leases."""
    for lender, leases in where.items():
        world.offer(lender, classes=ANY, leases=leases, state="preparing", ready=True, **fields)


def started(world: World) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for sent in world.controls:
        if sent.control.kind == "start":
            told.setdefault(sent.lender, []).extend(sent.control.leases)
    return told


def begun(count: int = 4, **fields: object) -> tuple[World, list[Lease]]:
    """A gang that runs on two lenders of two slots each."""
    world = World()
    world.offer(L1, classes=ANY)
    world.offer(L2, classes=ANY)
    world.submit(gang(count, **fields))
    leases = world.queued()
    take(world, {L1: leases[:2], L2: leases[2:]})
    assert sum(map(len, started(world).values())) == count
    return world, leases


def pass_time(world: World, seconds: float, where: Mapping[str, Sequence[Lease]]) -> None:
    """Let time pass while lenders are heard."""
    end = world.now + seconds
    while world.now < end:
        world.pass_time(min(1.0, end - world.now))
        take(world, where)


def why(world: World, job: str = "gang-0001", signer: Signer = ALICE) -> str:
    return world.query(job, signer).jobs[0].why


def tasks(leases: Sequence[Lease]) -> list[int]:
    return sorted(task for lease in leases for task in lease.tasks())


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
    assert len(world.broker.state.gangs) == 0
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


def test_a_gang_waits_until_its_submitter_may_have_all_of_it() -> None:
    world = World()
    quotas = {ALICE.public_key: DEFAULT._replace(running_tasks_max=3)}
    world.do(SubmittersChanged(world.submitters, {}, quotas))
    world.offer(L1, classes=ANY, slots=8)
    world.submit(job_spec())
    world.submit(job_spec(job="job-0002"))
    first, second = world.queued()
    world.submit(gang(2))
    assert why(world) == "a gang of 2: no more than 1 of your tasks may be handed out now"
    world.run(first)
    world.pass_time(1.0)
    world.run(second)
    leases = world.queued()
    assert tasks(leases) == [0, 1]
    # One comes back while the submitter may have no more.
    world.submit(job_spec(job="job-0003"))
    world.do(SubmittersChanged(world.submitters, {}, quotas | {ALICE.public_key: _ONE}))
    world.report(leases[0], [], outcome="evicted")
    world.ack(leases[0])
    assert tasks([one for one in world.queued() if one.job == "gang-0001"]) == [1]
    world.do(SubmittersChanged(world.submitters, {}, quotas))
    world.pass_time(1.0)
    assert tasks([one for one in world.queued() if one.job == "gang-0001"]) == [0, 1]


def capped(most: int) -> World:
    """Alice may have so many tasks handed out; L1 has room for more."""
    world = World()
    quotas = {ALICE.public_key: DEFAULT._replace(running_tasks_max=most)}
    world.do(SubmittersChanged(world.submitters, {}, quotas))
    world.offer(L1, classes=ANY, slots=8)
    return world


def stream(world: World, until: str, steps: int = 40) -> bool:
    """Go on sending single jobs of which one ends in each step; tells whether a gang was leased."""
    for number in range(steps):
        world.submit(job_spec(job=f"more-{number:04d}", created_at=world.now))
        world.pass_time(0.5)
        world.offer(L1, classes=ANY, slots=8)
        if any(one.job == until for one in world.queued()):
            return True
        for lease in world.queued()[:1]:
            world.run(lease)
        check_places(world)
    return False


def test_other_work_of_its_submitter_keeps_no_gang_waiting_for_ever() -> None:
    world = capped(3)
    for number in range(5):
        world.submit(job_spec(job=f"job-{number:04d}"))
    world.submit(gang(3, created_at=world.now + 0.1))
    assert stream(world, "gang-0001")
    assert {one.job for one in world.queued()} == {"gang-0001"}
    assert tasks(world.queued()) == [0, 1, 2]
    world.cancel("gang-0001")
    world.pass_time(1.0)
    world.offer(L1, classes=ANY, slots=8)
    assert len(world.queued()) == 3, "the others go on"


def test_what_a_gang_leaves_of_a_quota_others_may_use() -> None:
    world = capped(4)
    for number in range(3):
        world.submit(job_spec(job=f"job-{number:04d}"))
    world.submit(gang(2, created_at=world.now + 0.1))
    world.pass_time(1.0)
    world.submit(job_spec(job="job-0003", created_at=world.now))
    assert "a gang of yours comes first" in why(world, "job-0003")
    world.run(world.queued()[1])
    world.pass_time(1.0)
    world.offer(L1, classes=ANY, slots=8)
    leased = [one.job for one in world.queued()]
    assert sorted(leased) == ["gang-0001", "gang-0001", "job-0000", "job-0002"]


def test_nothing_is_kept_for_a_gang_that_no_machines_are_there_for() -> None:
    world = capped(3)
    for number in range(5):
        world.submit(job_spec(job=f"job-{number:04d}"))
    world.submit(gang(3, created_at=world.now + 0.1, requires=Requires(labels=("farm",))))
    world.run(world.queued()[0])
    world.pass_time(2.0)
    world.offer(L1, classes=ANY, slots=8)
    assert len(world.queued()) == 3


def test_a_member_that_came_back_does_not_wait_behind_other_work() -> None:
    world = capped(3)
    world.submit(gang(3))
    leases = world.queued()
    take(world, {L1: leases[:2]}, slots=8)
    for number in range(3):
        world.submit(job_spec(job=f"job-{number:04d}", created_at=world.now + 0.1))
    world.report(leases[2], [], outcome="refused")
    world.ack(leases[2])
    for _ in range(8):
        world.pass_time(0.5)
        take(world, {L1: leases[:2]}, slots=8)
    assert tasks([one for one in world.queued() if one.job == "gang-0001"]) == [0, 1, 2]


def test_a_gang_that_its_submitter_may_never_have_at_once_is_rejected() -> None:
    world = capped(3)
    world.submit(gang(4))
    terminal = world.terminal("gang-0001")
    assert terminal is not None
    assert (terminal.state, terminal.field) == ("rejected", "quota")
    assert "a gang of 4 can't ever run: you may have 3 tasks" in (terminal.reason or "")
    world.submit(gang(3, "gang-0002"))
    world.submit(gang(4, "gang-0003", BOB), BOB)
    world.submit(job_spec(job="job-0004", count=4))
    for job, signer in (("gang-0002", ALICE), ("gang-0003", BOB), ("job-0004", ALICE)):
        assert world.terminal(job, signer) is None


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
