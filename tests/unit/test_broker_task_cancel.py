"""One task of an array is cancelled: it has one result that says so, and the others go on."""

import pytest
from broker_world import (
    ALICE,
    BOB,
    L1,
    L2,
    START,
    World,
    archive,
    bad,
    check_places,
    job_spec,
    ok,
)

from broker.core.jobs import failures
from broker.core.jobs.task_cancel import FIGURE
from lender.protocol import subjects
from lender.protocol.codec import decode
from lender.protocol.job import After, Array, Verify
from lender.protocol.lease import DoneReply
from lender.protocol.result import Chunk, TaskResult, Terminal

JOB = "job-0001"


def world_with(count: int = 4, **fields: object) -> World:
    world = World()
    world.submit(job_spec(count=count, **fields))
    return world


def finish(world: World) -> Terminal:
    """Let a lender run all that is left."""
    for _ in range(50):
        if (end := world.terminal()) is not None:
            assert world.refused_records == []
            return end
        world.offer(slots=8)
        for lease in world.queued():
            world.run(lease)
        world.pass_time(1.0)
    raise AssertionError("it never ends")


def results(world: World) -> dict[int, TaskResult]:
    found = world.tasks()
    assert len(found) == len({one.task for one in found}), "a task has two results"
    return {one.task: one for one in found}


def cancelled(world: World) -> list[int]:
    return sorted(task for task, one in results(world).items() if one.cancelled)


def test_a_task_that_waits_is_taken_out_and_has_its_result() -> None:
    world = world_with(3)
    world.cancel(f"{JOB}-1")
    check_places(world)
    (chunk,) = world.chunks()
    (result,) = chunk.results
    assert (chunk.lease, chunk.lender, chunk.attempt, chunk.proof) == (None, None, None, None)
    assert (result.task, result.state, result.cancelled) == (1, "failed", True)
    assert result.error == "cancelled by its submitter"
    assert world.broker.state.figures.tasks_ended == {FIGURE: 1}
    event = world.events[-1]
    assert event.subject == subjects.event(ALICE.public_key, JOB)
    assert decode(Chunk, event.payload).results == (result,)
    (status,) = world.query(JOB).jobs
    assert (status.tasks_failed, status.failed_tasks) == (1, ((1, 1),))

    end = finish(world)
    assert (end.state, end.tasks_succeeded, end.tasks_failed) == ("failed", 2, 1)
    assert (end.reason, end.failed_tasks) == ("1 of 3 tasks were cancelled", ((1, 1),))


def test_what_failed_is_told_beside_what_was_cancelled() -> None:
    world = world_with(2)
    world.cancel(f"{JOB}-1")
    world.offer()
    world.report(world.pull(), [bad(0)])
    end = world.terminal()
    assert end is not None
    assert end.reason == "1 of 2 tasks were cancelled, 1 failed"


def test_nothing_is_told_before_it_is_durable() -> None:
    world = world_with(2)
    world.land_commits = False
    world.cancel(f"{JOB}-0")
    assert world.events == []
    world.land()
    assert len(world.events) == 1


@pytest.mark.parametrize("taken", [False, True], ids=["queued", "held"])
def test_a_lease_that_has_the_task_ends_and_its_others_wait_anew(*, taken: bool) -> None:
    world = world_with(9, retries=0)
    world.offer(slots=1)
    world.run(world.pull(), duration_s=0.01)
    lease = next(one for one in world.queued() if one.task_count > 2)
    gone, *others = lease.tasks()
    if taken:
        world.offer(slots=1, leases=[lease])
    world.cancel(f"{JOB}-{gone}")
    check_places(world)
    assert lease.lease not in [one.lease for one in world.queued()], "its message is deleted"
    assert world.cancelled() == ([lease.lease] if taken else [])
    late = world.report(lease, [ok(task) for task in lease.tasks()])
    assert world.verdict(late) == "stale"

    end = finish(world)
    assert (end.tasks_succeeded, end.tasks_failed) == (8, 1)
    assert cancelled(world) == [gone]
    anew = [one for one in world.chunks() if one.results[0].task in others]
    assert {one.attempt for one in anew} == {2}


def test_a_lease_of_that_task_alone_is_gone() -> None:
    world = world_with(2)
    world.offer(slots=2)
    first, second = world.queued()
    world.offer(leases=[first])
    world.cancel(f"{JOB}-{first.tasks()[0]}")
    check_places(world)
    assert world.cancelled() == [first.lease]
    assert [one.lease for one in world.queued()] == [second.lease]


def test_a_feed_that_is_under_way_is_deleted_when_it_is_stored() -> None:
    world = world_with(1)
    world.answer_feeds = False
    world.offer()
    world.cancel(f"{JOB}-0")
    world.store_feed()
    assert world.work == {}
    assert world.terminal() is not None


def test_a_task_that_rests_after_a_failure_is_not_tried_again() -> None:
    world = world_with(2, retries=3)
    world.offer()
    world.report(world.pull(), [bad(0)])
    world.cancel(f"{JOB}-0")
    check_places(world)
    finish(world)
    assert cancelled(world) == [0]


