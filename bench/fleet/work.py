"""Who wants what: submitters of different kinds, what their jobs ask for, and when they come."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from statistics import NormalDist
from typing import NamedTuple

from bench.fleet.owners import DAY_S, HOUR_S
from lender.protocol.bounds import ARRAY_COUNT_MAX
from lender.protocol.classes import WorkClass
from lender.protocol.codec import MSGPACK, encode
from lender.protocol.job import Arch, Array, JobSpec, Limits, Requires
from lender.protocol.signature import Signer, seed_from_entropy

GIB = 1 << 30

_QUEUE_S = 6.5 * DAY_S
_SPREADS = 1024


class Kind(NamedTuple):
    """A submitter: what its jobs are like, and how many come when."""

    name: str
    weight: float
    granted: float
    """By how many of the owners."""
    part: float
    """Of all tasks; 0 for those that make up the rest."""
    job_tasks: int
    """In one job, which is an array if it has several; fewer where there are fewer in all."""
    task_s: float
    """The median of what a task takes on a machine of speed 1."""
    spread: float
    """Of a task's time: the standard deviation of its logarithm."""
    cores: int
    memory_gib: float
    hours: tuple[float, ...]
    """Of each day, when its jobs come: all at once, or evenly over the day if there are none."""
    checkpoint: bool = False
    fails: float = 0.0
    """How many of the tasks fail when they are run first."""


KINDS = (
    Kind("sweeps", 1.0, 0.3, 0.0, 1_000_000, 0.05, 0.3, 1, 0.25, (1, 7, 13, 19)),
    Kind("renders", 1.0, 0.7, 0.02, 2_000, 1 * HOUR_S, 0.6, 2, 4.0, (9, 11, 14, 17), fails=0.002),
    Kind("batches", 3.0, 0.7, 0.02, 3_000, 2700.0, 0.8, 1, 1.0, (8, 20)),
    Kind("long jobs", 1.0, 0.6, 0.0005, 1, 5 * HOUR_S, 0.5, 4, 8.0, ()),
    Kind("with checkpoints", 1.0, 0.6, 0.0005, 1, 5 * HOUR_S, 0.5, 4, 8.0, (), checkpoint=True),
    Kind("bursts", 1.0, 0.8, 0.004, 1, 120.0, 0.5, 1, 0.5, (10, 13, 15, 16)),
    Kind("small change", 1.0, 0.8, 0.0005, 1, 10.0, 0.5, 1, 0.25, ()),
)


class Submitter:
    """One of them, with its key."""

    def __init__(self, kind: Kind, number: int) -> None:
        self.kind = kind
        self.signer = Signer(seed_from_entropy((1_000_000 + number).to_bytes(32, "big")))
        self.key = self.signer.public_key
        self.workload = f"work-{number}"
        # What is small runs on any machine; what is large wants a real one.
        self.arch: Arch = "x86_64" if kind.memory_gib > 1.0 else "any"
        self.class_token = WorkClass(
            "default", "process", self.arch, "none", self.key, self.workload
        ).token
        normal = NormalDist()
        self._spread = [
            math.exp(kind.spread * normal.inv_cdf((step + 0.5) / _SPREADS))
            for step in range(_SPREADS)
        ]
        self._mean_s = kind.task_s * sum(self._spread) / _SPREADS

    def work_s(self, salt: int, first: int, tasks: int) -> float:
        """Return what some tasks in a row take on a machine of speed 1."""
        if tasks == 1 or self.kind.task_s > 1.0:
            # The same for each attempt: a multiplicative hash (Knuth, TAOCP 3, 6.4) of the task.
            return self.kind.task_s * sum(
                self._spread[(salt + task * 2_654_435_761 & 0xFFFFFFFF) >> 22]
                for task in range(first, first + tasks)
            )
        return self._mean_s * tasks

    def fails(self, salt: int, task: int) -> bool:
        """Tell whether a task fails when it is run first."""
        return (salt + task * 40_503 & 0xFFFF) < self.kind.fails * 0x10000


@dataclass(slots=True)
class Job:
    """A job on its way."""

    submitter: Submitter
    id: str
    tasks: int
    submitted_s: float
    salt: int

    def spec(self, epoch: float) -> JobSpec:
        """Return its specification; `epoch` is when the simulation began."""
        kind = self.submitter.kind
        created_at = epoch + self.submitted_s
        return JobSpec(
            v=1,
            id=self.id,
            submitter=self.submitter.key,
            workload=self.submitter.workload,
            runtime="process",
            argv=("work", "{task}"),
            array=Array(count=self.tasks) if kind.job_tasks > 1 else None,
            limits=Limits(cpu=kind.cores, memory_bytes=int(kind.memory_gib * GIB)),
            requires=Requires(arch=self.submitter.arch),
            retries=3,
            checkpoint=kind.checkpoint,
            # Who submits hours of work says so.
            expected_s=kind.task_s if kind.task_s >= HOUR_S else None,
            created_at=created_at,
            not_after=created_at + _QUEUE_S,
        )

    def submission(self, epoch: float) -> tuple[str, dict[str, str], bytes]:
        """Return subject, headers and payload, signed."""
        payload = encode(self.spec(epoch))
        headers = {
            "Content-Type": MSGPACK,
            "Lender-Signature": self.submitter.signer.sign(payload),
        }
        return f"submit.{self.submitter.key}.{self.id}", headers, payload


def jobs(submitters: list[Submitter], tasks: int, days: float, rng: Random) -> list[Job]:
    """Return the jobs of all, in the order in which they come: `tasks` tasks in all."""
    parts = {one: round(one.kind.part * tasks) for one in submitters}
    rest = [one for one in submitters if not one.kind.part]
    left = tasks - sum(parts.values())
    for number, one in enumerate(rest):
        parts[one] = left // len(rest) + (number < left % len(rest))
    found = [job for one in submitters for job in _jobs_of(one, parts[one], days, rng)]
    return sorted(found, key=lambda job: (job.submitted_s, job.id))


def _jobs_of(one: Submitter, tasks: int, days: float, rng: Random) -> Iterator[Job]:
    kind = one.kind
    times = [
        day * DAY_S + hour * HOUR_S
        for day in range(math.ceil(days))
        for hour in kind.hours
        if day * DAY_S + hour * HOUR_S < days * DAY_S
    ]
    size = min(kind.job_tasks, ARRAY_COUNT_MAX)
    if kind.job_tasks > 1 and times:
        size = min(size, max(1, tasks // len(times)))
    sizes = [size] * (tasks // size) + ([tasks % size] if tasks % size else [])
    for number, count in enumerate(sizes):
        if times:
            # Bursts come within a minute.
            at_s = times[number * len(times) // len(sizes)] + 60.0 * rng.random()
        else:
            at_s = days * DAY_S * rng.random()
        yield Job(one, f"job-{number:08d}", count, at_s, rng.getrandbits(32))
