"""Tasks that wait behind longer ones than their lease was made for: idle machines begin them.

A lease is as large as its tasks are expected to be short, by what was measured, foretold or usual.
Where that was wrong, the others of the lease would run one after another while machines lie idle.
None of them has begun, so to lease them once more doubles no work yet: who has them goes on from
the front, the others take them from the end, and a lease of which nothing is left is cancelled.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from broker.core.containers.ranges import RangeSet
from broker.core.copies.giving import COPIES_PER_LOOK, LATE_MIN_S, give
from broker.core.copies.shared import owner_of
from broker.core.jobs.job import Job, Step
from broker.core.leasing.feed import LEASE_COST_S, LEASE_WORK_S, lease_size
from broker.core.leasing.leases import Lease
from broker.core.matching.lender import Lender
from broker.core.state import State
from lender.protocol import bounds

LONGER = 4.0
"""Whose tasks would take so many times what a lease is to take, that one was made for others."""


def spread(state: State, now: float, idle: Sequence[Lender]) -> None:
    """Lease what waits behind long tasks to idle machines, what waits longest first."""
    classes = frozenset[str]().union(*(one.classes for one in idle))
    late = [
        (wait_s, lease)
        for lease in state.leases
        if lease.class_token in classes and (wait_s := _wait_s(state, lease, now)) > 0.0
    ]
    late.sort(key=lambda one: (-one[0], one[1].fed_at, one[1].id))
    gives_left = COPIES_PER_LOOK
    for _, lease in late:
        while gives_left and _give_some(state, now, lease, idle):
            gives_left -= 1


def _wait_s(state: State, lease: Lease, now: float) -> float:
    """Return how long the last task of a lease has to wait; 0 where that is about as it should."""
    job, behind = state.jobs[lease.job], len(lease.open) - 1
    if lease.working_since is None or lease.holder is None or behind < 1:
        return 0.0
    if job.verify is not None:  # whoever has such a task is one of those who are asked
        return 0.0
    wait_s = behind * _task_s(job, lease, now)
    slots = state.fleet.slots_of(lease.class_token)
    usual_s = max(LEASE_WORK_S, slots * LEASE_COST_S)
    return wait_s if wait_s > max(LONGER * usual_s, 2 * lease.prepared_s) else 0.0


def _task_s(job: Job, lease: Lease, now: float) -> float:
    """Return what a task of a lease seems to take: as is measured, or as the one in work has."""
    assert lease.working_since is not None, "asked of leases that are in work"
    took_s = now - lease.working_since
    return max(took_s if took_s >= LATE_MIN_S else 0.0, job.mean_s or 0.0)


def _give_some(state: State, now: float, lease: Lease, idle: Sequence[Lender]) -> bool:
    """Lease some of the last tasks of a lease that nobody else has; tells whether there are any."""
    job = state.jobs[lease.job]
    slots = state.fleet.slots_of(lease.class_token)
    count = min(
        lease_size(_task_s(job, lease, now), len(lease.open) - 1, slots),
        job.may_share,
        state.room_beside_gangs(job.key.submitter),
        bounds.CHUNK_RESULTS_MAX,
    )
    tasks = RangeSet.of(_last(job, lease, count))
    if not tasks:
        return False
    assert lease.holder is not None, "asked of leases that are held"
    step = Step(lease.step.attempt + 1, lease.step.failures, (owner_of(lease.holder),))
    return give(state, now, lease, tasks, step, idle)


def _last(job: Job, lease: Lease, count: int) -> Iterator[int]:
    """Return up to so many tasks from the end of a lease that nobody else has, but the first."""
    tasks = (
        task
        for first, length in reversed(lease.open.pairs())
        for task in reversed(range(first, first + length))
        if task != lease.open.first and task not in job.shared
    )
    return islice(tasks, count)