def test_a_task_is_cancelled_before_its_jobs_day() -> None:
    world = world_with(2, not_before=START + 100.0)
    world.cancel(f"{JOB}-0")
    check_places(world)
    world.offer()
    world.pass_time(101.0)
    world.offer(slots=4)
    assert [one.tasks() for one in world.queued()] == [[1]]


def test_a_job_all_of_whose_tasks_are_cancelled_was_cancelled() -> None:
    world = world_with(2)
    world.cancel(f"{JOB}-0")
    world.cancel(f"{JOB}-1")
    end = world.terminal()
    assert end is not None
    assert (end.state, end.reason, end.tasks_failed) == (
        "cancelled",
        "cancelled by its submitter",
        2,
    )
    assert cancelled(world) == [0, 1]
    assert len(world.broker.state.leases) == 0


def test_the_last_task_that_is_left_ends_the_job_when_it_is_cancelled() -> None:
    world = world_with(2)
    world.offer()
    first, second = world.queued()
    world.run(first)
    world.offer(leases=[second])
    world.cancel(f"{JOB}-1")
    end = world.terminal()
    assert end is not None
    assert (end.state, end.tasks_succeeded, end.tasks_failed) == ("failed", 1, 1)
    assert world.cancelled() == [second.lease]
    assert len(world.broker.state.leases) == 0


def test_tasks_of_a_job_that_waits_for_another_are_cancelled() -> None:
    world = world_with(3, after=(After(job="job-0000"),))
    world.cancel(f"{JOB}-1")
    world.cancel(f"{JOB}-1-1")
    world.cancel(f"{JOB}-7")
    assert cancelled(world) == [1]
    check_places(world)
    world.start()
    check_places(world)
    world.submit(job_spec(job="job-0000"))
    world.offer(slots=4)
    assert [one.job for one in world.queued()] == ["job-0000"]
    world.run(world.pull())
    world.offer(slots=4)
    assert sorted(task for one in world.queued() for task in one.tasks()) == [0, 2]
    assert finish(world).tasks_failed == 1


def test_all_tasks_of_a_job_that_waits_for_another_are_cancelled() -> None:
    world = world_with(2, after=(After(job="job-0000"),))
    world.cancel(f"{JOB}-0")
    world.cancel(f"{JOB}-1")
    end = world.terminal()
    assert end is not None
    assert end.state == "cancelled"
    assert not world.broker.state.dependencies.left((ALICE.public_key, JOB))


@pytest.mark.parametrize(
    "name",
    [
        "job-0001-4",
        "job-0001-04",
        "job-0002-0",
        "job-0003-0",
        "job-0001-",
        "-0",
        "job-0001-99999999",
    ],
)
def test_nothing_happens_where_no_such_task_is(name: str) -> None:
    world = world_with(4)
    world.submit(job_spec(job="job-0003"))
    world.cancel(name)
    assert world.results == {}
    check_places(world)


def test_nothing_happens_to_what_has_its_result() -> None:
    world = world_with(2)
    world.offer()
    world.run(world.pull())
    world.cancel(f"{JOB}-0")
    assert results(world)[0].state == "succeeded"
    assert len(world.results) == 1
    assert finish(world).state == "succeeded"
    world.cancel(f"{JOB}-1")
    assert len(world.results) == 3


def test_nothing_happens_twice() -> None:
    world = world_with(2)
    world.cancel(f"{JOB}-0")
    world.jobs.pop()  # as if the stream had it no longer
    world.cancel(f"{JOB}-0")
    assert len(world.results) == 1


def test_nothing_happens_before_the_array_is_there_nor_to_anothers() -> None:
    world = World()
    world.cancel(f"{JOB}-0")
    world.submit(job_spec(count=2))
    world.cancel(f"{JOB}-1", BOB)
    check_places(world)
    assert world.results == {}
    assert finish(world).state == "succeeded"


def test_a_job_that_is_called_so_comes_first() -> None:
    world = world_with(2)
    world.submit(job_spec(job=f"{JOB}-1"))
    world.cancel(f"{JOB}-1")
    end = world.terminal(f"{JOB}-1")
    assert end is not None
    assert end.state == "cancelled"
    assert world.chunks() == []
    world.jobs.pop()
    world.cancel(f"{JOB}-1")
    assert world.chunks() == [], "it has ended, and the name is still its own"


def test_only_indices_that_the_array_has() -> None:
    world = World()
    spec = job_spec().model_copy(update={"array": Array(count=9, tasks=((2, 2), (6, 1)))})
    world.submit(spec)
    world.cancel(f"{JOB}-4")
    world.cancel(f"{JOB}-6")
    check_places(world)
    assert cancelled(world) == [6]


def test_a_gangs_task_is_not_cancelled_alone() -> None:
    world = world_with(2, gang=True)
    world.cancel(f"{JOB}-0")
    assert world.results == {}
    check_places(world)


