"""Accelerators in some seeds: who has one, when it is unplugged, which grants and jobs name it."""

import random

from sim.submitter import DEVICE, JobPlan

ALONE = 1
"""The submitter to whom all owners but the first lend their accelerator."""

_SHARE = 0.4
_ASKS_SHARE = 0.85

Gaps = tuple[tuple[float, float], ...]
"""When it is unplugged, and for how long."""


def equipped(seed: int) -> random.Random | None:
    """Return the chance by which the machines of a seed have accelerators; None in most seeds."""
    rng = random.Random(f"devices/{seed}")
    return rng if rng.random() < _SHARE else None


def gaps(rng: random.Random, number: int, until_s: float) -> Gaps | None:
    """Return when the accelerator of a machine is gone; None: it has none, but the first has."""
    if number and rng.random() < 0.5:
        return None
    times = range(rng.choice((0, 0, 1, 2)))
    return tuple((rng.uniform(0.0, until_s), rng.uniform(0.1, 8.0)) for _ in times)


def asking(rng: random.Random, job: JobPlan) -> JobPlan:
    """Have some jobs ask for one that could each run on the first machine alone."""
    could = job.workload == "command" and not job.gang and job.verify is None
    return job._replace(device=could and rng.random() < _ASKS_SHARE)


def granted(machine: str, submitter: int) -> tuple[str, ...]:
    """Return the devices that a grant to a submitter names."""
    return (DEVICE,) if machine == "m0" or submitter == ALONE else ()
