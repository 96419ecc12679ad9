"""A task that is asked for by its name, as if it were a job."""

import pytest
from broker_world import BOB, L1, START, World, bad, job_spec, ok

from broker.core.jobs import failures
from lender.protocol.codec import encode
from lender.protocol.job import After, Array
from lender.protocol.query import JobStatus

JOB, NEXT = "job-0001", "job-0002"


def world_with(count: int = 4, *, separate: bool = True, **fields: object) -> World:
    world = World()
    world.submit(job_spec(job=JOB, name="fold", count=count, separate=separate, **fields))
    return world


def status(world: World, task: int, asked: int | None = None) -> JobStatus | None:
    found = world.query(f"{JOB}-{task}", task=asked).jobs
    return found[0] if found else None


def state(world: World, task: int) -> str | None:
    found = status(world, task)
    return found.state if found else None


def settle_some(world: World) -> None:
    """Task 0 succeeds, 1 fails, 2 is cancelled."""
    world.offer(slots=8)
    for lease in world.queued():
        (task,) = lease.tasks()
        if task < 2:
            world.report(lease, [bad(task) if task else ok(task)])
            world.ack(lease)
    world.cancel(f"{JOB}-2")


def test_a_task_is_answered_as_the_job_that_it_is() -> None:
    world = world_with()
    waits = status(world, 3, asked=0)
    assert waits is not None
    assert (waits.job, waits.name, waits.submitted_at) == (f"{JOB}-3", "fold", START)
    assert (waits.tasks_total, waits.tasks_running) == (1, 0)
    assert waits.state == "queued"
    assert waits.why.startswith("no machine offers it")
    assert waits.task is not None
    assert (waits.task.task, waits.task.state, waits.task.why) == (0, "waiting", waits.why)
    assert not waits.separate

    world.offer(slots=8)
    lease = next(one for one in world.queued() if one.tasks() == [3])
    world.offer(slots=8, leases=[lease])
    runs = status(world, 3)
    assert runs is not None
    assert (runs.state, runs.tasks_running) == ("running", 1)
    assert runs.why.startswith(f"attempt 1 is with lender {L1[:8]}")
    assert runs.task is None


def test_how_each_has_ended_is_known_while_others_go_on_and_after_a_start() -> None:
    world = world_with()
    settle_some(world)
    for _ in range(2):
        assert [state(world, task) for task in range(5)] == [
            "succeeded",
            "failed",
            "cancelled",
            "queued",
            None,
        ]
        counts = [status(world, task) for task in range(3)]
        assert [(one.tasks_succeeded, one.tasks_failed) for one in counts if one] == [
            (1, 0),
            (0, 1),
            (0, 0),
        ]
        world.start()


def test_how_each_has_ended_is_known_when_all_have() -> None:
    world = world_with()
    settle_some(world)
    world.cancel(JOB)
    for _ in range(2):
        assert [state(world, task) for task in range(5)] == [
            "succeeded",
            "failed",
            "cancelled",
            "cancelled",
            None,
        ]
        world.start()


def test_those_that_are_left_end_for_the_reason_of_their_array() -> None:
    world = world_with(2, not_after=START + 10.0)
    world.pass_time(11.0)
    left = status(world, 1)
    assert left is not None
    assert (left.state, left.why) == ("expired", "not finished in time")


def test_an_end_that_is_not_durable_yet_is_known_and_told_when_it_is() -> None:
    world = world_with(2)
    world.land_commits = False
    world.cancel(JOB)
    with pytest.raises(KeyError):
        status(world, 1)  # the answer waits
    world.land()
    (answer,) = [one for one in world.replies.values() if getattr(one, "jobs", ())]
    assert answer.jobs[0].state == "cancelled"


def test_of_any_other_array_as_long_as_it_lives() -> None:
    world = world_with(separate=False)
    settle_some(world)
    assert [state(world, task) for task in range(5)] == [
        "succeeded",
        "failed",
        "cancelled",
        "queued",
        None,
    ]
    world.cancel(JOB)
    assert [state(world, task) for task in range(4)] == [None] * 4


def test_where_failures_are_not_all_kept_nothing_is_made_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failures, "KEPT_MAX", 1)
    world = world_with(separate=False)
    settle_some(world)
    assert (state(world, 0), state(world, 1)) == (None, "failed")


def test_a_job_that_is_called_so_comes_first() -> None:
    world = world_with()
    world.submit(job_spec(job=f"{JOB}-1", name="other"))
    found = status(world, 1)
    assert found is not None
    assert found.name == "other"
    world.cancel(f"{JOB}-1")
    found = status(world, 1)
    assert found is not None
    assert (found.name, found.state) == ("other", "cancelled")


def test_others_learn_nothing_of_it() -> None:
    world = world_with()
    assert world.query(f"{JOB}-1", BOB).jobs == ()


def test_those_that_went_together_are_listed_once() -> None:
    world = world_with()
    world.submit(job_spec(job=NEXT, count=2))
    listed = {one.job: one.separate for one in world.query().jobs}
    assert listed == {JOB: True, NEXT: False}
    assert b"separate" not in encode(world.query(NEXT).jobs[0])
    world.cancel(JOB)
    for _ in range(2):
        assert world.query(JOB).jobs[0].separate
        world.start()


def test_who_follows_one_of_them_is_told_where_it_is() -> None:
    world = World()
    spec = job_spec(job=JOB).model_copy(
        update={"array": Array(count=4, tasks=((0, 1), (2, 1)), separate=True)}
    )
    world.submit(spec)
    for number, name in enumerate((f"{JOB}-0", f"{JOB}-2", f"{JOB}-3", f"{JOB}-99")):
        world.submit(job_spec(job=f"next-{number:04d}", after=(After(job=name),)))
    world.offer(slots=1)
    lease = world.pull()
    world.offer(slots=1, leases=[lease])

    def why(number: int) -> str:
        return world.query(f"next-{number:04d}").jobs[0].why

    assert why(0) == f"waits for job {JOB}-0 (running)"
    assert why(1) == f"waits for job {JOB}-2 (queued)"
    for number, name in ((2, f"{JOB}-3"), (3, f"{JOB}-99")):
        assert why(number) == f"waits for job {name} (none of those that went together)"


def test_who_follows_a_task_of_any_other_array_is_told_so() -> None:
    world = world_with(separate=False)
    world.submit(job_spec(job=NEXT, after=(After(job=f"{JOB}-0"),)))
    (waits,) = world.query(NEXT).jobs
    how = "a task of an array, which is no job: wait for the array"
    assert waits.why == f"waits for job {JOB}-0 ({how})"
