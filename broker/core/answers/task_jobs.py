"""A task of an array that is asked for by its name: answered as if it were a job.

To those who submitted several jobs together it is one. Of an array that has ended the broker knows
the end of each task only where those are jobs.
"""

from broker.core.answers import tasks
from broker.core.answers.why import Reasons
from broker.core.jobs.job import Job, JobKey
from broker.core.state import State
from lender.protocol.ids import task_named
from lender.protocol.query import JobState, JobStatus, TaskStatus


def status_of(
    state: State, now: float, key: JobKey, task: int | None, reasons: Reasons
) -> JobStatus | None:
    """Return what is known of a task by its name; `task` is asked for of that job, whose one is 0.

    None where the broker knows of none that is called so, or no longer how it ended.
    """
    named = state.jobs.named_task(key)
    if named is None:
        return _of_ended(state, key)
    job, index = named
    if not tasks.has(job, index):
        return None
    found = tasks.status_of(state, now, job, index, reasons)
    if found is None:
        how = _how_settled(job, index)
        return None if how is None else _status(key, job.name, how, job.submitted_at)
    how = "running" if found.state == "running" else "queued"
    told = TaskStatus(task=0, state=found.state, why=found.why) if task == 0 else None
    return _status(key, job.name, how, job.submitted_at, found.why, told)


def _how_settled(job: Job, task: int) -> JobState | None:
    if task in job.failures.cancelled:
        return "cancelled"
    if task in job.failures:
        return "failed"
    return "succeeded" if job.failures.whole else None


def _of_ended(state: State, key: JobKey) -> JobStatus | None:
    named, how = task_named(key.job), state.dependencies.how_ended(key)
    array = state.history.get(JobKey(key.submitter, named[0])) if named is not None else None
    if array is None or how is None:
        return None
    # Those that were left end with their array, and for its reason.
    why = array.why if how == array.state not in ("succeeded", "failed") else ""
    return _status(key, array.name, how, array.submitted_at, why)


def _status(
    key: JobKey,
    name: str,
    how: JobState,
    submitted_at: float,
    why: str = "",
    task: TaskStatus | None = None,
) -> JobStatus:
    return JobStatus(
        job=key.job,
        name=name,
        state=how,
        tasks_total=1,
        tasks_succeeded=int(how == "succeeded"),
        tasks_failed=int(how == "failed"),
        tasks_running=int(how == "running"),
        submitted_at=submitted_at,
        why=why,
        task=task,
    )
