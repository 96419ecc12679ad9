"""What some seeds ask beside the rest: more than a submitter may have, few indices, other pools."""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sim.faults import FaultPlan
from sim.submitter import JobPlan

from broker.core.containers.ranges import RangeSet
from broker.core.intake.quotas import Quota
from lender.protocol.ids import task_name
from lender.protocol.job import AfterOn, TaskRange

POOLS = ("default", "farm")
"""Of a broker that is told which ones it serves."""

NOT_SERVED = "attic"

_CROWDED_SHARE = 0.25
_POOLED_SHARE = 0.25
_SPARSE_SHARE = 0.3
_RETRIED_SHARE = 0.3
_THINNED_SHARE = 0.35
_TOGETHER_SHARE = 0.5
_MISJUDGED_SHARE = 0.4
_LONG_S = 0.3
_SPREAD = 100


class Allowance(NamedTuple):
    """What the operator's file says of submitters from some time on."""

    at: float
    quotas: tuple[Quota, ...]
    """Of each submitter."""


class Crowd(NamedTuple):
    """Many jobs at once, and the quotas that meet them."""

    usual: Quota
    """What a start takes in however little a submitter may have."""
    allowances: tuple[Allowance, ...]
    jobs: tuple[JobPlan, ...]
    faults: tuple[FaultPlan, ...]


def crowd(seed: int, submitters: int, workloads: Sequence[str], calm_at_s: float) -> Crowd | None:
    """Return what comes in a crowd; None in most seeds."""
    rng = random.Random(f"crowd/{seed}")
    if rng.random() >= _CROWDED_SHARE:
        return None
    at = rng.uniform(1.0, 0.6 * calm_at_s)
    who = rng.randrange(submitters)
    jobs = [
        JobPlan(
            id=f"crowd-{number:04d}",
            # The other one comes amid all that.
            submitter=who if number % 8 else (who + 1) % submitters,
            at=at + rng.uniform(0.0, 0.1),
            count=rng.choice((None, None, None, 5)),
            task_s=rng.choice((0.01, 0.3, 1.0)),
            workload=rng.choice(workloads),
            cancel_after_s=rng.choice((None, None, None, None, rng.uniform(0.0, 3.0))),
        )
        for number in range(rng.choice((20, 40)))
    ]
    # Whatever the broker has not looked at when it ends, it finds in the ledger when it starts.
    ends = rng.choice((None, at, at + 0.05, at + 0.2))
    faults = () if ends is None else (FaultPlan(at=ends, kind="the broker crashes"),)
    changes = sorted(rng.uniform(0.0, calm_at_s) for _ in range(rng.choice((0, 0, 1, 2))))
    return Crowd(
        usual=Quota(jobs_max=rng.choice((3, 8, 1000))),
        allowances=tuple(
            Allowance(when, tuple(_quota(rng) for _ in range(submitters)))
            for when in (0.0, *changes)
        ),
        jobs=tuple(jobs),
        faults=faults,
    )


def pooled(seed: int) -> random.Random | None:
    """Return the chance by which machines and jobs of a seed go to pools; None in most seeds."""
    rng = random.Random(f"pools/{seed}")
    return rng if rng.random() < _POOLED_SHARE else None


def in_pool(rng: random.Random, job: JobPlan) -> JobPlan:
    """Ask for one of the pools, now and then for one that is not served."""
    pool = rng.choice((*POOLS, *POOLS, *POOLS, NOT_SERVED))
    # What the ledger has accepted goes on after a start: it is not refused any more then.
    life_s = rng.uniform(1.0, 40.0) if pool == NOT_SERVED else job.life_s
    return job._replace(pool=pool, life_s=life_s)


def sparse(seed: int, job: JobPlan) -> JobPlan:
    """Name only some indices of some arrays; let what fails of some jobs be tried once more."""
    rng = random.Random(f"sparse/{seed}/{job.id}")
    retried = rng.random() < _RETRIED_SHARE
    if job.count is None or job.gang or rng.random() >= _SPARSE_SHARE:
        return job._replace(retried=retried)
    count = job.count + rng.randrange(_SPREAD)
    tasks = RangeSet.of(rng.sample(range(count), job.count)).pairs()
    every: tuple[tuple[TaskRange, ...], ...] = (((0, count),), ())
    return job._replace(count=count, tasks=() if tasks in every else tasks, retried=retried)


def together(seed: int, jobs: Sequence[JobPlan]) -> tuple[JobPlan, ...]:
    """Let the tasks of some arrays be jobs, and those that follow such an array follow one task."""
    rng = random.Random(f"together/{seed}")
    separate = {
        one.id: one
        for one in jobs
        if one.count and not one.gang and not one.checkpoint and rng.random() < _TOGETHER_SHARE
    }

    def of(name: str) -> str:
        array = separate.get(name)
        return name if array is None else task_name(name, rng.choice([*_indices(array)]))

    def after(job: JobPlan) -> tuple[tuple[str, AfterOn], ...]:
        theirs = [one.id for one in separate.values() if one.submitter == job.submitter]
        if not job.after and job.id not in separate and theirs and rng.random() < _TOGETHER_SHARE:
            return ((of(rng.choice(theirs)), rng.choice(("success", "end"))),)
        return tuple((of(name), on) for name, on in job.after)

    return tuple(one._replace(separate=one.id in separate, after=after(one)) for one in jobs)


def _indices(job: JobPlan) -> Iterator[int]:
    for first, count in job.tasks or ((0, job.count or 1),):
        yield from range(first, first + count)


def misjudged(seed: int, job: JobPlan) -> JobPlan:
    """Have some submitters expect little of tasks that take long.

    Not where answers have to agree: a start may take up fewer of the large leases than have a task,
    and tells who is left over that what it does not need is committed.
    """
    rng = random.Random(f"misjudged/{seed}/{job.id}")
    long = job.count is not None and job.task_s >= _LONG_S and job.verify is None
    if not long or rng.random() >= _MISJUDGED_SHARE:
        return job
    return job._replace(expected_s=1e-5)


def thinned(seed: int, job: JobPlan) -> JobPlan:
    """Cancel some tasks of some arrays, now and then all of them, or one that is not there."""
    rng = random.Random(f"thinned/{seed}/{job.id}")
    if job.count is None or rng.random() >= _THINNED_SHARE:
        return job
    tasks = rng.sample(range(job.count + 1), rng.choice((1, 2, 5, job.count)) % (job.count + 1))
    at_s = rng.uniform(-0.5, 6.0)
    cancels = [(max(0.0, at_s + rng.choice((0.0, rng.uniform(0.0, 3.0)))), one) for one in tasks]
    return job._replace(tasks_cancelled=tuple(cancels))


def _quota(rng: random.Random) -> Quota:
    usual = Quota()
    return Quota(
        jobs_max=rng.choice((1, 4, 12, usual.jobs_max)),
        tasks_max=rng.choice((10, 60, usual.tasks_max)),
        running_tasks_max=rng.choice((None, 3, 6)),
        bytes_max=rng.choice((2_000, usual.bytes_max, usual.bytes_max)),
    )
