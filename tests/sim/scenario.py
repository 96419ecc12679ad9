"""A seed becomes what will happen: machines, jobs, faults and verbs, each with its time."""

import random
from typing import NamedTuple

from sim.crowds import (
    POOLS,
    Allowance,
    crowd,
    in_pool,
    misjudged,
    pooled,
    sparse,
    thinned,
    together,
)
from sim.faults import FAULTS, FaultPlan
from sim.owners import VerbPlan
from sim.plugging import Gaps, asking, equipped, gaps
from sim.submitter import JobPlan

from broker.core.intake.quotas import DEFAULT, Quota
from lender.protocol.job import PREPARE_S, Verify

WORKLOADS = ("render", "command")
SUBMITTERS = 2

VERIFIED = (
    Verify(),
    Verify(replicas=3, quorum=2),
    Verify(replicas=3, quorum=3),
    Verify(spot_check=True),
)
VERIFIED_SHARE = 0.4
"""Of the seeds have such jobs, and machines enough for them."""

CALM_AT_S = 30.0
"""Faults and verbs begin before."""


class LenderPlan(NamedTuple):
    """A machine; `grants` are pairs of submitter and workload that its owner begins with."""

    slots: int
    gpu: bool
    grants: tuple[tuple[int, str], ...]
    expires_s: float = 1e6
    lies: bool = False
    pools: tuple[str, ...] = ("default",)
    unplugged: Gaps | None = None
    """When its accelerator is gone; None: it has none."""


class Scenario(NamedTuple):
    """All that is chosen before the beginning."""

    seed: int
    lenders: tuple[LenderPlan, ...]
    jobs: tuple[JobPlan, ...]
    faults: tuple[FaultPlan, ...] = ()
    verbs: tuple[VerbPlan, ...] = ()
    standby: bool = False
    calm_at_s: float = CALM_AT_S
    pools: tuple[str, ...] | None = None
    """That the broker serves; None for all of them."""
    allowances: tuple[Allowance, ...] = ()
    usual: Quota = DEFAULT
    """What each submitter may have of whom the operator says nothing."""

    @property
    def weight(self) -> int:
        """How much there is to read in it."""
        return sum(map(len, (self.lenders, self.jobs, self.faults, self.verbs)))


