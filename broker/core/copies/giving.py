"""Tasks that a lender has are given to one more that lies idle."""

from collections.abc import Sequence

from broker.core.containers.ranges import RangeSet
from broker.core.copies import sharing
from broker.core.copies.shared import owner_of
from broker.core.jobs.job import Job, Step
from broker.core.leasing.feed import COPY_HEADER, queue
from broker.core.leasing.leases import Lease
from broker.core.matching.lender import Lender
from broker.core.state import State

LATE_MIN_S = 2.0
"""What has taken less is not worth the messages."""

COPIES_PER_LOOK = 20

MEASURED_MIN = 5
"""From so few measured tasks on what is usual of a job, and its spread, mean something."""


def idle_lenders(state: State) -> list[Lender]:
    """Return the lenders with room that nobody waits for, in a queue or for his turn."""
    gangs, queues = state.gangs.waiting.keys(), state.leases.waiting.keys()
    waited_for = gangs | state.backlog.turns.classes | queues
    return [
        lender
        for lender in state.fleet
        if lender.has_room and waited_for.isdisjoint(lender.classes)
    ]


def give(
    state: State, now: float, lease: Lease, tasks: RangeSet, step: Step, idle: Sequence[Lender]
) -> bool:
    """Lease tasks of a lease at `step` to one idle lender more; tells whether one can begin."""
    job = state.jobs[lease.job]
    able = [
        lender
        for lender in idle
        if lender.lies_idle_for(lease.need)
        and owner_of(lender.id) not in step.barred
        and not job.avoids(lender.id, now)
    ]
    if not able:
        return False
    tier = state.backlog.group_of(job).tier_for(job)
    best = max(able, key=lambda one: (one.tier >= tier, len(lease.need.prefers & one.labels)))
    for task in sharing.indices(tasks):
        sharing.share(job, lease, task)
    copy = queue(state, now, job, step, tasks, best.id, headers={COPY_HEADER: lease.id})
    state.copies[copy.id] = None
    return True


def next_step(state: State, job: Job, lease: Lease, task: int) -> Step:
    """Return what one lender more would have a task at, and who is not to be that."""
    failures, shared = lease.step.failures, job.shared.get(task)
    if shared is None:
        assert lease.holder is not None, "nobody is late with what nobody holds"
        return Step(lease.step.attempt + 1, failures, (owner_of(lease.holder),))
    return Step(shared.attempt + 1, failures, sharing.owners(state, shared))
