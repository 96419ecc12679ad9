"""One run: the fleet, its submitters, the days."""

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

from sim.world import World

from bench.fleet import owners, work
from bench.fleet.exchange import Exchange
from bench.fleet.lender import Lender
from bench.fleet.measures import BIN_S, Measures
from bench.fleet.owners import DAY_S
from bench.fleet.work import Job, Submitter
from broker.core.copies import stragglers
from lender.protocol.classes import WorkClass
from lender.protocol.signature import Signer, seed_from_entropy

LOOKS_APART = 10
"""The broker's looks for late tasks are so many times as far apart as usual, where there are many
leases: they may take 1 % of all time, which for days of it is longer than all else takes here."""

_GARBAGE = 50_000
"""Objects more than there were, until the youngest are looked through."""


class Settings(NamedTuple):
    """What is simulated."""

    lenders: int = 10_000
    tasks: int = 10_000_000
    days: float = 3.0
    seed: int = 1


class Progress(NamedTuple):
    """How far it is."""

    now_s: float
    end_s: float
    tasks_done: int
    leases: int
    """Made so far."""
    leases_out: int


class Outcome(NamedTuple):
    """What came of it."""

    settings: Settings
    ended_s: float
    """When it was stopped, or the end."""
    submitters: list[Submitter]
    measures: Measures
    jobs: int
    tasks: dict[str, int]
    """By submitter."""
    processor_s: float
    steps: int
    digest: str
    """Of the ends of all jobs, in their order."""


def run(
    settings: Settings,
    tell: Callable[[Progress], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Simulate.

    Args:
        settings: what.
        tell: takes how far it is, each ten minutes of simulated time.
        stopped: whether to end at once, with what there is.
    """
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
    each_s = LOOKS_APART * stragglers.LOOK_EACH_S
    with _little_garbage(), mock.patch.object(stragglers, "LOOK_EACH_S", each_s):
        _run_days(world, exchange, settings.days * DAY_S, tell, stopped)
    ended_s = world.now
    measures.lent.settle(ended_s)
    measures.busy.settle(ended_s)
    for lender in exchange.lenders.values():
        lender.end()
    came = [job for job in jobs if job.submitted_s <= ended_s]
    return Outcome(
        settings,
        ended_s,
        submitters,
        measures,
        len(came),
        _tasks_of(submitters, came),
        time.process_time() - began,
        world.steps,
        world.digest,
    )


def _run_days(
    world: World,
    exchange: Exchange,
    end_s: float,
    tell: Callable[[Progress], None],
    stopped: Callable[[], bool],
) -> None:
    measures = exchange.measures
    for step in range(1, math.ceil(end_s / BIN_S) + 1):
        world.run(min(end_s, step * BIN_S))
        done, out = measures.tasks_done.total(), len(exchange.core.state.leases)
        tell(Progress(world.now, end_s, done, sum(measures.leases), out))
        if stopped():
            return


def _tasks_of(submitters: list[Submitter], jobs: list[Job]) -> dict[str, int]:
    return {one.key: sum(job.tasks for job in jobs if job.submitter is one) for one in submitters}


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Look seldom for garbage among millions of objects, next to none of which is."""
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(_GARBAGE, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


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
