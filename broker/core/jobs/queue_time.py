"""How long a job may wait until a lender begins one of its tasks: `queue_s`.

A job that has begun says so in RESULTS if it has such a bound: nothing else there would tell a
broker that takes over of a task that was begun and then handed back.
"""

from broker.core.durable.records import begun_record
from broker.core.jobs.job import Job, JobKey
from broker.core.state import Due, State


def start(state: State, job: Job, grace_until: float = 0.0) -> None:
    """Count a job's time in the queue: from when nothing but machines kept it waiting.

    Args:
        state: of the broker.
        job: that waits for no other any more.
        grace_until: it does not expire before.
    """
    if job.queue_s is not None and job.state == "queued":
        free_since = state.dependencies.since(job.key, job.after)
        begins = max(free_since, job.submitted_at, job.not_before)
        state.due.set(Due("queue", job.key), max(begins + job.queue_s, grace_until))


def stop(state: State, job: Job) -> None:
    """Note that a lender has begun with the job."""
    if job.queue_s is not None:
        state.due.drop(Due("queue", job.key))
        state.outbox.commit([begun_record(*job.key)])


def shift(state: State, now: float, due: Due, at: float, by_s: float) -> None:
    """Move the end of a job's time in the queue, after the clock itself has been moved.

    What has passed of it has passed; a day on which it begins stays what it is.
    """
    queue_s = state.jobs[JobKey(*due.name)].queue_s or 0.0
    begins = at - queue_s
    begun = begins <= now - by_s
    state.due.set(due, at + by_s if begun else max(begins, now) + queue_s)