def scenario(seed: int, lenders: int | None = None) -> Scenario:
    """Return the scenario of a seed; `lenders` overrules how many machines there are."""
    rng = random.Random(f"scenario/{seed}")
    count = lenders or rng.randint(1, 5)
    jobs = rng.randint(1, 8) if lenders is None else max(8, lenders // 10)
    faults = rng.randint(0, 8) if lenders is None else max(8, lenders // 25)
    verbs = rng.randint(0, 8) if lenders is None else max(6, lenders // 25)
    # The first machine has whatever any job may ask for, so that each can end.
    everything = tuple((one, workload) for one in range(SUBMITTERS) for workload in WORKLOADS)
    first = LenderPlan(rng.randint(2, 4), gpu=True, grants=everything)
    others = tuple(_lender(rng, everything) for _ in range(count - 1))
    verified = _verified(seed) if random.Random(f"votes/{seed}").random() < VERIFIED_SHARE else ()
    plan = Scenario(
        seed,
        (first, *others, *(_answering(everything) if verified else ())),
        (
            *_bound(
                random.Random(f"bounds/{seed}"),
                [_job(rng, seed, number) for number in range(jobs)],
            ),
            *_gangs(seed),
            *verified,
        ),
        tuple(sorted(_fault(rng, count) for _ in range(faults))),
        tuple(sorted(_verb(rng, count) for _ in range(verbs))),
        standby=rng.random() < 0.4,
    )
    jobs_too = tuple(misjudged(seed, thinned(seed, sparse(seed, one))) for one in plan.jobs)
    plan = plan._replace(jobs=together(seed, jobs_too))
    return _equipped(_pooled(_crowded(plan) if lenders is None else plan))


def hurried(plan: Scenario, share: float) -> Scenario:
    """Return the same in a shorter time: `share` of each."""
    return plan._replace(
        jobs=tuple(one._replace(at=one.at * share, task_s=one.task_s * share) for one in plan.jobs),
        faults=tuple(
            one._replace(at=one.at * share, for_s=one.for_s * share) for one in plan.faults
        ),
        verbs=tuple(one._replace(at=one.at * share) for one in plan.verbs),
        calm_at_s=plan.calm_at_s * share,
    )


def _crowded(plan: Scenario) -> Scenario:
    """Have many jobs come at once, and quotas, in some seeds."""
    found = crowd(plan.seed, SUBMITTERS, WORKLOADS, plan.calm_at_s)
    if found is None:
        return plan
    return plan._replace(
        jobs=(*plan.jobs, *found.jobs),
        faults=tuple(sorted((*plan.faults, *found.faults))),
        allowances=found.allowances,
        usual=found.usual,
    )


def _pooled(plan: Scenario) -> Scenario:
    """Have pools, in some seeds; the first machine serves each."""
    rng = pooled(plan.seed)
    if rng is None:
        return plan
    # Where answers have to agree, the first and the last machines see to that.
    last = len(plan.lenders) - (3 if any(one.verify for one in plan.jobs) else 0)
    choices = (POOLS, POOLS[:1], POOLS[1:])
    return plan._replace(
        lenders=tuple(
            one._replace(pools=rng.choice(choices) if 0 < number < last else POOLS)
            for number, one in enumerate(plan.lenders)
        ),
        jobs=tuple(in_pool(rng, one) if one.verify is None else one for one in plan.jobs),
        pools=POOLS,
    )


def _equipped(plan: Scenario) -> Scenario:
    """Have accelerators, in some seeds."""
    rng = equipped(plan.seed)
    if rng is None:
        return plan
    lenders = enumerate(plan.lenders)
    return plan._replace(
        lenders=tuple(one._replace(unplugged=gaps(rng, n, plan.calm_at_s)) for n, one in lenders),
        jobs=tuple(asking(rng, one) for one in plan.jobs),
    )


def _lender(rng: random.Random, grants: tuple[tuple[int, str], ...]) -> LenderPlan:
    return LenderPlan(
        slots=rng.randint(1, 4),
        gpu=rng.random() < 0.3,
        grants=tuple(one for one in grants if rng.random() < 0.7),
        expires_s=rng.choice((1e6, 1e6, rng.uniform(5.0, CALM_AT_S))),
    )


def _job(rng: random.Random, seed: int, number: int) -> JobPlan:
    # What came later has a chance of its own: the other plans of a seed stay what they were.
    later = random.Random(f"later/{seed}/{number}")
    workload = rng.choice(WORKLOADS)
    count = rng.choice((None, None, rng.randint(1, 10), rng.randint(10, 60)))
    task_s = rng.choice((0.0, 0.01, 0.05, 0.3, 2.0))
    if count is None:
        task_s = rng.choice((0.01, 0.5, 4.0, 12.0))
    return JobPlan(
        id=f"job-{number:05d}",
        submitter=rng.randrange(SUBMITTERS),
        at=rng.uniform(0.0, 0.8 * CALM_AT_S),
        count=count,
        task_s=task_s,
        fails_permille=rng.choice((0, 0, 30, 300)),
        retries=rng.choice((0, 1, 3)),
        workload=workload,
        cpu=rng.choice((1, 1, 1, 2)),
        gpu=rng.random() < 0.15,
        checkpoint=rng.random() < 0.3,
        broken=rng.random() < 0.04,
        life_s=rng.choice((86_400.0, 86_400.0, 86_400.0, rng.uniform(1.0, 40.0))),
        cancel_after_s=rng.choice((None, None, None, rng.uniform(0.0, 15.0))),
        slow_permille=later.choice((0, 0, 30, 200)),
    )


def _answering(grants: tuple[tuple[int, str], ...]) -> tuple[LenderPlan, ...]:
    """Machines beside the first, so that three of them are honest; the last one is not."""
    honest = LenderPlan(slots=2, gpu=False, grants=grants)
    return honest, honest, honest._replace(lies=True)


def _verified(seed: int) -> tuple[JobPlan, ...]:
    """Return jobs whose answers have to agree."""
    rng = random.Random(f"verified/{seed}")
    return tuple(
        JobPlan(
            id=f"votes-{number:05d}",
            submitter=rng.randrange(SUBMITTERS),
            at=rng.uniform(0.0, 0.8 * CALM_AT_S),
            count=rng.choice((None, 3, 40)),
            task_s=rng.choice((0.01, 0.05, 0.5)),
            workload=rng.choice(WORKLOADS),
            slow_permille=rng.choice((0, 30)),
            cancel_after_s=rng.choice((None, None, None, rng.uniform(0.0, 15.0))),
            verify=rng.choice(VERIFIED),
        )
        for number in range(rng.randint(1, 3))
    )


def _bound(rng: random.Random, jobs: list[JobPlan]) -> tuple[JobPlan, ...]:
    """Let some wait for others, now and then in a circle or for one that never comes."""
    bound = []
    for number, job in enumerate(jobs):
        near = jobs[:number] if rng.random() < 0.8 else jobs[:number] + jobs[number + 1 :]
        theirs = [one.id for one in near if one.submitter == job.submitter]
        chosen = rng.sample(theirs, min(len(theirs), rng.choice((0, 0, 1, 2))))
        life_s = job.life_s
        if rng.random() < 0.05:
            chosen.append("job-never")
            life_s = rng.uniform(1.0, 40.0)
        bound.append(
            job._replace(
                life_s=life_s,
                after=tuple((one, rng.choice(("success", "end"))) for one in chosen),
                queue_s=rng.choice((None, None, None, rng.uniform(1.0, 40.0))),
                prepare_s=rng.choice((PREPARE_S, PREPARE_S, PREPARE_S, 0.3)),
            )
        )
    return tuple(bound)


def _gangs(seed: int) -> list[JobPlan]:
    """Return jobs of two tasks that run at once, or none: the first machine has room for both."""
    rng = random.Random(f"gangs/{seed}")
    return [
        JobPlan(
            id=f"gang-{number:04d}",
            submitter=rng.randrange(SUBMITTERS),
            at=rng.uniform(0.0, 0.6 * CALM_AT_S),
            count=2,
            task_s=rng.choice((0.05, 2.0, 8.0)),
            fails_permille=rng.choice((0, 0, 300)),
            retries=rng.choice((0, 1, 3)),
            workload=rng.choice(WORKLOADS),
            checkpoint=rng.random() < 0.3,
            gang=True,
        )
        for number in range(rng.choice((0, 0, 1, 2)))
    ]


_RANGES = {
    "messages are lost and doubled": ((2.0, 12.0), (0.01, 0.2)),
    "messages are late": ((2.0, 12.0), (0.1, 2.0)),
    "the broker's clock jumps": ((0.0, 0.0), (-500.0, 500.0)),
    "a lender's clock jumps": ((0.0, 0.0), (-500.0, 500.0)),
    "lenderd stands still": ((0.2, 8.0), (0.0, 0.0)),
    "the broker stands still": ((0.2, 12.0), (0.0, 0.0)),
    "the server crashes": ((0.1, 4.0), (0.0, 0.0)),
    "a laptop sleeps": ((0.5, 40.0), (0.0, 1.0)),
    "a machine is needed": ((0.5, 20.0), (0.0, 1.0)),
}
_VERBS = ("pause", "pause", "resume", "revoke", "revoke", "revoke", "grant", "finish", "restart")
_USUAL = ((0.2, 20.0), (0.0, 0.0))
_WHETHER = ("a laptop sleeps", "a machine is needed")
"""Here an amount is a yes or a no."""


def _fault(rng: random.Random, lenders: int) -> FaultPlan:
    kind = rng.choice(tuple(FAULTS))
    lasts, amounts = _RANGES.get(kind, _USUAL)
    amount = rng.uniform(*amounts)
    return FaultPlan(
        at=rng.uniform(0.0, CALM_AT_S),
        kind=kind,
        target=rng.randrange(lenders),
        for_s=rng.uniform(*lasts),
        amount=float(round(amount)) if kind in _WHETHER else amount,
    )


def _verb(rng: random.Random, lenders: int) -> VerbPlan:
    verb = rng.choice(_VERBS)
    args: tuple[object, ...] = ()
    match verb:
        case "pause":
            args = (rng.choice((None, rng.uniform(0.1, 20.0))),)
        case "finish" | "restart":
            args = (rng.uniform(0.0, 12.0),)
        case "revoke":
            args = (rng.choice((-1, 0, 1, 2, 3)),)
        case "grant":
            for_s = rng.choice((1e6, rng.uniform(0.5, 20.0)))
            args = (rng.randrange(SUBMITTERS), rng.choice(WORKLOADS), for_s)
    return VerbPlan(rng.uniform(0.0, CALM_AT_S), rng.randrange(lenders), verb, args)
