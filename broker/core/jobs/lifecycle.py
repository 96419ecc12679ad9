"""A job's way from submission to its terminal record."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from broker.core.containers.ranges import RangeSet
from broker.core.durable.records import TerminalSummary, cut_job_token, event_of, terminal_record
from broker.core.effects import DeleteWork, Record
from broker.core.events import Headers
from broker.core.intake.admission import Admission, Rejection, admit, over_quota, separate_tasks
from broker.core.jobs import queue_time
from broker.core.jobs.endings import Ended
from broker.core.jobs.job import FIRST_STEP, Job, JobKey, undecided_max
from broker.core.leasing.leases import Lease
from broker.core.leasing.telling import tell_holders
from broker.core.state import Due, State
from lender.protocol import bounds
from lender.protocol.errors import ProtocolError
from lender.protocol.ids import check_job_id
from lender.protocol.query import JobStatus
from lender.protocol.result import ReportProof, TaskResult, Terminal, TerminalState
from lender.protocol.signature import verify
from lender.protocol.subjects import parse_job_subject


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ends, and why."""

    state: TerminalState
    field: str | None = None
    reason: str | None = None
    result: TaskResult | None = None
    lender: str | None = None
    attempt: int | None = None
    lease: str | None = None
    proof: ReportProof | None = None


CANCELLED: Final = Ending("cancelled", reason="cancelled by its submitter")


def submit(state: State, now: float, subject: str, headers: Headers, payload: bytes) -> None:
    """Take up a submission, or commit why not. One that is known already changes nothing."""
    key = key_of(subject)
    if key in state.jobs or key in state.history:
        return
    state.figures.submissions += 1
    admitted = _admit(state, now, subject, headers, payload)
    if isinstance(admitted, Rejection):
        reject_submission(state, now, key, admitted)
        return
    job = take_up(state, admitted)
    if state.history.was_cancelled_early(key):
        end(state, now, job, CANCELLED)
    elif job.after:
        state.dependencies.add(key, job.after)
    else:
        release(state, now, job)


def release(state: State, now: float, job: Job) -> None:
    """Let a new job be handed out: what it waited for has ended."""
    tasks = RangeSet(job.tasks)
    tasks.remove_all(job.failures.cancelled)
    job.begin(now, FIRST_STEP, tasks)
    queue_time.start(state, job)
    state.enqueue(job)


def _admit(
    state: State, now: float, subject: str, headers: Headers, payload: bytes
) -> Admission | Rejection:
    """Check a submission; who has its most of jobs is told so before anything costs time."""
    submitter = key_of(subject).submitter
    reason = state.quotas.full(submitter)
    if reason is None:
        admitted = admit(subject, headers, payload, state.submitters, now, state.pools)
        if isinstance(admitted, Rejection):
            return admitted
        spec = admitted.spec
        reason = state.quotas.refuses(
            submitter,
            spec.task_count,
            len(payload),
            undecided_max(spec.verify, spec.task_count),
            spec.task_count if spec.gang else 1,
        )
        if reason is None:
            return admitted
    return over_quota(headers, payload, reason)


def take_up(state: State, admission: Admission) -> Job:
    """Make an admitted job live."""
    job = Job.of(admission, state.jobs.next_order())
    state.jobs.add(job)
    state.quotas.take_up(job.key.submitter, job.total, len(job.payload), job.undecided_max)
    if separate := separate_tasks(admission.spec):
        state.dependencies.separate.add(job.key, separate)
    state.due.set(Due("job", job.key), job.not_after)
    return job


def verified(state: State, now: float, job: Job) -> bool:
    """Tell whether the job's signature holds, which a replay leaves open; end the job if not."""
    if not job.verified:
        try:
            verify(job.key.submitter, job.payload, job.signature or None)
        except ProtocolError as error:
            end(state, now, job, Ending("rejected", error.field, error.reason))
            return False
        job.verified = True
    return True


def expire(state: State, now: float, key: JobKey) -> None:
    """End a job whose time is up."""
    end(state, now, state.jobs[key], Ending("expired", "not_after", "not finished in time"))


def expire_queued(state: State, now: float, key: JobKey) -> None:
    """End a job that no lender has begun with in time."""
    job = state.jobs[key]
    reason = f"no task of it had begun after {job.queue_s:g} s in the queue"
    end(state, now, job, Ending("expired", "queue_s", reason))


def end_of_array(job: Job) -> Ending:
    """Return how a job ends whose tasks all have their results.

    One whose every task was cancelled was cancelled itself; else each of those counts as failed.
    """
    cancelled = len(job.failures.cancelled)
    if cancelled == job.total:
        return CANCELLED
    if not job.failed:
        return Ending("succeeded")
    if not cancelled:
        return Ending("failed", reason=f"{job.failed} of {job.total} tasks failed")
    failed = f", {job.failed - cancelled} failed" if job.failed > cancelled else ""
    return Ending("failed", reason=f"{cancelled} of {job.total} tasks were cancelled{failed}")


