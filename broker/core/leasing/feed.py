"""Which job's tasks go into the work queues next, and how many in one lease."""

from itertools import islice
from math import inf, sqrt
from types import MappingProxyType
from typing import Any

import msgpack

from broker.core.containers.ranges import RangeSet
from broker.core.copies import sharing
from broker.core.effects import FeedWork
from broker.core.events import Headers
from broker.core.jobs.job import Job, Step
from broker.core.jobs.lifecycle import verified
from broker.core.leasing import locality, untaken
from broker.core.leasing.leases import Lease
from broker.core.matching.choice import choose, first_with_room
from broker.core.matching.groups import Group, Turns
from broker.core.matching.lender import Lender
from broker.core.state import Due, State
from lender.protocol import bounds
from lender.protocol.lease import barred_mark

LEASE_WORK_S = 1.0
"""A lease of an array is about this much work."""

LEASE_COST_S = 200e-6
"""What a lease costs those that all leases pass through, the broker and the server, about."""

_TASK_S_MIN = 1e-6

LEASE_TASKS_MAX = 20_000
"""A second of the shortest tasks: a wasm task takes some 50 µs at least."""

_RANGES_MAX = 1_000
"""In one lease: tasks that come back one by one are no ranges."""

ASIDE_MAX = 64
"""Jobs that are passed over at a time, since only lenders that had their tasks have room."""

LOOK_ON_S = 0.01
"""Between two looks at groups that were not looked at when room came, since there are many."""

LOOKS_ON = 8
"""Groups in one of these looks, of one submitter, of all in turn: they take 1 % of the time."""

CLAIM_LOOKS_MAX = 64
"""Needs of leases that are counted nowhere, of those looked at in one go."""

FAILURES_HEADER = "Lender-Failures"
"""Of a lease's message: how often the work of its tasks has failed before (absent: never)."""

COPY_HEADER = "Lender-Copy-Of"
"""Of a lease's message: the lease that has the same tasks in work."""

_LOOK_ON = Due("look", ())
_PACKER = msgpack.Packer()


def feed(state: State, now: float) -> None:
    """Fill the queues as deep as there is room.

    What waits in a queue without being counted to a lender takes room before anything new. Where
    lenders have got room, whoever's turn it is gets it. What has just come is looked at by
    itself: whatever else waits has found no room before, and there is no more of it now.
    """
    stirred, state.stirred = state.stirred, {}
    fresh = state.fleet.take_fresh()
    turns = state.backlog.turns
    if stirred or fresh:
        state.shares.resize(state.fleet.lends)
        _claim_waiting(state)
        fresh = [one for one in fresh if not turns.classes.isdisjoint(one.classes)]
        if fresh:
            _serve(state, now, turns, fresh)
        groups = [one for one in stirred.values() if one is not None and one.first is not None]
        if groups:
            stirred_turns = Turns(state.shares)
            for group in groups:
                stirred_turns.add(group)
            _serve(state, now, stirred_turns, None)
    if turns.owed and _LOOK_ON not in state.due:
        state.due.set(_LOOK_ON, now + LOOK_ON_S)


def look_on(state: State) -> None:
    """Have some more groups looked at of those that were left out, since there were so many."""
    turns = state.backlog.turns
    for submitter in list(islice(turns.owed, 1)):
        for group in turns.take_owed(submitter, LOOKS_ON):
            state.stirred[group.need] = group


def lease_size(mean_s: float, remaining: int, slots: int) -> int:
    """Return how many tasks make one lease (guided self-scheduling).

    About `LEASE_WORK_S` of work, and more where so many slots would ask for more leases than can
    be made; but less towards the end, so that all slots end together. Source: Polychronopoulos
    and Kuck, IEEE Transactions on Computers C-36 (1987), with the factor 2 of Hummel, Schonberg
    and Flynn's factoring (CACM 35, 1992). Yet not so little that making the leases would take
    longer than the work: to make those of W seconds takes `W / w * LEASE_COST_S`, and the last
    one ends w seconds later, which together is least at `w = sqrt(W * LEASE_COST_S)`.

    Args:
        mean_s: time of a task, as measured or foretold.
        remaining: tasks that wait, of this job and of others like it.
        slots: usable slots of the class.
    """
    task_s = max(mean_s, _TASK_S_MIN)
    by_time = min(LEASE_TASKS_MAX, max(LEASE_WORK_S, slots * LEASE_COST_S) / task_s)
    by_share = remaining / (2 * max(1, slots))
    by_cost = sqrt(remaining * LEASE_COST_S / task_s)
    return max(1, int(min(by_time, max(by_share, by_cost))))


def _claim_waiting(state: State) -> None:
    for need in state.leases.unclaimed_needs(CLAIM_LOOKS_MAX):
        while (lease := state.leases.unclaimed(need)) is not None:
            group = state.backlog.group_of(state.jobs[lease.job])
            lender = first_with_room(state.fleet, group, 0)
            if lender is None or sharing.is_barred(state, lease, lender.id):
                break
            state.claim(lease, lender.id)


