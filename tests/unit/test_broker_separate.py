"""Jobs that were submitted together: each ends by itself, for those that wait for it."""

import pytest
from broker_world import (
    ALICE,
    START,
    World,
    bad,
    check_places,
    job_spec,
    ok,
)

from broker.core.durable.records import SUMMARY_HEADER
from broker.core.intake.quotas import Quota
from broker.core.jobs.endings import Ended
from broker.core.jobs.job import JobKey
from lender.protocol.codec import JSON, MSGPACK, ContentType
from lender.protocol.job import After, Array
from lender.protocol.lease import Lease
from lender.protocol.result import Terminal

BOTH, NEXT = "job-0001", "job-0002"
STRANGE = "job-0009"


def world_with(count: int = 3, **fields: object) -> World:
    world = World()
    world.submit(job_spec(job=BOTH, count=count, separate=True, **fields))
    return world


def follow(world: World, name: str, on: str = "success", job: str = NEXT) -> None:
    world.submit(job_spec(job=job, after=(After(job=name, on=on),), created_at=world.now))


def lease_of(world: World, task: int) -> Lease:
    world.offer(slots=8)
    return next(one for one in world.queued() if one.job == BOTH and task in one.tasks())


def handed_out(world: World, job: str = NEXT) -> bool:
    world.offer(slots=8)
    return any(lease.job == job for lease in world.queued())


def ended(world: World, job: str = NEXT) -> Terminal:
    terminal = world.terminal(job)
    assert terminal is not None
    return terminal


def how(world: World, task: int) -> Ended | None:
    return world.broker.state.dependencies.endings.get(JobKey(ALICE.public_key, f"{BOTH}-{task}"))


def test_a_job_follows_one_of_them_once_its_end_is_durable() -> None:
    world = world_with()
    follow(world, f"{BOTH}-1")
    assert not handed_out(world)
    world.run(lease_of(world, 0))
    assert not handed_out(world)
    world.land_commits = False
    world.run(lease_of(world, 1))
    assert not handed_out(world)
    world.land()
    assert handed_out(world)
    check_places(world)


def test_one_that_ended_before_is_not_waited_for() -> None:
    world = world_with()
    world.run(lease_of(world, 2))
    follow(world, f"{BOTH}-2")
    assert handed_out(world)


def test_who_waits_for_success_is_told_of_a_failure() -> None:
    world = world_with()
    follow(world, f"{BOTH}-1")
    follow(world, f"{BOTH}-1", "end", "job-0003")
    world.report(lease_of(world, 1), [bad(1)])
    end = ended(world)
    assert (end.state, end.field) == ("cancelled", "after")
    assert end.reason == f"it was to run after the success of job {BOTH}-1, which failed"
    assert handed_out(world, "job-0003")


def test_a_cancelled_one_has_ended() -> None:
    world = world_with()
    follow(world, f"{BOTH}-1")
    world.cancel(f"{BOTH}-1")
    assert ended(world).reason == (
        f"it was to run after the success of job {BOTH}-1, which was cancelled"
    )


@pytest.mark.parametrize("when", ["before", "after", "anew"])
def test_those_that_are_left_end_with_their_message(when: str) -> None:
    world = world_with(3, not_after=START + 60.0)
    if when == "before":
        follow(world, f"{BOTH}-1")
        follow(world, f"{BOTH}-0", job="job-0003")
    world.run(lease_of(world, 0))
    world.pass_time(61.0)
    assert ended(world, BOTH).state == "expired"
    if when == "anew":
        world.start()
    if when != "before":
        follow(world, f"{BOTH}-1")
        follow(world, f"{BOTH}-0", job="job-0003")
    assert ended(world).reason == f"it was to run after the success of job {BOTH}-1, which expired"
    assert handed_out(world, "job-0003")


def test_what_came_with_the_word_that_none_can_be_run_counts() -> None:
    world = world_with(8)
    world.offer(slots=1)
    world.run(world.pull(), duration_s=0.01)
    lease = next(one for one in world.queued() if one.task_count > 1)
    first, second = lease.tasks()[:2]
    world.report(lease, [ok(first)], outcome="invalid", field="program", reason="no module")
    assert ended(world, BOTH).state == "rejected"
    for _ in range(2):
        assert [one.state for task in (0, first, second) if (one := how(world, task))] == [
            "succeeded",
            "succeeded",
            "rejected",
        ]
        world.start()


def test_all_of_a_rejected_message_were_rejected() -> None:
    world = World()
    follow(world, f"{BOTH}-1")
    late = {"created_at": START - 20.0, "not_after": START - 10.0}
    world.submit(job_spec(job=BOTH, count=3, separate=True, **late))
    assert ended(world).reason == (
        f"it was to run after the success of job {BOTH}-1, which was rejected"
    )
    world.start()
    assert [one.state for task in range(4) if (one := how(world, task))] == ["rejected"] * 3


def test_all_of_one_that_is_too_large_were_rejected() -> None:
    world = World()
    world.broker.state.quotas.change({ALICE.public_key: Quota(tasks_max=2)})
    follow(world, f"{BOTH}-1")
    world.submit(job_spec(job=BOTH, count=3, separate=True))
    assert ended(world, BOTH).field == "quota"
    assert ended(world).state == "cancelled"


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
def test_all_were_rejected_where_their_submitter_has_its_most(content_type: ContentType) -> None:
    world = World()
    follow(world, f"{BOTH}-1")
    world.broker.state.quotas.change({ALICE.public_key: Quota(jobs_max=1)})
    world.submit(job_spec(job=BOTH, count=3, separate=True), content_type=content_type)
    assert ended(world, BOTH).field == "quota"
    assert ended(world).state == "cancelled"


