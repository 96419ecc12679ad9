"""A task that takes far too long is given to one lender more: where, when, and who wins."""

import pytest
from broker_world import (
    ALICE,
    BOB,
    L1,
    L2,
    L3,
    World,
    archive,
    bad,
    check_places,
    class_of,
    job_spec,
    ok,
)

from broker.core.events import ClockJumped, FeedFailed
from broker.core.leasing.locality import FETCH_BYTES_MIN
from broker.core.leasing.untaken import CLOSED_LOOK_S
from lender.protocol.job import Verify
from lender.protocol.lease import Lease
from lender.protocol.query import JobStatus

BOTH = [class_of(ALICE), class_of(BOB)]


def one_is_late(world: World | None = None, count: int = 10, **fields: object) -> Lease:
    """All tasks but the last took a second each; L1 is still at that one."""
    world = world or World()
    world.submit(job_spec(count=count, **fields))
    world.offer(L1, slots=1, classes=BOTH)
    for _ in range(count - 1):
        world.run(world.pull())
    late = world.pull()
    world.offer(L1, slots=1, classes=BOTH, leases=[late])
    return late


def stay(world: World, seconds: float, slots: int = 1, **held: list[Lease]) -> None:
    """Let time pass, while each lender says what it holds."""
    lenders = {"l1": L1, "l2": L2, "l3": L3}
    for _ in range(round(2 * seconds)):
        for name, leases in held.items():
            world.offer(lenders[name], leases=leases, slots=slots, classes=BOTH)
        world.pass_time(0.5)
    check_places(world)


def copies_of(world: World, late: Lease) -> list[Lease]:
    return [one for one in world.queued() if one.job == late.job and one.lease != late.lease]


def copied(world: World, late: Lease) -> Lease:
    stay(world, 4.0, l1=[late], l2=[])
    (copy,) = copies_of(world, late)
    return copy


def status(world: World) -> JobStatus:
    return world.query("job-0001").jobs[0]


def test_a_task_that_takes_far_longer_than_others_runs_once_more_elsewhere() -> None:
    world = World()
    late = one_is_late(world)
    copy = copied(world, late)
    assert copy.ranges == late.ranges
    assert copy.attempt == late.attempt + 1
    assert copy.is_barred(L1)
    assert not copy.is_barred(L2)
    assert status(world).why == (
        "1 task runs on one machine more, since the first takes far longer than usual"
    )


@pytest.mark.parametrize("first", ["the copy", "the other"])
def test_the_first_result_wins_and_the_other_lease_is_cancelled(first: str) -> None:
    world = World()
    late = one_is_late(world)
    copy = copied(world, late)
    world.offer(L2, leases=[copy])
    (winner, by), (loser, of) = (late, L1), (copy, L2)
    if first == "the copy":
        (winner, by), (loser, of) = (loser, of), (winner, by)
    assert world.run(winner, by) == "committed"
    assert world.cancelled(of) == [loser.lease]
    assert world.queued() == []
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.tasks_succeeded) == ("succeeded", 10)
    assert world.run(loser, of) == "stale"
    assert world.refused_records == []


def test_a_copy_that_nobody_took_goes_with_its_task() -> None:
    world = World()
    late = one_is_late(world)
    copied(world, late)
    world.run(late)
    assert world.queued() == []
    assert world.terminal() is not None


def test_a_copy_that_nobody_took_is_called_in_once_its_task_is_handed_back() -> None:
    """It is closed to who had the task, and that may be the one machine that is left for it."""
    world = World()
    late = one_is_late(world)
    copy = copied(world, late)
    world.offer(L2, classes=[])
    world.report(late, [], outcome="evicted")
    world.ack(late)
    stay(world, CLOSED_LOOK_S, l1=[])
    (again,) = world.queued()
    assert again.attempt == copy.attempt + 1
    assert not again.is_barred(L1)
    assert world.run(again) == "committed"
    assert world.terminal() is not None


def test_nothing_is_copied_before_it_is_clearly_late() -> None:
    world = World()
    late = one_is_late(world)
    stay(world, 1.5, l1=[late], l2=[])
    assert copies_of(world, late) == []


def test_a_task_whose_other_answer_nobody_has_taken_yet_is_not_copied() -> None:
    """Who got the copy might get that one, too: two answers of one owner."""
    world = World()
    model = archive(FETCH_BYTES_MIN)
    world.submit(job_spec(expected_s=1.0, program=model, verify=Verify(replicas=2, quorum=2)))
    world.offer(L1, slots=1, classes=BOTH)
    late = world.pull()
    stay(world, 8.0, l1=[late])
    world.offer(L2, slots=1, classes=BOTH, blobs=(model.sha256,))
    world.offer(L3, slots=1, classes=BOTH)
    (kept_for_l2,) = [one for one in world.queued() if one.lease != late.lease]
    stay(world, 1.5, l1=[late])
    assert {one.lease for one in world.queued()} == {late.lease, kept_for_l2.lease}


