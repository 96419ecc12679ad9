"""Arrays of some indices, and which tasks of an array have failed."""

import pytest
from broker_world import World, bad, check_places, job_spec, ok

from broker.core.jobs.failures import KEPT_MAX, Failures
from lender.protocol import bounds
from lender.protocol.job import Array
from lender.protocol.query import JobStatus

SOME = ((3, 2), (7, 1), (90, 4))


def status(world: World) -> JobStatus:
    return world.query("job-0001").jobs[0]


def run_all(world: World, failing: set[int] | None = None) -> set[int]:
    """Run what there is; returns the tasks that ran."""
    ran = set()
    while world.work:
        lease = world.pull()
        ran |= set(lease.tasks())
        results = [
            bad(task) if failing and task in failing else ok(task, 0.001) for task in lease.tasks()
        ]
        while len(results) > bounds.CHUNK_RESULTS_MAX:
            world.report(lease, results[: bounds.CHUNK_RESULTS_MAX], final=False)
            del results[: bounds.CHUNK_RESULTS_MAX]
        world.report(lease, results)
        world.ack(lease)
        check_places(world)
    return ran


@pytest.mark.parametrize("restarts", [False, True])
def test_only_the_named_indices_run(*, restarts: bool) -> None:
    world = World()
    world.submit(job_spec(array=Array(count=100, tasks=SOME)))
    world.offer(slots=1)
    if restarts:
        world.run(world.pull(), duration_s=0.001)
        world.start()
        world.offer(slots=1)
    assert run_all(world) >= {7, 90, 91, 92, 93}
    terminal = world.terminal()
    assert terminal is not None
    assert (terminal.state, terminal.tasks_succeeded, terminal.tasks_total) == ("succeeded", 7, 7)
    assert {result.task for result in world.tasks()} == {3, 4, 7, 90, 91, 92, 93}


@pytest.mark.parametrize("restarts", [False, True])
def test_the_failed_tasks_are_named_while_the_job_runs_and_when_it_has_ended(
    *,
    restarts: bool,
) -> None:
    world = World()
    world.submit(job_spec(count=20))
    world.offer(slots=1)
    first, second = world.queued()
    world.report(first, [bad(0)])
    world.ack(first)
    if restarts:
        world.start()
        world.offer(slots=1)
    assert status(world).failed_tasks == ((0, 1),)
    run_all(world, {2, 3, 4, 9, *second.tasks()})
    terminal = world.terminal()
    assert terminal is not None
    assert terminal.failed_tasks == ((0, 5), (9, 1))
    assert status(world).failed_tasks == ((0, 5), (9, 1))
    assert world.query().jobs[0].failed_tasks == (), "a list stays short"
    world.start()
    assert status(world).failed_tasks == ((0, 5), (9, 1))


def test_a_list_has_jobs_without_failures_too() -> None:
    world = World()
    world.submit(job_spec(count=2))
    world.offer(slots=1)
    run_all(world)
    assert world.query().jobs[0].tasks_succeeded == 2


def test_many_failures_are_counted_and_the_first_named() -> None:
    failures = Failures()
    failures.add((2 * number, 1) for number in range(KEPT_MAX + 10))
    assert len(failures.listed(10**9)) == KEPT_MAX
    assert failures.listed(2) == ((0, 1), (2, 1))
    world = World()
    count = 4 * bounds.FAILED_RANGES_MAX
    world.submit(job_spec(count=count))
    world.offer(slots=1)
    run_all(world, set(range(0, count, 2)))
    terminal = world.terminal()
    assert terminal is not None
    assert len(terminal.failed_tasks) == bounds.FAILED_RANGES_MAX
    assert len(status(world).failed_tasks) == bounds.FAILED_RANGES_TOLD_MAX
    assert terminal.tasks_failed == count // 2


def test_a_single_task_is_no_array() -> None:
    world = World()
    world.submit(job_spec())
    world.offer(slots=1)
    run_all(world, {0})
    assert status(world).failed_tasks == ()
    assert status(world).tasks_failed == 1