def test_no_more_ranges_than_the_broker_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "KEPT_MAX", 2)
    world = world_with(9)
    for task in (1, 3, 5):
        world.cancel(f"{JOB}-{task}")
    assert cancelled(world) == [1, 3]
    check_places(world)


def test_a_copy_is_stopped_as_well() -> None:
    world = world_with(6)
    world.offer(L1, slots=1)
    for _ in range(5):
        world.run(world.pull())
        world.offer(L1, slots=1)
    slow = world.pull()
    world.offer(L1, slots=1, leases=[slow])
    world.offer(L2, slots=1)
    for _ in range(60):
        world.pass_time(1.0)
        world.offer(L1, slots=1, leases=[slow])
        world.offer(L2, slots=1)
    copy = next(one for one in world.queued() if one.lease != slow.lease)
    world.offer(L2, slots=1, leases=[copy])
    world.cancel(f"{JOB}-{slow.tasks()[0]}")
    assert world.cancelled(L1) == [slow.lease]
    assert world.cancelled(L2) == [copy.lease]
    assert world.verdict(world.report(copy, [ok(slow.tasks()[0])], L2)) == "stale"
    end = world.terminal()
    assert end is not None
    assert (end.tasks_succeeded, end.tasks_failed) == (5, 1)


def test_answers_that_are_there_count_no_longer() -> None:
    world = world_with(2, verify=Verify())
    world.offer(L1, slots=4)
    for lease in world.queued():
        world.offer(L1, slots=4, leases=[lease])
        world.run(lease, L1)
    world.cancel(f"{JOB}-0")
    check_places(world)
    assert cancelled(world) == [0]
    world.start()
    check_places(world)
    world.offer(L2, slots=4)
    waiting = [task for one in world.queued() for task in one.tasks()]
    assert waiting == [1]


def test_both_who_answer_are_stopped() -> None:
    world = world_with(1, verify=Verify())
    world.offer(L1)
    first = world.pull()
    world.offer(L1, leases=[first])
    world.offer(L2)
    second = next(one for one in world.queued() if one.lease != first.lease)
    world.offer(L2, leases=[second])
    world.cancel(f"{JOB}-0")
    assert (world.cancelled(L1), world.cancelled(L2)) == ([first.lease], [second.lease])
    assert world.terminal() is not None


def test_its_checkpoint_is_forgotten() -> None:
    world = world_with(2, checkpoint=True)
    world.offer()
    lease = world.pull()
    world.report(lease, [], final=False, checkpoints=((0, archive(1)),))
    world.cancel(f"{JOB}-0")
    (live,) = world.broker.state.jobs
    assert live.checkpoints is not None
    assert live.checkpoints.of([(0, 2)]) == ()


def test_a_cancelled_task_is_not_run_again_after_a_crash() -> None:
    world = world_with(3)
    world.offer(slots=1)
    world.cancel(f"{JOB}-1")
    world.start()
    check_places(world)
    (live,) = world.broker.state.jobs
    assert (live.state, live.failed, list(live.failures.cancelled)) == ("queued", 1, [(1, 1)])
    end = finish(world)
    assert (end.tasks_succeeded, end.tasks_failed) == (2, 1)
    assert end.reason == "1 of 3 tasks were cancelled"
    assert cancelled(world) == [1]


def test_a_cancellation_that_a_crash_cut_off_is_obeyed() -> None:
    world = world_with(3)
    world.land_commits = False
    world.cancel(f"{JOB}-1")
    assert world.results == {}
    world.land_commits = True
    world.start()
    assert cancelled(world) == [1]
    check_places(world)
    assert finish(world).tasks_failed == 1


def test_who_stands_by_obeys_it_as_well() -> None:
    world = world_with(3)
    follower = world.stand_by()
    follower.follow()
    world.land_commits = False
    world.cancel(f"{JOB}-1")
    follower.follow()
    world.land_commits = True
    world.take_over(follower)
    assert cancelled(world) == [1]
    check_places(world)
    world.start()
    assert cancelled(world) == [1]


def test_a_job_of_cancelled_tasks_alone_ends_as_cancelled_after_a_crash() -> None:
    world = world_with(2)
    world.cancel(f"{JOB}-0")
    world.cancel(f"{JOB}-1")
    del world.results[subjects.result(ALICE.public_key, JOB)]
    world.start()
    end = world.terminal()
    assert end is not None
    assert end.state == "cancelled"


def test_a_job_that_has_begun_has_begun_after_a_crash() -> None:
    world = world_with(3)
    world.offer(slots=1)
    world.run(world.pull())
    world.cancel(f"{JOB}-2")
    world.start()
    (live,) = world.broker.state.jobs
    assert live.state == "running"


def test_no_lender_says_that_a_task_was_cancelled() -> None:
    world = world_with(2)
    world.offer()
    reply = world.report(world.pull(), [bad(0, cancelled=True)])
    answer = world.replies[reply]
    assert isinstance(answer, DoneReply)
    assert answer.verdict == "malformed"
    assert answer.reason.startswith("results.0.cancelled")
    assert world.results == {}
