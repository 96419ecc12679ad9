"""A gang's way from its leases to its start, and what becomes of it when one of them ends."""

from collections.abc import Iterable

from broker.core.effects import SendControl
from broker.core.gangs.gang import Gang
from broker.core.jobs import queue_time
from broker.core.jobs.job import Job, Step
from broker.core.leasing.feed import lease_tasks
from broker.core.leasing.leases import Lease
from broker.core.leasing.telling import tell_holders
from broker.core.state import Due, State
from lender.protocol.lease import Control, HeldLease


def settle(state: State, now: float) -> None:
    """See after each gang that something has happened to, until all stand as they should."""
    while (gang := state.gangs.take_touched()) is not None:
        _mend(state, now, gang)
        state.gangs.note(gang)


def gather(state: State, now: float, gang: Gang, claims: Iterable[str] = ()) -> None:
    """Lease all that waits of a gang, and wait for lenders to take it.

    The leases are counted to `claims`, as far as these go. What is counted to no lender takes the
    next room there is, before anything new is leased.
    """
    state.gangs.enter(gang, "gathering")
    _lease_each(state, now, gang.job, claims)
    state.due.set(Due("gather", gang.job.key), now + gang.gather_s)


def give_up(state: State, now: float, job: Job) -> None:
    """The time to gather is over: let go of what is held, for as long as it has gathered."""
    gang = state.gangs[job.key]
    if gang.phase == "gathering":
        members = _members(state, job)
        held = sum(one.holder is not None for one in members)
        left, took_s = job.total - job.settled, gang.gather_s
        scatter(state, job)
        job.rest(now + took_s, f"{held} of {left} tasks found a place within {took_s:.0f} s")
        gang.gathers += 1
    else:
        scatter(state, job)
    state.enqueue(job)


def hear(state: State, lender_id: str, listed: Iterable[HeldLease]) -> None:
    """Note which members are ready; one that waits while its gang runs has not heard: tell again.

    What runs, or has run and is frozen, is ready too: after a replay that is all there is to know.
    """
    late = []
    for held in listed:
        lease = state.leases.get(held.lease)
        gang = state.gangs.get(lease.job) if lease is not None else None
        if lease is None or gang is None or lease.holder != lender_id:
            continue
        if gang.phase == "running":
            if held.ready:
                late.append(lease.id)
        elif lease.id not in gang.ready and (held.ready or held.state in ("running", "frozen")):
            gang.ready.add(lease.id)
            state.gangs.touch(gang.job)
    if late:
        state.outbox.emit(SendControl(lender_id, Control(kind="start", leases=tuple(late))))


def _mend(state: State, now: float, gang: Gang) -> None:
    job = gang.job
    if gang.phase == "waiting" and _members(state, job):
        state.gangs.enter(gang, "found")  # nothing but a replay leases tasks of a gang that waits
    if gang.phase in ("running", "found") and (job.pending or job.resting):
        scatter(state, job)
    members = _members(state, job)
    if not members:
        _let_wait(state, now, gang)
    elif gang.phase != "running":
        if gang.phase == "gathering" and job.pending:
            _lease_each(state, now, job)
        _go_on(state, now, gang)


def _go_on(state: State, now: float, gang: Gang) -> None:
    """Start a gang whose members are all held and ready; wait for the first of it in time only.

    To prepare takes as long as the lenders allow: they hand back what takes longer.
    """
    job, gather = gang.job, Due("gather", gang.job.key)
    members = _members(state, job)
    if job.pending or job.resting or not all(one.holder for one in members):
        if gather not in state.due:
            state.due.set(gather, now + gang.gather_s)
        return
    state.due.drop(gather)
    if gang.ready.issuperset(one.id for one in members):
        _start(state, now, gang, members)


def _let_wait(state: State, now: float, gang: Gang) -> None:
    if gang.phase != "waiting":
        state.gangs.enter(gang, "waiting")
        gang.ready.clear()
        state.gangs.look_soon(now)
        state.due.drop(Due("gather", gang.job.key))
    if gang.is_ready and state.gangs.look_at is None:
        state.gangs.look_at = now


def _start(state: State, now: float, gang: Gang, members: Iterable[Lease]) -> None:
    state.gangs.enter(gang, "running")
    state.gangs.look_soon(now)
    gang.gathers = 0
    gang.ready.clear()
    if Due("queue", gang.job.key) in state.due:
        queue_time.stop(state, gang.job)
    tell_holders(state.outbox, "start", members)


def scatter(state: State, job: Job) -> None:
    """Take back what is leased, to be leased anew together; it costs no retry."""
    members = _members(state, job)
    tell_holders(state.outbox, "cancel", members)
    for lease in members:
        job.put_back({Step(lease.step.attempt + 1, lease.step.failures): lease.open})
        state.give_up(lease)


def _lease_each(state: State, now: float, job: Job, claims: Iterable[str] = ()) -> None:
    claim = iter(claims)
    while job.pending and state.quotas.room(job.key.submitter):
        lease_tasks(state, now, job, 1, next(claim, None))
    state.stir(job.need)


def _members(state: State, job: Job) -> list[Lease]:
    """Return the leases of its tasks without a result, in order of handing out."""
    leases = [state.leases[lease_id] for lease_id in sorted(job.leases)]
    return [lease for lease in leases if lease.open]
