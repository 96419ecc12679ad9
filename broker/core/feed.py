"""Which job's tasks go into the work queues next, and how many in one lease."""

from heapq import heapify, heappop, heappush

from broker.core.effects import FeedWork
from broker.core.job import Job, JobKey
from broker.core.leases import Lease
from broker.core.ranges import RangeSet
from broker.core.state import State
from lender.protocol import lease as wire

LEASE_WORK_S = 1.0
"""A lease of an array is about this much work."""

LEASE_TASKS_MAX = 1_000

FAILURES_HEADER = "Lender-Failures"
"""Of a lease's message: how often the work of its tasks has failed before (absent: never)."""


_Ready = tuple[int, float, str, JobKey]
"""Of a class: its submitter's outstanding leases, the order of its oldest job, that job."""


def feed(state: State, now: float) -> None:
    """Fill the queues of the stirred classes, as deep as there is room.

    The submitter with the fewest outstanding leases comes first, and its oldest job. What waits
    in a queue without being counted to a lender takes room before anything new.
    """
    stirred, state.stirred = state.stirred, set()
    ready: list[_Ready] = []
    for token in stirred:
        _claim_waiting(state, token)
        _push(state, ready, token)
    heapify(ready)
    set_aside: list[Job] = []
    while ready:
        served, _, token, key = heappop(ready)
        job = state.jobs[key]
        if served != state.leases.served[job.key.submitter]:
            _push(state, ready, token, sift=True)
            continue
        avoided = (lambda lender, job=job: job.avoids(lender, now)) if job.avoided else None
        lender = state.fleet.choose(token, avoided)
        if lender is not None:
            _lease(state, now, job, lender)
        elif state.fleet.choose(token, None) is not None:
            set_aside.append(job)  # a lender that it avoids has room, which others may use
            state.backlog.drop(job)
        else:
            continue
        _push(state, ready, token, sift=True)
    for job in set_aside:
        state.backlog.add(job)


def lease_size(mean_s: float | None, remaining: int, slots: int) -> int:
    """Return how many tasks make one lease (guided self-scheduling).

    About `LEASE_WORK_S` of work, but less towards the end, so that all slots end together.
    Source: Polychronopoulos and Kuck, IEEE Transactions on Computers C-36 (1987), with the
    factor 2 of Hummel, Schonberg and Flynn's factoring (CACM 35, 1992).

    Args:
        mean_s: measured time of a task; None before the first result: then one task.
        remaining: tasks that wait.
        slots: usable slots of the class.
    """
    if mean_s is None:
        return 1
    by_time = LEASE_WORK_S / mean_s if mean_s * LEASE_TASKS_MAX > LEASE_WORK_S else LEASE_TASKS_MAX
    by_share = remaining / (2 * max(1, slots))
    return max(1, int(min(by_time, by_share)))


def _push(state: State, ready: list[_Ready], token: str, *, sift: bool = False) -> None:
    first = state.backlog.first(token)
    if first is None:
        return
    order, key = first
    entry = (state.leases.served[key.submitter], order, token, key)
    if sift:
        heappush(ready, entry)
    else:
        ready.append(entry)


def _claim_waiting(state: State, token: str) -> None:
    while (lease := state.leases.unclaimed(token)) is not None:
        lender = state.fleet.choose(token, None)
        if lender is None:
            return
        state.claim(lease, lender)


def _lease(state: State, now: float, job: Job, lender: str) -> None:
    slots = state.fleet.slots_of(job.class_token)
    step, tasks = job.take(lease_size(job.mean_s, job.pending_count, slots))
    lease = Lease(
        id=state.new_lease_id(),
        job=job.key,
        class_token=job.class_token,
        step=step,
        ranges=tasks,
        open=tasks.copy(),
        fed_at=now,
    )
    job.leases.add(lease.id)
    state.leases.add(lease)
    state.claim(lease, lender)
    if not job.pending:
        state.backlog.drop(job)
    state.outbox.emit(
        FeedWork(
            job.class_token,
            _message(job, lease.id, step.attempt, tasks),
            {FAILURES_HEADER: str(step.failures)} if step.failures else {},
        )
    )


def _message(job: Job, lease_id: str, attempt: int, tasks: RangeSet) -> wire.Lease:
    return wire.Lease(
        lease=lease_id,
        job=job.key.job,
        submitter=job.key.submitter,
        attempt=attempt,
        ranges=tuple(tasks),
        spec=job.payload,
        content_type=job.content_type,
        signature=job.signature,
        checkpoints=job.checkpoints.of(tasks) if job.checkpoints is not None else (),
    )
