"""One run: the fleet, its submitters, the days."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from sim.world import World

from bench.fleet import owners, work
from bench.fleet.exchange import Exchange
from bench.fleet.lender import Lender
from bench.fleet.measures import Measures
from bench.fleet.owners import DAY_S, HOUR_S
from bench.fleet.work import Submitter
from lender.protocol.classes import WorkClass
from lender.protocol.signature import Signer, seed_from_entropy


class Settings(NamedTuple):
    """What is simulated."""

    lenders: int = 10_000
    tasks: int = 10_000_000
    days: float = 3.0
    seed: int = 1


class Outcome(NamedTuple):
    """What came of it."""

    settings: Settings
    submitters: list[Submitter]
    measures: Measures
    jobs: int
    tasks: dict[str, int]
    """By submitter."""
    processor_s: float
    steps: int
    digest: str
    """Of the ends of all jobs, in their order."""


def run(settings: Settings, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """Simulate; `tell` takes a line for each six hours."""
    began = time.process_time()
    world = World(settings.seed, steps_max=math.inf)
    submitters = [Submitter(kind, number) for number, kind in enumerate(work.KINDS)]
    rng = world.rng("jobs")
    jobs = work.jobs(submitters, settings.tasks, settings.days, rng)
    measures = Measures(settings.days * DAY_S, [one.key for one in submitters])
    by_key = {(job.submitter.key, job.id): job for job in jobs}
    exchange = Exchange(world, submitters, by_key, measures)
    _add_lenders(world, exchange, submitters, settings.lenders)
    for job in jobs:
        world.at(job.submitted_s, world.fate, exchange.submit, job)
    end_s = settings.days * DAY_S
    step_s = min(6 * HOUR_S, end_s)
    for step in range(1, math.ceil(end_s / step_s) + 1):
        world.run(min(end_s, step * step_s))
        tell(
            f"{world.now / HOUR_S:5.1f} h: {measures.tasks_done.total():>10,} tasks done,"
            f" {len(exchange.core.state.leases):>7,} leases out,"
            f" {time.process_time() - began:6.1f} s"
        )
    measures.lent.settle(end_s)
    measures.busy.settle(end_s)
    for lender in exchange.lenders.values():
        lender.end()
    tasks = {one.key: sum(job.tasks for job in jobs if job.submitter is one) for one in submitters}
    processor_s = time.process_time() - began
    return Outcome(
        settings, submitters, measures, len(jobs), tasks, processor_s, world.steps, world.digest
    )


def _add_lenders(
    world: World, exchange: Exchange, submitters: list[Submitter], lenders: int
) -> None:
    rng = world.rng("machines")
    kinds = rng.choices(owners.KINDS, [kind.share for kind in owners.KINDS], k=lenders)
    for number, kind in enumerate(kinds):
        key = Signer(seed_from_entropy(number.to_bytes(32, "big"))).public_key
        lender = Lender(world, key, kind, exchange, world.rng(f"machine {number}"))
        lender.lend_to(
            [
                WorkClass("default", "process", arch, "none", one.key, one.workload).token
                for one in submitters
                if rng.random() < one.kind.granted
                for arch in ("any", kind.arch)
            ]
        )
        exchange.lenders[key] = lender
