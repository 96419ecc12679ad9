"""Tasks that wait behind longer ones than their lease was made for: idle machines begin them.

A lease is as large as its tasks are expected to be short, by what was measured, foretold or usual.
Where that was wrong, the others of the lease would run one after another while machines lie idle.
None of them has begun, so to lease them once more doubles no work yet: who has them goes on from
the front, the others take them from the end, and a lease of which nothing is left is cancelled.
What came back from there, or waits behind a long one there too, is leased once more again.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice

from broker.core.containers.ranges import RangeSet
from broker.core.copies import sharing
from broker.core.copies.giving import (
    COPIES_PER_LOOK,
    LATE_MIN_S,
    MEASURED_MIN,
    give,
    next_step,
)
from broker.core.jobs.job import Job
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
    stuck = {lease.id for _, lease in late}
    gives_left = COPIES_PER_LOOK
    for _, lease in late:
        while gives_left and _give_some(state, now, lease, stuck, idle):
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


def _give_some(
    state: State, now: float, lease: Lease, stuck: AbstractSet[str], idle: Sequence[Lender]
) -> bool:
    """Lease some of the last tasks of a lease that wait everywhere; tells whether there are any."""
    job = state.jobs[lease.job]
    last = next(_from_the_end(state, job, lease, stuck), None)
    if last is None:
        return False
    # Where the one in front is all that is known to be long the others are as has been measured.
    is_usual = job.mean_s is not None and job.samples >= MEASURED_MIN
    task_s = job.mean_s if is_usual else None
    slots = state.fleet.slots_of(lease.class_token)
    count = min(
        lease_size(task_s or _task_s(job, lease, now), len(lease.open) - 1, slots),
        job.may_share,
        state.room_beside_gangs(job.key.submitter),
        bounds.CHUNK_RESULTS_MAX,
    )
    step = next_step(state, job, lease, last)
    alike = (
        task
        for task in _from_the_end(state, job, lease, stuck)
        if next_step(state, job, lease, task) == step
    )
    tasks = RangeSet.of(islice(alike, count))
    return bool(tasks) and give(state, now, lease, tasks, step, idle)


def _from_the_end(state: State, job: Job, lease: Lease, stuck: AbstractSet[str]) -> Iterator[int]:
    """Yield the tasks of a lease that wait, in it and wherever else they are: others are late."""
    for first, length in reversed(lease.open.pairs()):
        for task in reversed(range(first, first + length)):
            if task != lease.open.first and _waits(state, job, task, stuck):
                yield task


def _waits(state: State, job: Job, task: int, stuck: AbstractSet[str]) -> bool:
    shared = job.shared.get(task)
    return shared is None or (
        shared.leases.keys() <= stuck
        and sharing.may_ask(state, shared)
        and not sharing.is_in_work(state, shared, task)
    )
