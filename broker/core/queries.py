"""What a submitter is told about its jobs, and, in words, what a waiting one waits for."""

from collections import Counter
from itertools import chain, islice

from broker.core.effects import Reply
from broker.core.events import QueryReceived
from broker.core.job import Job, JobKey
from broker.core.state import State
from lender.protocol.classes import WorkClass
from lender.protocol.codec import (
    CONTENT_TYPE_HEADER,
    MSGPACK,
    ContentType,
    content_type_of,
    decode,
)
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import LenderPhase
from lender.protocol.query import JobStatus, Query, QueryReply

JOBS_LISTED_MAX = 1_000

_WHY_NOT: dict[LenderPhase, str] = {
    "unconsented": "without consent of its owner",
    "lending": "busy",
    "yielding": "yielding to its owner",
    "paused": "paused by its owner",
    "draining": "draining",
    "offline": "offline",
}


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


def status_of(state: State, now: float, job: Job) -> JobStatus:
    """Return a live job as its submitter sees it."""
    running = _tasks_running(state, job)
    return JobStatus(
        job=job.key.job,
        name=job.name,
        state=job.state,
        tasks_total=job.total,
        tasks_succeeded=job.succeeded,
        tasks_failed=job.failed,
        tasks_running=running,
        submitted_at=job.submitted_at,
        why="" if running else _why(state, now, job),
    )


def _jobs(state: State, now: float, submitter: str, query: Query) -> tuple[JobStatus, ...]:
    if query.job is None:
        live = (status_of(state, now, job) for job in state.jobs.newest(submitter))
        return tuple(islice(chain(live, state.history.newest(submitter)), JOBS_LISTED_MAX))
    key = JobKey(submitter, query.job)
    job = state.jobs.get(key)
    if job is not None:
        return (status_of(state, now, job),)
    ended = state.history.get(key)
    return (ended,) if ended is not None else ()


def _tasks_running(state: State, job: Job) -> int:
    leases = (state.leases[lease_id] for lease_id in job.leases)
    return sum(len(lease.open) for lease in leases if lease.holder is not None)


def _why(state: State, now: float, job: Job) -> str:
    phases: Counter[LenderPhase] = Counter()
    free = 0
    for lender in state.fleet.of_class(job.class_token):
        if lender.offer.phase == "lending" and lender.offer.slots_free:
            free += 1
        else:
            phases[lender.offer.phase] += 1
    if not free and not phases:
        return f"no machine offers it: {_wanted(job.class_token)}"
    if job.rest_until is not None and not job.pending:
        rest_s = max(0.0, job.rest_until - now)
        return f"waiting {rest_s:.1f} s after it was handed back: {job.setback_reason}"
    match = _machines(free + phases.total())
    if not free:
        others = ", ".join(f"{count} {_WHY_NOT[phase]}" for phase, count in phases.items())
        return f"{match} it: {others}"
    if job.leases:
        return f"{match} it: handed out, waiting for one to take it"
    return f"{match} it: waiting for its turn"


def _machines(count: int) -> str:
    return "1 machine matches" if count == 1 else f"{count} machines match"


def _wanted(class_token: str) -> str:
    one = WorkClass.parse(class_token)
    runtime = " ".join(filter(None, (one.runtime, one.python)))
    wanted = f"none lends {one.workload} ({runtime}) to this submitter in pool {one.pool}"
    if one.arch != "any":
        wanted += f" on {one.arch}"
    return wanted + (f" with a GPU of {one.gpu}" if one.gpu != "none" else "")