def test_where_times_differ_widely_later_counts_as_late() -> None:
    world = World()
    world.submit(job_spec(count=10))
    world.offer(slots=1)
    for number in range(9):
        world.run(world.pull(), duration_s=2.0 * number + 2.0)
    late = world.pull()  # the mean is 10 s, the standard deviation 5.2 s
    stay(world, 25.0, l1=[late], l2=[])
    assert copies_of(world, late) == []
    stay(world, 2.0, l1=[late], l2=[])
    assert len(copies_of(world, late)) == 1


def test_what_was_hardly_measured_may_be_as_far_off_as_it_is_long() -> None:
    world = World()
    late = one_is_late(world, count=2)
    stay(world, 3.5, l1=[late], l2=[])
    assert copies_of(world, late) == []
    stay(world, 1.5, l1=[late], l2=[])
    assert len(copies_of(world, late)) == 1


def test_preparing_is_not_running_and_counts_as_what_a_copy_costs() -> None:
    world = World()
    world.submit(job_spec(expected_s=0.5))
    world.offer(L1, slots=1)
    late = world.pull()
    for _ in range(20):
        world.offer(L1, leases=[late], slots=1, state="preparing")
        world.offer(L2)
        world.pass_time(0.5)
    stay(world, 18.0, l1=[late], l2=[])  # ten seconds more would save no more than they cost
    assert copies_of(world, late) == []
    stay(world, 5.0, l1=[late], l2=[])
    assert len(copies_of(world, late)) == 1


def test_of_a_single_task_it_is_known_only_where_it_is_foretold_or_others_were_measured() -> None:
    world = World()
    world.submit(job_spec())
    world.offer(L1, slots=1)
    late = world.pull()
    stay(world, 60.0, l1=[late], l2=[])
    assert copies_of(world, late) == []
    world.run(late, duration_s=2.0)
    world.submit(job_spec(job="job-0002"))
    late = world.pull()
    stay(world, 7.5, l1=[late], l2=[])  # it may be as far off as it is long
    assert copies_of(world, late) == []
    stay(world, 2.0, l1=[late], l2=[])
    assert len(copies_of(world, late)) == 1


def test_waiting_work_of_anybody_comes_first() -> None:
    world = World()
    late = one_is_late(world)
    # It finds no room, but wants what there is of it.
    world.submit(job_spec(BOB, "job-wait", limits={"cpu": 2}), BOB)
    stay(world, 8.0, l1=[late], l2=[])
    assert copies_of(world, late) == []


def test_a_copy_that_nobody_took_makes_way() -> None:
    world = World()
    late = one_is_late(world)
    copied(world, late)
    world.submit(job_spec(ALICE, "job-wait", limits={"cpu": 2}))
    assert [one.lease for one in world.queued()] == [late.lease]
    check_places(world)
    world.run(late)
    assert world.terminal() is not None


def test_a_copy_goes_only_where_it_can_begin_at_once() -> None:
    world = World()
    late = one_is_late(world)
    stay(world, 8.0, slots=0, l1=[late], l2=[])
    assert copies_of(world, late) == []
    stay(world, 1.0, l1=[late])
    assert copies_of(world, late) == []


def test_a_task_is_copied_once_and_a_job_in_small_part() -> None:
    world = World()
    world.submit(job_spec(count=12))
    world.offer(L1, slots=1)
    for _ in range(10):
        world.run(world.pull())
    world.offer(L2, slots=1)
    first, second = world.queued()
    stay(world, 20.0, l1=[first], l2=[second], l3=[])
    assert len(world.queued()) == 3


def many_wait_behind_one(world: World, **fields: object) -> Lease:
    """L1 is at the first of many tasks of a lease; all others of the job are done."""
    world.submit(job_spec(count=50, **fields))
    world.offer(L1, slots=1)
    world.run(world.pull(), duration_s=0.01)
    late = next(one for one in world.queued() if one.task_count > 5)
    while others := copies_of(world, late):
        world.run(others[0], duration_s=0.01)
    return late


def test_what_waits_behind_a_late_task_goes_first_and_without_it() -> None:
    world = World()
    late = many_wait_behind_one(world)
    assert copied(world, late).task_count > 1, "others of the job were short"
    while len(world.tasks()) < 47:
        behind = copied(world, late)
        assert late.tasks()[0] not in behind.tasks()
        assert status(world).why == ""
        world.start()
        world.offer(L1, slots=1, leases=[late], classes=BOTH)
        assert world.run(behind, L2, duration_s=0.01) == "committed"
    assert world.cancelled(L1) == []
    while late.tasks()[0] not in {one.task for one in world.tasks()}:  # it is copied at last
        assert world.run(copied(world, late), L2, duration_s=0.01) == "committed"
    assert world.run(late) == "committed"
    assert len(world.tasks()) == 50
    assert world.refused_records == []


