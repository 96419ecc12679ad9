"""Tasks that take far longer than others: one lender more is given each, and who is first wins.

A copy costs nobody who waits anything: it goes where room lies idle, and makes way for whatever
comes. Sources: the backup tasks of MapReduce (Dean and Ghemawat, OSDI 2004); LATE, which copies
what will end last, few at a time (Zaharia and others, OSDI 2008).
"""

from collections.abc import Sequence
from typing import NamedTuple

from broker.core.containers.ranges import RangeSet
from broker.core.copies import behind, sharing
from broker.core.copies.giving import (
    COPIES_PER_LOOK,
    LATE_MIN_S,
    MEASURED_MIN,
    give,
    idle_lenders,
    next_step,
)
from broker.core.jobs.job import Job
from broker.core.leasing.holding import LOOK, LOOK_S, lose
from broker.core.leasing.leases import Lease
from broker.core.matching.groups import Group
from broker.core.matching.lender import Lender
from broker.core.state import State

SPREADS = 3.0
"""So many standard deviations above the mean a task is late."""

PARTS = 10
"""Of a job one task in so many, and at least one, is copied at most."""

LOOK_EACH_S = 500e-6
"""A hundred times what a look at one lease or lender costs, so that looking takes 1 % at most."""


class _Late(NamedTuple):
    gain_s: float
    """What a copy of its task in work is expected to save, beyond what it costs."""
    lease: Lease


def look(state: State, now: float) -> None:
    """Copy what takes too long, the greatest gain first, where room lies idle.

    What waits behind others comes before that: nobody has begun it.
    """
    if not len(state.leases):
        return
    looked_at = len(state.leases) + len(state.fleet)
    state.due.set(LOOK, now + max(LOOK_S, looked_at * LOOK_EACH_S))
    idle = idle_lenders(state)
    if not idle:
        return
    behind.spread(state, now, idle)
    classes = frozenset[str]().union(*(one.classes for one in idle))
    late = [
        _Late(gain_s, lease)
        for lease in state.leases
        if lease.class_token in classes and (gain_s := _gain_s(state, lease, now)) > 0.0
    ]
    late.sort(key=lambda one: (-one.gain_s, one.lease.fed_at, one.lease.id))
    for one in late[:COPIES_PER_LOOK]:
        _copy(state, now, one.lease, idle)


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


def _may_copy(job: Job, lease: Lease) -> bool:
    """Tell whether the task in work may be copied.

    None of a gang, whose tasks need each other, and none that was copied already.
    """
    if job.is_gang or not job.may_share:
        return False
    shared = job.shared.get(lease.open.first)
    return not (shared is not None and shared.copied) and job.copies < max(1, job.total // PARTS)


def _copy(state: State, now: float, lease: Lease, idle: Sequence[Lender]) -> None:
    """Give a lease's task in work to one lender more, if one can begin.

    Nothing goes with it: that would wait behind it there, too.
    """
    job, task = state.jobs[lease.job], lease.open.first
    if not _may_copy(job, lease) or not state.room_beside_gangs(job.key.submitter):
        return  # another lease came first
    shared = job.shared.get(task)
    if shared is not None and not sharing.may_ask(state, shared):
        return  # who got the copy might get it twice
    step = next_step(state, job, lease, task)
    if give(state, now, lease, RangeSet([(task, 1)]), step, idle):
        job.shared[task].copied = True
        job.copies += 1