def end(
    state: State,
    now: float,
    job: Job,
    ending: Ending,
    records: Iterable[Record] = (),
    results: Sequence[TaskResult] = (),
) -> None:
    """Commit the job's last records, which hold these results, and its terminal one.

    Of its leases, one whose tasks all have their results is left for its holder's last report; the
    others are cancelled at once, and their messages deleted when the end is durable.
    """
    job.enter(ending.state)
    state.figures.job_ended(ending.state, ending.field)
    submitter, job_id = job.key
    terminal = Terminal(
        job=job_id,
        state=ending.state,
        field=ending.field,
        reason=ending.reason,
        tasks_succeeded=job.succeeded,
        tasks_failed=job.failed,
        tasks_total=job.total,
        failed_tasks=job.failures.listed(bounds.FAILED_RANGES_MAX),
        result=ending.result,
        lender=ending.lender,
        attempt=ending.attempt,
        lease=ending.lease,
        proof=ending.proof,
        finished_at=now,
    )
    summary = TerminalSummary(
        job.name,
        ending.state,
        job.total,
        job.succeeded,
        job.failed,
        job.submitted_at,
        now,
        job.failures.listed(bounds.FAILED_RANGES_TOLD_MAX),
        state.dependencies.separate.left(job.key, (one.task for one in results)),
    )
    last = terminal_record(submitter, job_id, terminal, summary, job.content_type)
    token = commit(state, job.key, [*records, last])
    state.dependencies.end_tasks(token, job.key, results, int(now))
    state.dependencies.end(token, job.key, Ended(ending.state, int(now)))
    _let_go(state, now, job)
    state.forget_job(job)
    remember_ended(state, job.key, summary, ending.reason or "")


def commit(state: State, key: JobKey, records: list[Record], untold: Iterable[Record] = ()) -> int:
    """Commit records of one job, and tell of each once it is durable, but for the `untold`."""
    token = state.outbox.commit([*untold, *records])
    for record in records:
        state.outbox.after_commit(event_of(key.submitter, key.job, record))
    return token


def reject_submission(state: State, now: float, key: JobKey, rejection: Rejection) -> None:
    """Commit why a submission can't become a job, under whatever its subject calls it."""
    state.figures.job_ended("rejected", rejection.field)
    terminal = Terminal(
        job=cut_job_token(key.job),
        state="rejected",
        field=rejection.field,
        reason=rejection.reason,
        finished_at=now,
    )
    left = rejection.separate or None
    summary = TerminalSummary("", "rejected", 0, 0, 0, now, now, left=left)
    last = terminal_record(key.submitter, key.job, terminal, summary, rejection.content_type)
    token = commit(state, key, [last])
    if key.submitter in state.submitters:  # else strangers could crowd out what others wait for
        if rejection.separate:
            state.dependencies.separate.add(key, rejection.separate)
        state.dependencies.end(token, key, Ended("rejected", int(now)))
    remember_ended(state, key, summary, f"{rejection.field}: {rejection.reason}")


def remember_ended(state: State, key: JobKey, summary: TerminalSummary, why: str) -> None:
    """Note an ended job for queries: only of submitters that can ask, and by its proper id."""
    if key.submitter not in state.submitters:
        return
    try:
        check_job_id(key.job)
    except ProtocolError:
        return
    state.history.add(
        key.submitter,
        JobStatus(
            job=key.job,
            name=summary.name,
            state=summary.state,
            tasks_total=summary.total,
            tasks_succeeded=summary.succeeded,
            tasks_failed=summary.failed,
            tasks_running=0,
            submitted_at=summary.submitted_at,
            why=why,
            failed_tasks=summary.failed_tasks,
            separate=summary.left is not None,
        ),
    )


def key_of(subject: str) -> JobKey:
    """Return the job that a ledger subject names; the stream takes no other subjects."""
    _, submitter, job, _ = parse_job_subject(subject)
    return JobKey(submitter, job)


def _let_go(state: State, now: float, job: Job) -> None:
    cancelled: list[Lease] = []
    for lease_id in sorted(job.leases):
        lease = state.leases[lease_id]
        if not lease.open:
            state.forget_lease(lease, finished_at=now)
            continue
        cancelled.append(lease)
        if lease.sequence is not None:
            state.outbox.after_commit(DeleteWork(lease.sequence))
        state.forget_lease(lease, finished_at=None)
    tell_holders(state.outbox, "cancel", cancelled)