@pytest.mark.parametrize("payload", [b"\x81\xa8separate\xc1", b"separate" * 20_000])
def test_what_can_not_be_read_is_rejected_as_well(payload: bytes) -> None:
    world = World()
    world.broker.state.quotas.change({ALICE.public_key: Quota(jobs_max=1)})
    world.submit(job_spec())
    world.submit_raw(f"submit.{ALICE.public_key}.{NEXT}", {}, payload)
    assert ended(world).field == "quota"


def test_a_task_of_any_other_array_is_not_waited_for() -> None:
    world = World()
    world.submit(job_spec(job=BOTH, count=2))
    follow(world, f"{BOTH}-1")
    for _ in range(3):
        world.offer(slots=8)
        for lease in world.queued():
            world.run(lease)
    assert ended(world, BOTH).state == "succeeded"
    assert not handed_out(world)
    assert world.terminal(NEXT) is None


def test_a_start_knows_how_each_has_ended() -> None:
    world = world_with(4)
    world.run(lease_of(world, 0))
    world.report(lease_of(world, 1), [bad(1)])
    world.cancel(f"{BOTH}-2")
    world.pass_time(0.5)
    before = [how(world, task) for task in range(4)]
    assert [one and one.state for one in before] == ["succeeded", "failed", "cancelled", None]
    follower = world.stand_by()
    follower.follow()
    world.start()
    assert [how(world, task) for task in range(4)] == before
    left = ((3, 1),)
    separate = world.broker.state.dependencies.separate
    assert separate.left(JobKey(ALICE.public_key, BOTH)) == left
    world.cancel(BOTH)
    world.take_over(follower)
    assert [(one := how(world, task)) and one.state for task in range(4)] == [
        "succeeded",
        "failed",
        "cancelled",
        "cancelled",
    ]
    assert JobKey(ALICE.public_key, BOTH) not in world.broker.state.dependencies.separate


@pytest.mark.parametrize("at", ["-1", "1e13", "NaN", "Infinity"])
def test_a_record_of_no_moment_is_none_of_ours(at: str) -> None:
    world = World()
    header = {SUMMARY_HEADER: f'{{"t":[[0,2]],"f":0,"a":1,"e":{at}}}'}
    world.results[f"res.{ALICE.public_key}.{BOTH}.0"] = (header, b"")
    world.start()
    assert len(world.warnings) == 1


def test_a_record_of_more_than_go_together_is_read_in_part() -> None:
    world = World()
    header = {SUMMARY_HEADER: f'{{"t":[[0,{10**12}]],"f":0,"a":1,"e":1}}'}
    world.results[f"res.{ALICE.public_key}.{BOTH}.0"] = (header, b"")
    world.start()
    assert (how(world, 999), how(world, 1000)) == (Ended("succeeded", 1), None)


def test_only_those_indices_that_there_are() -> None:
    world = World()
    spec = job_spec(job=BOTH)
    few = Array(count=9, tasks=((2, 2), (6, 1)), separate=True)
    world.submit(spec.model_copy(update={"array": few}))
    follow(world, f"{BOTH}-4")
    follow(world, f"{BOTH}-6", job="job-0003")
    world.cancel(BOTH)
    assert world.terminal(NEXT) is None
    assert ended(world, "job-0003").state == "cancelled"
    world.start()
    assert [task for task in range(9) if how(world, task)] == [2, 3, 6]


@pytest.mark.parametrize("last", [BOTH, NEXT])
def test_a_circle_by_way_of_one_of_them_is_rejected(last: str) -> None:
    world = World()
    both = job_spec(job=BOTH, count=3, separate=True, after=(After(job=NEXT),))
    if last == NEXT:
        world.submit(both)
        follow(world, f"{BOTH}-1")
        circle = f"{NEXT} waits for {BOTH}-1 waits for {NEXT}"
    else:
        follow(world, f"{BOTH}-1")
        world.submit(both)
        circle = f"{BOTH} waits for {NEXT} waits for {BOTH}"
    end = ended(world, last)
    assert (end.state, end.reason) == ("rejected", f"a circle: {circle}")
    assert ended(world, NEXT if last == BOTH else BOTH).state == "cancelled"


def test_one_that_waits_for_one_of_its_own_is_a_circle() -> None:
    world = world_with(3, after=(After(job=f"{BOTH}-1"),))
    assert ended(world, BOTH).reason == f"a circle: {BOTH} waits for {BOTH}"


def test_another_way_round_is_no_circle() -> None:
    world = World()
    follow(world, f"{STRANGE}-1")
    follow(world, NEXT, job="job-0003")
    world.submit(job_spec(job=STRANGE, count=2, separate=True, after=(After(job="job-0004"),)))
    follow(world, f"{STRANGE}-0", job="job-0004x")
    assert world.results == {}


def test_many_are_not_counted_for_those_who_may_not_submit() -> None:
    world = World(submitters=frozenset())
    world.submit(job_spec(job=BOTH, count=3, separate=True))
    assert ended(world, BOTH).field == "submitter"
    assert how(world, 0) is None