def _serve(state: State, now: float, turns: Turns, fresh: list[Lender] | None) -> None:
    """Lease tasks in turn, until nobody who waits finds room, or has been looked at enough.

    Args:
        state: of the broker.
        now: seconds since the epoch.
        turns: who waits; all are in it again at the end that have tasks left.
        fresh: if these have no room any more, nobody has who was not known to have it.
    """
    aside: list[tuple[Group, Job]] = []
    while (turn := _first(state, turns)) is not None:
        group, tasks_max = turn
        if fresh is not None and _are_full(fresh):
            break
        job = group.first
        assert job is not None, "a group without jobs is dropped"
        step, lender, avoided_until = _match(state, now, group, job)
        if lender is not None:
            _hand_out(state, now, turns, group, job, step, lender, tasks_max)
        elif avoided_until is not None and (avoided_until < inf or len(aside) < ASIDE_MAX):
            # Others of the group may use the room.
            _wait_aside(state, job, avoided_until)
            aside.append((group, group.put_aside()))
        else:
            turns.block(group)
            continue
        if group.first is None:
            turns.drop(group)
            state.backlog.turns.drop(group)
    for submitter in turns.end_go():
        if fresh is None or fresh:
            state.backlog.turns.owe(submitter)
    for group, job in aside:
        group.add(job)
        state.backlog.turns.add(group)


def _are_full(lenders: list[Lender]) -> bool:
    """Drop those that have no room from the end of a list; tells whether none is left."""
    while lenders and not lenders[-1].has_room:
        lenders.pop()
    return not lenders


def _first(state: State, turns: Turns) -> tuple[Group, int] | None:
    """Return whose turn it is, and how many tasks more its submitter may have out."""
    while (group := turns.first()) is not None:
        tasks_max = state.room_beside_gangs(group.submitter)
        if tasks_max:
            return group, tasks_max
        state.quotas.pass_over(group.submitter)
        turns.pass_over(group.submitter)
    return None


def _hand_out(
    state: State,
    now: float,
    turns: Turns,
    group: Group,
    job: Job,
    step: Step,
    lender: Lender,
    tasks_max: int,
) -> None:
    """Lease tasks of the group's first job; one that was forged ends instead."""
    if job.verified or verified(state, now, job):
        count = min(tasks_max, _count(state, group, job, step))
        need = job.need
        particular = job.inputs or need.sealed_to or need.devices
        near = locality.nearest(job, lender) if particular else None
        tasks = job.take(step, count, _RANGES_MAX)
        queue(state, now, job, step, tasks, lender.id, near=near)
        if not job.pending:
            group.settle()
        turns.served(group)


def lease_tasks(state: State, now: float, job: Job, count: int, claim: str | None) -> None:
    """Put up to `count` of a job's tasks into the queue as one lease, counted to `claim`."""
    step = max(job.pending)
    queue(state, now, job, step, job.take(step, count, _RANGES_MAX), claim)


def _wait_aside(state: State, job: Job, until: float) -> None:
    if until < inf:
        job.aside_until = until
        state.wait_for(job)


def _match(
    state: State, now: float, group: Group, job: Job
) -> tuple[Step, Lender | None, float | None]:
    """Return which tasks of a job come next, and where they may go: see `choose`."""
    steps = job.steps()
    aside_until = None if steps else inf
    for step in steps:
        lender, until = choose(state.fleet, group, job, now, step.barred)
        if lender is not None:
            return step, lender, None
        if until is None:
            break  # nobody has room, whoever is barred
        aside_until = min(until, inf if aside_until is None else aside_until)
    return max(job.pending), None, aside_until


def queue(
    state: State,
    now: float,
    job: Job,
    step: Step,
    tasks: RangeSet,
    claim: str | None,
    *,
    near: str | None = None,
    headers: Headers = MappingProxyType({}),
) -> Lease:
    """Make a lease, put it into a queue, and count it to `claim`.

    That is the queue of their class, or the own one of the lender that is `near` to their inputs.
    """
    lease = Lease(  # by position: names would take as long again
        state.new_lease_id(),
        job.key,
        job.need,
        step,
        tasks.pairs(),
        len(tasks),
        tasks,
        now,
        claim,
        near,
    )
    if step.barred:
        lease.not_for = tuple(barred_mark(lease.id, one) for one in step.barred)
    state.add_lease(job, lease)
    state.figures.leases += 1
    state.figures.tasks_leased += lease.task_count
    if step.failures:
        headers = {**headers, FAILURES_HEADER: str(step.failures)}
    if near is not None:
        headers = {**headers, locality.NEAR_HEADER: near}
    if lease.is_for_some:
        untaken.await_taking(state, lease, now)
    state.outbox.emit(FeedWork(lease.queue, lease.id, _payload(job, lease), headers))
    return lease


def _count(state: State, group: Group, job: Job, step: Step) -> int:
    task_s = group.foretold_s(job) if job.mean_s is None else job.mean_s
    if task_s is None:
        return 1
    # Jobs that wait beside it are taken for as large: they end together, not each by itself.
    remaining = job.pending_count * group.jobs_waiting
    count = lease_size(task_s, remaining, state.fleet.slots_of(job.class_token))
    if not step.barred:
        count = min(count, job.may_begin)
    return count if job.checkpoints is None else min(count, bounds.CHUNK_RESULTS_MAX)


def _payload(job: Job, lease: Lease) -> bytes:
    """Return a `lender.protocol.lease.Lease`: what stands in it was checked when the job came."""
    submitter, name = job.key
    message = {
        "v": 1,
        "lease": lease.id,
        "job": name,
        "submitter": submitter,
        "attempt": lease.step.attempt,
        "ranges": lease.ranges,
        "spec": job.payload,
        "content_type": job.content_type,
        "signature": job.signature,
    }
    if job.checkpoints is not None:
        message["checkpoints"] = _checkpoints(job, lease)
    if lease.not_for:
        message["not_for"] = lease.not_for
    packed: bytes = _PACKER.pack(message)
    return packed


def _checkpoints(job: Job, lease: Lease) -> list[tuple[int, dict[str, Any]]]:
    assert job.checkpoints is not None
    open_ones = job.checkpoints.of(lease.open)
    return [(task, blob.model_dump(exclude_none=True)) for task, blob in open_ones]
