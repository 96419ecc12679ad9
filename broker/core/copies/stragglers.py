"""Tasks that take far longer than others: one lender more is given each, and who is first wins.

A copy costs nobody who waits anything: it goes where room lies idle, and makes way for whatever
comes. Sources: the backup tasks of MapReduce (Dean and Ghemawat, OSDI 2004); LATE, which copies
what will end last, few at a time (Zaharia and others, OSDI 2008).
"""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from broker.core.containers.ranges import RangeSet
from broker.core.copies import behind, sharing
from broker.core.copies.giving import COPIES_PER_LOOK, LATE_MIN_S, give, idle_lenders
from broker.core.copies.shared import owner_of
from broker.core.jobs.job import Job, Step
from broker.core.leasing.holding import LOOK, LOOK_S, lose
from broker.core.leasing.leases import Lease
from broker.core.matching.groups import Group
from broker.core.matching.lender import Lender
from broker.core.state import State

SPREADS = 3.0
"""So many standard deviations above the mean a task is late."""

MEASURED_MIN = 5
"""From so few measured tasks on their spread means something."""

PARTS = 10
"""Of a job one task in so many, and at least one, is copied at most."""

LOOK_EACH_S = 500e-6
"""A hundred times what a look at one lease or lender costs, so that looking takes 1 % at most."""


class _Late(NamedTuple):
    gain_s: float
    """What a copy of its task in work is expected to save, beyond what it costs."""
    lease: Lease


def look(state: State, now: float) -> None:
    """Copy what takes too long, the greatest gain first, where room lies idle."""
    if not len(state.leases):
        return
    looked_at = len(state.leases) + len(state.fleet)
    state.due.set(LOOK, now + max(LOOK_S, looked_at * LOOK_EACH_S))
    idle = idle_lenders(state)
    if not idle:
        return
    classes = frozenset[str]().union(*(one.classes for one in idle))
    late = [
        _Late(gain_s, lease)
        for lease in state.leases
        if lease.class_token in classes and (gain_s := _gain_s(state, lease, now)) > 0.0
    ]
    late.sort(key=lambda one: (-one.gain_s, one.lease.fed_at, one.lease.id))
    for one in late[:COPIES_PER_LOOK]:
        _copy(state, now, one.lease, idle)
    behind.spread(state, now, idle)


def make_way(state: State) -> None:
    """Take back the copies that nobody is known to hold, where other work waits."""
    copies = [state.leases[lease_id] for lease_id in state.copies]
    for lease in [one for one in copies if _is_waited_for(state, one.class_token)]:
        lose(state, lease)


def _is_waited_for(state: State, class_token: str) -> bool:
    """Tell whether somebody waits for room in a class."""
    return class_token in state.gangs.waiting or class_token in state.backlog.turns.classes


def _gain_s(state: State, lease: Lease, now: float) -> float:
    """Return what a copy of a lease's task in work is expected to gain; 0 for none, or too little.

    A task that has run for long is expected to run as long again: the times of processes have
    such tails (Harchol-Balter and Downey, ACM TOCS 15, 1997). A copy takes what tasks of the job
    usually take, and the preparation that this lease took. What it gains is worth as much again.
    """
    if lease.working_since is None or lease.holder is None or not lease.open:
        return 0.0
    took_s = now - lease.working_since
    if took_s < LATE_MIN_S:
        return 0.0
    job = state.jobs[lease.job]
    usual = _usual(job, state.backlog.group_of(job))
    if usual is None or not _may_copy(job, lease):
        return 0.0
    mean_s, spread_s = usual
    costs_s = mean_s + lease.prepared_s
    if took_s < mean_s + SPREADS * spread_s:
        return 0.0
    return max(0.0, took_s - 2 * costs_s)


def _usual(job: Job, group: Group) -> tuple[float, float] | None:
    """Return mean and spread of a task's time; None where nobody knows anything of it.

    What was foretold, or hardly measured, may be wrong by as much as it is.
    """
    if job.mean_s is not None and job.samples >= MEASURED_MIN:
        return job.mean_s, job.spread_s
    if job.mean_s is not None:
        return job.mean_s, max(job.mean_s, job.spread_s)
    if job.expected_s is not None:
        return job.expected_s, job.expected_s
    if group.mean_s is not None:
        return group.mean_s, max(group.mean_s, group.spread_s)
    return None


def _may_copy(job: Job, lease: Lease) -> int:
    """Return how many more tasks of a job may be copied.

    None of a gang, whose tasks need each other, and none where the first was copied already.
    """
    if job.is_gang:
        return 0
    shared = job.shared.get(next(iter(lease.open))[0])
    if shared is not None and shared.copied:
        return 0
    return min(max(1, job.total // PARTS) - job.copies, job.may_share)


def _copy(state: State, now: float, lease: Lease, idle: Sequence[Lender]) -> None:
    """Give a lease's task in work, and those behind it, to one lender more, if one can begin."""
    job = state.jobs[lease.job]
    count = min(_may_copy(job, lease), state.room_beside_gangs(job.key.submitter))
    if not count:
        return  # another lease came first
    first, *others = islice(sharing.indices(lease.open), count)
    if not _is_known(state, job, first):
        return
    attempt, barred = _next(state, job, lease, first)
    tasks = RangeSet([(first, 1)])
    tasks.add_all(
        (one, 1)
        for one in others
        if _is_known(state, job, one) and _next(state, job, lease, one) == (attempt, barred)
    )
    step = Step(attempt, lease.step.failures, barred)
    if give(state, now, lease, tasks, step, idle):
        job.copies += len(tasks)


def _is_known(state: State, job: Job, task: int) -> bool:
    """Tell whether all are known who have a task: else who gets the copy may get it twice."""
    shared = job.shared.get(task)
    return shared is None or sharing.may_ask(state, shared)


def _next(state: State, job: Job, lease: Lease, task: int) -> tuple[int, tuple[str, ...]]:
    """Return the number of a task's next attempt, and who is not to make it."""
    shared = job.shared.get(task)
    if shared is None:
        assert lease.holder is not None, "nobody is late with what nobody holds"
        return lease.step.attempt + 1, (owner_of(lease.holder),)
    return shared.attempt + 1, sharing.owners(state, shared)