def test_what_waits_behind_a_second_late_one_goes_on_again() -> None:
    world = World()
    late = many_wait_behind_one(world)
    behind = copied(world, late)
    stay(world, 4.0, l1=[late], l2=[behind], l3=[])
    _, others = copies_of(world, late)  # that nobody else has come first
    assert not set(others.tasks()) & set(behind.tasks())
    assert world.run(others, L3, duration_s=0.01) == "committed"
    stay(world, 1.0, l1=[late], l2=[behind], l3=[])
    _, again = copies_of(world, late)
    assert again.tasks() == behind.tasks()[-again.task_count :] != behind.tasks()
    assert again.attempt == behind.attempt + 1
    assert again.is_barred(L1)
    assert again.is_barred(L2)
    world.offer(L3, slots=1, leases=[again], classes=BOTH)
    world.start()
    stay(world, 2.0, l1=[late], l2=[behind], l3=[again])
    assert world.run(again, L3, duration_s=0.01) == "committed"
    assert world.run(behind, L2) == "committed"
    assert world.run(late) == "committed"
    assert len(world.tasks()) == 50
    assert world.refused_records == []


def test_what_came_back_from_there_is_given_away_again() -> None:
    world = World()
    late = many_wait_behind_one(world)
    behind = copied(world, late)
    world.report(behind, [], L2, outcome="evicted")
    world.ack(behind)
    check_places(world)
    again = copied(world, late)
    assert (again.tasks(), again.attempt) == (behind.tasks(), behind.attempt + 1)
    assert world.run(again, L2) == "committed"


@pytest.mark.parametrize("retries", [0, 1])
def test_a_failure_of_what_the_other_has_not_begun_counts_at_once(retries: int) -> None:
    world = World()
    late = many_wait_behind_one(world, retries=retries)
    behind = copied(world, late)
    before = len(world.tasks())
    first, *others = behind.tasks()
    world.report(behind, [bad(first), *map(ok, others)], L2)
    world.ack(behind)
    check_places(world)
    assert len(world.tasks()) - before == behind.task_count - retries


def test_no_more_of_a_job_is_copied_than_memory_is_kept_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.core.jobs.job.UNDECIDED_MAX", 3)
    world = World()
    late = many_wait_behind_one(world)
    behind = copied(world, late)
    assert behind.tasks() == late.tasks()[-3:]
    stay(world, 4.0, l1=[late], l2=[behind], l3=[])
    assert copies_of(world, late) == [behind]
    world.run(behind, L2)
    assert copied(world, late).tasks() == late.tasks()[-6:-3]
    assert world.run(late) == "committed"
    assert len(world.tasks()) == 50


def test_of_a_lost_lease_only_what_was_not_copied_is_leased_anew() -> None:
    world = World()
    late = many_wait_behind_one(world)
    behind = copied(world, late)
    stay(world, 3.0, l2=[behind])
    rest = [task for one in copies_of(world, behind) for task in one.tasks()]
    assert rest != []
    assert not set(rest) & set(behind.tasks())
    while world.queued():
        world.run(world.pull(), L2, duration_s=0.01)
    assert len(world.tasks()) == 50


def test_a_failure_of_one_of_two_ends_nothing_and_is_not_counted() -> None:
    world = World()
    late = one_is_late(world)
    copy = copied(world, late)
    world.offer(L2, leases=[copy])
    assert world.verdict(world.report(copy, [bad(9)], L2)) == "committed"
    world.ack(copy)
    check_places(world)
    assert world.terminal() is None
    assert world.run(late) == "committed"
    terminal = world.terminal()
    assert terminal is not None
    assert terminal.state == "succeeded"


@pytest.mark.parametrize("retries", [0, 1])
def test_failures_of_both_count_once(retries: int) -> None:
    world = World()
    late = one_is_late(world, retries=retries)
    copy = copied(world, late)
    world.report(copy, [bad(9)], L2)
    world.ack(copy)
    world.report(late, [bad(9)])
    world.ack(late)
    terminal = world.terminal()
    if not retries:
        assert terminal is not None
        assert (terminal.state, terminal.tasks_failed) == ("failed", 1)
        return
    assert terminal is None
    world.offer(L3)
    world.pass_time(5.0)
    world.offer(L3)
    again = world.pull()
    assert again.attempt == copy.attempt + 1
    assert again.not_for == ()


