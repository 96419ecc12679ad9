"""What a submitter is told about its jobs."""

from itertools import chain, islice

from broker.core.answers import task_jobs, tasks
from broker.core.answers.why import Reasons
from broker.core.copies import sharing, votes
from broker.core.effects import Reply
from broker.core.events import QueryReceived
from broker.core.jobs.job import Job, JobKey
from broker.core.state import State
from lender.protocol import bounds
from lender.protocol.codec import (
    CONTENT_TYPE_HEADER,
    JSON,
    MSGPACK,
    ContentType,
    content_type_of,
    decode,
)
from lender.protocol.errors import ProtocolError
from lender.protocol.query import JobStatus, Query, QueryReply

JOBS_LISTED_MAX = 1_000


def answer(state: State, now: float, event: QueryReceived) -> None:
    """Answer once everything that the answer counts is durable."""
    content_type: ContentType = MSGPACK
    try:
        content_type = content_type_of(event.headers.get(CONTENT_TYPE_HEADER))
        query = decode(Query, event.payload, content_type)
        reply = QueryReply(jobs=_jobs(state, now, event.submitter, query))
    except ProtocolError as error:
        reply = QueryReply(error=str(error))
    state.outbox.after_commit(Reply(event.reply_to, reply, content_type))


def refusal(event: QueryReceived, reason: str) -> Reply:
    """Return the answer to a question that is not looked at."""
    asked_in_json = event.headers.get(CONTENT_TYPE_HEADER) == JSON
    return Reply(event.reply_to, QueryReply(error=reason), JSON if asked_in_json else MSGPACK)


def status_of(state: State, job: Job, reasons: Reasons) -> JobStatus:
    """Return a live job as its submitter sees it."""
    running = _tasks_running(state, job)
    waits = "" if running else votes.wants(job) or reasons.why(job)
    told = (votes.told(job), sharing.told(job), waits)
    return JobStatus(
        job=job.key.job,
        name=job.name,
        state=job.state,
        tasks_total=job.total,
        tasks_succeeded=job.succeeded,
        tasks_failed=job.failed,
        tasks_running=running,
        submitted_at=job.submitted_at,
        why="; ".join(filter(None, told)),
        separate=job.key in state.dependencies.separate,
    )


def _jobs(state: State, now: float, submitter: str, query: Query) -> tuple[JobStatus, ...]:
    reasons = Reasons(state, now)
    if query.job is None:
        live = (status_of(state, job, reasons) for job in state.jobs.newest(submitter))
        ended_jobs = map(_in_short, state.history.newest(submitter))
        return tuple(islice(chain(live, ended_jobs), JOBS_LISTED_MAX))
    key = JobKey(submitter, query.job)
    job = state.jobs.get(key)
    if job is not None:
        failed_tasks = job.failures.listed(bounds.FAILED_RANGES_TOLD_MAX)
        status = status_of(state, job, reasons)
        task = None if query.task is None else tasks.status_of(state, now, job, query.task, reasons)
        return (status.model_copy(update={"failed_tasks": failed_tasks, "task": task}),)
    ended = state.history.get(key) or task_jobs.status_of(state, now, key, query.task, reasons)
    return (ended,) if ended is not None else ()


def _in_short(status: JobStatus) -> JobStatus:
    return status.model_copy(update={"failed_tasks": ()}) if status.failed_tasks else status


def _tasks_running(state: State, job: Job) -> int:
    if job.is_gang and not state.gangs.runs(job):
        return 0
    leases = (state.leases[lease_id] for lease_id in job.leases)
    return sum(len(lease.open) for lease in leases if lease.holder is not None)
