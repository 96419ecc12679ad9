"""A submitter's questions to the broker about its own jobs, and the answers."""

import operator
from typing import Literal

from pydantic import Field

from lender.protocol import bounds
from lender.protocol.codec import Open
from lender.protocol.ids import JobId
from lender.protocol.job import TaskRange


def _is_none(value: object) -> bool:
    return value is None


JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "rejected", "expired"]


class Query(Open):
    """Ask for one job, or for all of the submitter's that the broker remembers."""

    v: Literal[1] = 1
    job: JobId | None = None
    task: int | None = Field(default=None, ge=0, exclude_if=_is_none)
    """Of that job: where this one of its tasks is."""


class TaskStatus(Open):
    """A task without a result: `why` says in words what it waits for, or where it runs."""

    task: int
    state: Literal["waiting", "running"]
    why: str = ""


class JobStatus(Open):
    """A job as the broker sees it. `why` says in words what a waiting job waits for."""

    job: JobId
    name: str
    state: JobState
    tasks_total: int
    tasks_succeeded: int
    tasks_failed: int
    tasks_running: int
    submitted_at: float
    why: str = ""
    failed_tasks: tuple[TaskRange, ...] = Field(
        default=(), max_length=bounds.FAILED_RANGES_TOLD_MAX, exclude_if=operator.not_
    )
    """Of an array that was asked for by its id: the first of those that failed."""
    separate: bool = Field(default=False, exclude_if=operator.not_)
    """Whether its tasks are jobs that were submitted together."""
    task: TaskStatus | None = Field(default=None, exclude_if=_is_none)
    """The task that was asked for; none for one that has its result, or that is not the job's."""


class QueryReply(Open):
    """The answer: newest job first; empty for a job that is not known."""

    v: Literal[1] = 1
    jobs: tuple[JobStatus, ...] = ()
    error: str = ""
