"""A submitter takes back a job, or one task of an array.

A task's name (`ids.task_name`) stands where a job's id does. Its result is the broker's own word:
failed, and cancelled. Nothing happens where the array is not known, where it has no such task, or
where the task has its result. A gang's tasks need each other, so none is cancelled alone. No more
than `failures.KEPT_MAX` ranges of an array's tasks are, since the broker knows each by heart.
"""

from typing import Final

from broker.core.durable.records import chunk_record
from broker.core.jobs.job import Job
from broker.core.jobs.lifecycle import CANCELLED, commit, end, end_of_array, key_of
from broker.core.leasing.holding import hand_back
from broker.core.leasing.leases import Lease
from broker.core.leasing.telling import tell_holders
from broker.core.state import State
from lender.protocol.result import Chunk, TaskResult

FIGURE: Final = "cancelled"
"""What such a task counts as beside those that succeeded and failed."""


def cancel(state: State, now: float, subject: str) -> None:
    """End a live job, or one task; a job that is not known yet will end when it comes."""
    key = key_of(subject)
    job = state.jobs.get(key)
    if job is not None:
        end(state, now, job, CANCELLED)
    elif key in state.history:
        return
    elif (named := state.jobs.named_task(key)) is not None:
        _cancel_task(state, now, *named)
    else:
        state.history.note_early_cancel(key)


def _cancel_task(state: State, now: float, job: Job, task: int) -> None:
    if job.is_gang or job.failures.full or task in job.failures.cancelled:
        return
    leases = _leases_of(state, job, task)
    if not leases and not _waits(state, job, task):
        return
    _take_out(state, job, task, leases)
    job.failed += 1
    job.failures.cancel([(task, 1)])
    state.figures.tasks_ended[FIGURE] += 1
    result = TaskResult(task=task, state="failed", cancelled=True, error=CANCELLED.reason)
    chunk = Chunk(job=job.key.job, results=(result,))
    ended_at = now if job.key in state.dependencies.separate else None
    records = [chunk_record(job.key.submitter, chunk, job.content_type, ended_at)]
    if job.settled == job.total:
        end(state, now, job, end_of_array(job), records, chunk.results)
    else:
        token = commit(state, job.key, records)
        state.dependencies.end_tasks(token, job.key, chunk.results, int(now))


def _leases_of(state: State, job: Job, task: int) -> list[Lease]:
    leases = (state.leases[lease_id] for lease_id in job.leases)
    return sorted((one for one in leases if task in one.open), key=lambda lease: lease.id)


def _waits(state: State, job: Job, task: int) -> bool:
    """Tell whether a task waits: for its lease, for the end of a rest, or with its whole job."""
    if state.dependencies.left(job.key):
        return any(first <= task < first + count for first, count in job.tasks)
    waiting = [*job.pending.values(), *(one.tasks for one in job.resting)]
    return any(task in tasks for tasks in waiting)


def _take_out(state: State, job: Job, task: int, leases: list[Lease]) -> None:
    """Take a task from wherever it is. What else was in its leases waits anew, at no cost."""
    job.shared.pop(task, None)
    if job.checkpoints is not None:
        job.checkpoints.drop(task)
    tell_holders(state.outbox, "cancel", leases)
    for lease in leases:
        lease.open.remove(task)
        hand_back(state, lease)
        state.give_up(lease)
    job.take_back(task)
    if not job.pending:
        state.backlog.tidy(state.backlog.group_of(job))
