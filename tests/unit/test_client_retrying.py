"""Which tasks are tried once more."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from broker_world import START, job_spec

from lender.client.collector import TaskRecord
from lender.client.errors import ClientError, Rejected
from lender.client.job import Job
from lender.client.retrying import retry_spec, tasks_to_retry
from lender.protocol import bounds
from lender.protocol.job import Array, JobSpec
from lender.protocol.result import TaskResult, Terminal


class Ended:
    """A job of which only some results are read."""

    def __init__(self, spec: JobSpec, succeeded: list[int]) -> None:
        self.spec = spec
        self.id = spec.id
        self._succeeded = succeeded
        self.reads = 0

    async def results(self) -> AsyncIterator[TaskRecord]:
        self.reads += 1
        for task in range(self.spec.task_end):
            state: Any = "succeeded" if task in self._succeeded else "failed"
            yield TaskRecord(TaskResult(task=task, state=state), "L", 1)


def terminal(state: str, succeeded: int, failed: int, **fields: object) -> Terminal:
    return Terminal.model_validate(
        {
            "job": "job-0001",
            "state": state,
            "tasks_succeeded": succeeded,
            "tasks_failed": failed,
            "finished_at": START,
            **fields,
        }
    )


async def retried(job: Ended, end: Terminal) -> tuple[tuple[int, int], ...]:
    return await tasks_to_retry(cast("Job", job), end)


async def test_the_last_word_names_them() -> None:
    job = Ended(job_spec(count=10), [])
    end = terminal("failed", 7, 3, failed_tasks=((2, 2), (9, 1)))
    assert await retried(job, end) == ((2, 2), (9, 1))
    assert job.reads == 0


@pytest.mark.parametrize(
    ("spec", "succeeded", "left"),
    [
        (job_spec(count=6), [0, 3, 4], ((1, 2), (5, 1))),
        (job_spec(array=Array(count=9, tasks=((2, 3), (8, 1)))), [3], ((2, 1), (4, 1), (8, 1))),
    ],
)
async def test_where_it_names_too_few_the_results_tell(
    spec: JobSpec, succeeded: list[int], left: tuple[tuple[int, int], ...]
) -> None:
    job = Ended(spec, succeeded)
    end = terminal("expired", len(succeeded), 1, failed_tasks=((1, 1),))
    assert await retried(job, end) == left


async def test_of_a_job_without_any_success_all_are_tried() -> None:
    job = Ended(job_spec(), [])
    assert await retried(job, terminal("failed", 0, 1)) == ((0, 1),)
    job = Ended(job_spec(count=5), [])
    assert await retried(job, terminal("cancelled", 0, 0)) == ((0, 5),)
    assert job.reads == 0


@pytest.mark.parametrize(
    ("spec", "every"),
    [
        (job_spec(count=4, gang=True), ((0, 4),)),
        (job_spec(array=Array(count=9, tasks=((2, 3),)), gang=True), ((2, 3),)),
    ],
)
async def test_a_gang_is_tried_as_a_whole(
    spec: JobSpec, every: tuple[tuple[int, int], ...]
) -> None:
    job = Ended(spec, [2])
    end = terminal("failed", 2, 1, failed_tasks=((3, 1),))
    assert await retried(job, end) == every
    new = retry_spec(spec, every, job="job-0002", now=START)
    assert (new.gang, new.task_ranges, new.array) == (True, every, spec.array)
    with pytest.raises(ClientError, match="has failed"):
        await retried(job, terminal("succeeded", 3, 0))


async def test_where_nothing_failed_there_is_nothing_to_do() -> None:
    with pytest.raises(ClientError, match="no task of job job-0001 has failed"):
        await retried(Ended(job_spec(), [0]), terminal("succeeded", 1, 0))


def test_the_new_job_is_as_the_old_one_was_but_for_its_tasks_and_time() -> None:
    old = job_spec(count=10, not_before=START + 5, name="fold", retries=3)
    new = retry_spec(old, ((2, 2), (9, 1)), job="job-0002", now=START + 1000)
    assert new.array == Array(count=10, tasks=((2, 2), (9, 1)))
    assert (new.id, new.created_at, new.not_before) == ("job-0002", START + 1000, None)
    assert new.not_after - new.created_at == old.not_after - old.created_at
    assert (new.name, new.retries, new.argv) == (old.name, old.retries, old.argv)
    assert retry_spec(old, ((0, 10),), job="job-0002", now=START).array == Array(count=10)
    assert retry_spec(job_spec(), ((0, 1),), job="job-0002", now=START).array is None


def test_each_task_keeps_its_words() -> None:
    array = Array(count=2, each=(("a",), ("b",)), separate=True)
    old = job_spec().model_copy(update={"array": array})
    new = retry_spec(old, ((1, 1),), job="job-0002", now=START).array
    assert new == array.model_copy(update={"tasks": ((1, 1),)})


def test_what_is_scattered_too_far_is_refused() -> None:
    old = job_spec(count=bounds.ARRAY_COUNT_MAX)
    tasks = tuple((2 * number, 1) for number in range(bounds.ARRAY_RANGES_MAX + 1))
    with pytest.raises(Rejected, match="at most 10000"):
        retry_spec(old, tasks, job="job-0002", now=START)