@pytest.mark.parametrize("outcome", ["evicted", "refused", "lost", "feed failed"])
def test_a_copy_that_ends_without_a_result_puts_nothing_back(outcome: str) -> None:
    world = World()
    late = one_is_late(world)
    if outcome == "feed failed":
        world.answer_feeds = False
        stay(world, 4.0, l1=[late], l2=[])
        world.do(FeedFailed(world.feeds.pop().lease_id, "no answer"))
    else:
        copy = copied(world, late)
        world.offer(L2, leases=[copy])
        if outcome == "lost":
            stay(world, 3.0, l1=[late])
        else:
            world.report(copy, [], L2, outcome=outcome)
            world.ack(copy)
    check_places(world)
    stay(world, 20.0, l1=[late], l3=[])
    assert copies_of(world, late) == []
    assert world.run(late) == "committed"


def test_where_both_are_lost_the_task_is_leased_anew_under_a_higher_number() -> None:
    world = World()
    late = one_is_late(world)
    copy = copied(world, late)
    world.offer(L2, leases=[copy])
    stay(world, 3.0, l2=[copy])
    check_places(world)
    assert [one.lease for one in world.queued()] == [copy.lease]
    world.pass_time(3.0)
    world.offer(L3)
    (again,) = world.queued()
    assert again.attempt == copy.attempt + 1
    assert world.run(again, L3) == "committed"


@pytest.mark.parametrize("taken", [False, True])
def test_a_copy_whose_place_in_the_queue_is_not_known_yet_is_withdrawn(*, taken: bool) -> None:
    world = World()
    late = one_is_late(world)
    world.answer_feeds = False
    stay(world, 4.0, l1=[late], l2=[])
    copy = world.feeds[0].lease
    if taken:
        world.offer(L1, leases=[late, copy])
        assert world.cancelled(L1) == [copy.lease]
    world.run(late)
    world.store_feed()
    assert world.queued() == []
    assert world.terminal() is not None


def test_who_has_the_task_already_can_not_hold_its_copy() -> None:
    world = World()
    late = one_is_late(world)
    copy = copied(world, late)
    world.offer(L1, leases=[late, copy])
    assert world.cancelled(L1) == [copy.lease]
    assert copies_of(world, late) == []
    check_places(world)
    assert world.verdict(world.report(copy, [ok(9)])) == "stale"


def test_nor_answer_for_it() -> None:
    world = World()
    late = one_is_late(world)
    copy = copied(world, late)
    assert world.verdict(world.report(copy, [ok(9)])) == "stale"
    check_places(world)
    assert world.run(late) == "committed"


def test_both_are_found_again_after_a_crash() -> None:
    world = World()
    late = one_is_late(world)
    copy = copied(world, late)
    world.start()
    check_places(world)
    assert len(world.queued()) == 2
    stay(world, 5.0, l1=[late], l2=[copy])
    assert world.run(late) == "committed"
    assert world.cancelled(L2) == [copy.lease]
    assert world.terminal() is not None


def test_a_set_clock_makes_nothing_late() -> None:
    world = World()
    late = one_is_late(world)
    world.now += 1000.0
    world.do(ClockJumped(1000.0))
    stay(world, 1.5, l1=[late], l2=[])
    assert copies_of(world, late) == []


def test_of_a_gang_nothing_is_copied_and_one_that_waits_comes_first() -> None:
    world = World()
    world.submit(job_spec(count=2, gang=True, expected_s=0.5))
    stay(world, 1.0, slots=2, l1=[])
    both = world.queued()
    assert len(both) == 2
    stay(world, 8.0, slots=2, l1=both, l2=[])
    assert world.queued() == both
    world = World()
    late = one_is_late(world)
    world.submit(job_spec(BOB, "job-gang", count=9, gang=True), BOB)
    stay(world, 8.0, l1=[late], l2=[])
    assert copies_of(world, late) == []
    world.cancel("job-gang", BOB)
    copied(world, late)
    world.submit(job_spec(ALICE, "job-gang", count=9, gang=True))
    assert copies_of(world, late) == []


def test_a_lease_whose_tasks_all_have_their_results_is_copied_to_nobody() -> None:
    """Its last report is on the way."""
    world = World()
    world.submit(job_spec(count=10))
    world.offer(L1, slots=1, classes=BOTH)
    for _ in range(8):
        world.run(world.pull())
    told, left = world.queued()
    world.offer(L1, slots=1, classes=BOTH, leases=[told])
    world.offer(L3, slots=1, classes=BOTH, leases=[left])
    world.report(told, [ok(task) for task in told.tasks()], final=False)
    stay(world, 10.0, l1=[told], l2=[], l3=[left])
    assert [one.ranges for one in copies_of(world, told)] == [left.ranges, left.ranges]
