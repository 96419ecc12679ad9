"""Done reports: whose they are, which results are new, and what becomes of the rest."""

from collections.abc import Sequence

from broker.core.containers.ranges import RangeSet
from broker.core.copies import votes
from broker.core.durable.records import checkpoints_record, chunk_record, in_chunks
from broker.core.effects import Record, Reply
from broker.core.events import DoneReported
from broker.core.jobs import retries
from broker.core.jobs.job import Job
from broker.core.jobs.lifecycle import Ending, commit, end, end_of_array
from broker.core.leasing.holding import hand_back, set_back, take
from broker.core.leasing.leases import Lease
from broker.core.state import State
from lender.protocol.codec import MSGPACK
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import PREPARE_FIELD, Done, DoneReply
from lender.protocol.result import Chunk, TaskResult, reason_of
from lender.protocol.result_run import ResultRun, decode_results
from lender.protocol.signed_results import proof_of

_COMMITTED = DoneReply(verdict="committed")
_STALE = DoneReply(verdict="stale", reason="the lease is not this lender's, or no longer")


def hear_report(state: State, now: float, event: DoneReported) -> None:
    """Take up a report and answer it once what it says is durable."""
    lender = state.fleet.get(event.lender)
    if lender is not None:
        lender.heard_at = now
    try:
        verdict = _take_up(state, now, event.lender, decode_results(Done, event.payload))
    except ProtocolError as error:
        verdict = DoneReply(verdict="malformed", reason=str(error))
    state.outbox.after_commit(Reply(event.reply_to, verdict, MSGPACK))


def _take_up(state: State, now: float, lender: str, done: Done) -> DoneReply:
    lease = state.leases.get(done.lease)
    if lease is None:
        # The answer to the lease's last report was lost, so it is given again.
        return _COMMITTED if state.leases.was_finished_by(done.lease, lender) else _STALE
    if lease.holder not in (None, lender):
        return _STALE
    job = state.jobs[lease.job]
    done = _one_by_one_if_need_be(job, lease, done)
    _check(lease, job, done)
    if lease.holder is None and done.is_untouched:
        _return(state, now, lease, lender, done)
        return _COMMITTED
    if lease.holder is None and not take(state, now, lease, lender, ends=_ends(job, done)):
        return _STALE
    _take_in(state, now, job, lease, done)
    return _COMMITTED


def _one_by_one_if_need_be(job: Job, lease: Lease, done: Done) -> Done:
    """Make an object of each result, unless there is nothing to look at but that all are new."""
    run = done.results
    if not isinstance(run, ResultRun):
        return done
    alone = job.verify is None and not job.shared and job.checkpoints is None
    if alone and lease.open.holds(run.tasks):
        return done
    return done.model_copy(update={"results": tuple(run)})


def _ends(job: Job, done: Done) -> bool:
    """Tell whether a report brings all that its job lacks, each with success."""
    brought = len(done.results) == job.total - job.settled
    return brought and job.verify is None and _all_succeeded(done.results)


def _all_succeeded(results: Sequence[TaskResult]) -> bool:
    return isinstance(results, ResultRun) or all(one.state == "succeeded" for one in results)


def _take_in(state: State, now: float, job: Job, lease: Lease, done: Done) -> None:
    """Take in what a lease's holder brings, and commit it."""
    lender = lease.holder
    assert lender is not None, "who reports holds the lease"
    fresh = done.results
    if not isinstance(fresh, ResultRun):
        # Results that the lease has brought before are repeated: their answer was lost.
        fresh = [result for result in fresh if result.task in lease.open]
    if job.verify is not None and done.final and done.outcome == "invalid":
        fresh = [*fresh, *votes.refused_by_one(lease, done, fresh)]
    ended, again = _settle(state, now, job, lease, fresh)
    notes = [*_take_checkpoints(job, lease, done), *votes.notes(job, lease, fresh)]
    notes += retries.notes(job, lease.step, again)
    invalid = False
    if done.final:
        invalid = done.outcome == "invalid" and bool(lease.open)
        if lease.open and not invalid:
            _hand_back_rest(state, now, lease, lender, done)
        state.forget_lease(lease, finished_at=now)
    ended_at = now if job.key in state.dependencies.separate else None
    records = _chunks(job, lease, lender, done, ended, ended_at) if job.is_array else []
    if invalid:
        ending = Ending("rejected", done.field or "payload", done.reason)
        end(state, now, job, ending, records, ended)
    elif job.settled == job.total:
        ending = end_of_array(job) if job.is_array else _end_of_task(ended[0], lease, lender, done)
        end(state, now, job, ending, records, ended)
    elif records or notes:
        token = commit(state, job.key, records, untold=notes)
        state.dependencies.end_tasks(token, job.key, ended, int(now))


def _return(state: State, now: float, lease: Lease, lender: str, done: Done) -> None:
    """Lease anew what a lender hands back before it was known to have it: nobody has begun it."""
    _hand_back_rest(state, now, lease, lender, done)
    state.forget_lease(lease, finished_at=None)
    state.leases.remember(now, lease.id, lender)


