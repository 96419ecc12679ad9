"""A submitter's questions to the broker about its own jobs, and the answers."""

import operator
from typing import Literal

from pydantic import Field

from lender.protocol import bounds
from lender.protocol.codec import Open
from lender.protocol.ids import JobId
from lender.protocol.job import TaskRange

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "rejected", "expired"]


class Query(Open):
    """Ask for one job, or for all of the submitter's that the broker remembers."""

    v: Literal[1] = 1
    job: JobId | None = None


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


class QueryReply(Open):
    """The answer: newest job first; empty for a job that is not known."""

    v: Literal[1] = 1
    jobs: tuple[JobStatus, ...] = ()
    error: str = ""