def _check(lease: Lease, job: Job, done: Done) -> None:
    if lease.job != (done.submitter, done.job):
        raise ProtocolError("job", "is not the lease's job")
    _check_results(lease, done.results)
    if done.checkpoints and job.checkpoints is None:
        raise ProtocolError("checkpoints", "the job declares none")
    for number, (task, _) in enumerate(done.checkpoints):
        if not lease.covers(task):
            raise ProtocolError(f"checkpoints.{number}", "is not of a task of the lease")


def _check_results(lease: Lease, results: Sequence[TaskResult]) -> None:
    if isinstance(results, ResultRun):
        return  # open tasks of the lease, each once
    seen: set[int] = set()
    for number, result in enumerate(results):
        if not lease.covers(result.task):
            raise ProtocolError(f"results.{number}.task", "is not a task of the lease")
        if result.task in seen:
            raise ProtocolError(f"results.{number}.task", "is reported twice")
        if result.cancelled:
            raise ProtocolError(f"results.{number}.cancelled", "is its submitter's to say")
        seen.add(result.task)


def _settle(
    state: State, now: float, job: Job, lease: Lease, fresh: Sequence[TaskResult]
) -> tuple[Sequence[TaskResult], RangeSet]:
    """Count what has ended; let rest what has failed and may be tried again. Returns both."""
    if not fresh:
        return (), RangeSet()
    ended: Sequence[TaskResult] = fresh
    again = RangeSet()
    if isinstance(fresh, ResultRun):
        _settle_run(state, job, lease, fresh)
    else:
        ended, again = _settle_each(state, now, job, lease, fresh)
    lease.works(now)
    lease.working_since = now
    job.progressed()
    state.backlog.learn(job)
    state.enqueue(job)
    return ended, again


def _settle_run(state: State, job: Job, lease: Lease, run: ResultRun) -> None:
    lease.open.remove(run.tasks.start, len(run))
    job.measure(run.durations_s)
    job.succeeded += len(run)
    state.figures.tasks_ended["succeeded"] += len(run)


def _settle_each(
    state: State, now: float, job: Job, lease: Lease, fresh: Sequence[TaskResult]
) -> tuple[list[TaskResult], RangeSet]:
    """Look at each result by itself; returns the same as `_settle`."""
    step = lease.step
    ended = []
    again = RangeSet()
    job.measure(one.duration_s for one in fresh)
    for one in fresh:
        lease.open.remove(one.task)
        result, attempt, may_retry = one, step.attempt, True
        if one.task in job.shared:
            verdict = votes.count(state, job, lease, one)
            if verdict is None:
                continue
            result, attempt, may_retry = verdict
        if result.state == "failed" and may_retry and step.failures < job.retries:
            job.try_again(now, step._replace(attempt=attempt), result.task)
            again.add(result.task)
            continue
        ended.append(result)
        state.figures.tasks_ended[result.state] += 1
        if job.checkpoints is not None:
            job.checkpoints.drop(result.task)
        if result.state == "succeeded":
            job.succeeded += 1
        else:
            job.failed += 1
            if job.is_array:
                job.failures.add([(result.task, 1)])
    return ended, again


def _take_checkpoints(job: Job, lease: Lease, done: Done) -> list[Record]:
    """Note what the lease's tasks without a result would go on from; returns what keeps it."""
    if job.checkpoints is None:
        return []
    number = job.checkpoints.taken
    news = job.checkpoints.take(one for one in done.checkpoints if one[0] in lease.open)
    return [checkpoints_record(*job.key, number, lease.step.attempt, news)] if news else []


def _hand_back_rest(state: State, now: float, lease: Lease, lender: str, done: Done) -> None:
    """Lease the tasks without a result anew.

    An evicted or revoked lease was fine for its lender, which offers no slots now. After a
    refusal the same lender may well be the next to pull it, hence a rest; so too after a
    report that calls itself finished and leaves tasks out. One that took too long to prepare
    is avoided for as long as that took.
    """
    state.figures.leases_handed_back[done.outcome] += 1
    if done.outcome in ("evicted", "revoked"):
        hand_back(state, lease)
    else:
        reason = done.reason or "left out by its lender"
        set_back(state, now, lease, reason, lender)
        if done.field == PREPARE_FIELD:
            job = state.jobs[lease.job]
            job.avoid(lender, now + job.prepare_s)


def _chunks(
    job: Job,
    lease: Lease,
    lender: str,
    done: Done,
    ended: Sequence[TaskResult],
    ended_at: float | None,
) -> list[Record]:
    records = []
    about = Chunk(
        job=job.key.job, lease=lease.id, attempt=lease.step.attempt, lender=lender, results=()
    )
    for results in in_chunks(ended):
        # Each was looked at as the report was read.
        proof = proof_of(done.signature, done.results, results)
        chunk = about.model_copy(update={"results": results, "proof": proof})
        records.append(chunk_record(job.key.submitter, chunk, job.content_type, ended_at))
    return records


def _end_of_task(result: TaskResult, lease: Lease, lender: str, done: Done) -> Ending:
    return Ending(
        result.state,
        reason=reason_of(result),
        result=result,
        lender=lender,
        attempt=lease.step.attempt,
        lease=lease.id,
        proof=proof_of(done.signature, done.results, (result,)),
    )
