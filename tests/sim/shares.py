"""What each submitter may have, and its turn: held against what a broker takes up and hands out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sim.serving import Service
from sim.submitter import Job
from sim.world import ViolationError

from broker.core import effects
from broker.core.effects import Effect
from broker.core.events import Event, JobSubmitted
from broker.core.intake.quotas import UNDECIDED_MAX, Quota
from broker.core.jobs.job import Job as LiveJob
from broker.core.jobs.job import JobKey
from broker.core.state import State
from lender.protocol.codec import decode
from lender.protocol.result import Terminal
from lender.protocol.subjects import parse_job_subject

if TYPE_CHECKING:
    from sim.simulation import Simulation

KEPT = "quotas are kept"
TRUE = "a refusal has its reason"
TURN = "each lane has its turn"

PASSED_MAX = 2
"""Messages of any other lane that may be taken up before the first of this one; all cost the same.

One lane may be level with it, and the one that was served last may have been counted before that.
"""

_REFUSED_FOR = ("quota", "requires.pool", "not_after", "after")
"""For what anything may be refused here: the rest of each specification is sound."""


class Had:
    """What a submitter has in a broker."""

    def __init__(self, jobs: Sequence[LiveJob]) -> None:
        self.jobs = len(jobs)
        self.tasks = sum(job.total for job in jobs)
        self.bytes = sum(len(job.payload) for job in jobs)

    def within(self, quota: Quota) -> bool:
        """Tell whether that is no more than it may have."""
        return (
            self.jobs <= quota.jobs_max
            and self.tasks <= quota.tasks_max
            and self.bytes <= quota.bytes_max
        )

    def __repr__(self) -> str:
        return f"{self.jobs} jobs, {self.tasks} tasks, {self.bytes} bytes"


class Shares:
    """Of one service of a broker."""

    def __init__(self, sim: "Simulation") -> None:
        self._sim = sim
        self._before: Had | None = None
        """What the submitter of the event under way has had."""
        self._waiting: Counter[str] = Counter()
        self._passed: dict[str, Counter[str]] = {}
        """Of each lane: who was served while its present first waited."""

    # what is taken up and handed out

    def heard(self, service: Service, event: Event) -> None:
        """Look at what a submitter has before its next job."""
        self._before = None
        if isinstance(event, JobSubmitted):
            key, state = _named(event), service.core.state
            if key not in state.jobs:
                self._before = Had(_of(state, key.submitter))

    def decided(self, service: Service, event: Event, decided: Sequence[Effect]) -> None:
        """Hold what became of the job against that, and what is handed out against the quota."""
        state = service.core.state
        if isinstance(event, JobSubmitted) and self._before is not None:
            self._submitted(state, event, decided, self._before)
        fed = [one.lease.submitter for one in decided if isinstance(one, effects.FeedWork)]
        for submitter in dict.fromkeys(fed):
            most = state.quotas.of(submitter).running_tasks_max
            leases = (state.leases[one] for job in _of(state, submitter) for one in job.leases)
            running = sum(lease.task_count for lease in leases)
            if most is not None and running > most:
                raise ViolationError(KEPT, f"{running} tasks are handed out, of {most}")

    def _submitted(
        self, state: State, event: JobSubmitted, decided: Sequence[Effect], before: Had
    ) -> None:
        key = _named(event)
        job, quota, after = self._sim.jobs[key], state.quotas.of(key[0]), Had(_of(state, key[0]))
        refused = [end for end in _ends(key, decided) if end.state == "rejected"]
        if not refused:
            if key in state.jobs and not after.within(quota):
                raise ViolationError(KEPT, f"{key[1]}: {after} of {quota}")
            if key in state.jobs and not self._sim.serves(job.plan.pool):
                raise ViolationError(TRUE, f"{key[1]} is taken, of pool {job.plan.pool}")
            return
        self._sim.world.stats[f"rejected {refused[0].field}"] += 1
        if refused[0].field == "quota" and not _too_much(before, job, quota):
            raise ViolationError(TRUE, f"{key[1]}: {before} of {quota}")

    # lanes

    def waits(self, lane: str) -> None:
        """Something waits at the end of a lane."""
        self._waiting[lane] += 1
        self._passed.setdefault(lane, Counter())

    def served(self, lane: str) -> None:
        """What came first in a lane is taken up."""
        for other, passed in self._passed.items():
            passed[lane] += 1
            if other != lane and passed[lane] > PASSED_MAX:
                raise ViolationError(TURN, f"{lane[:8]} goes before {other[:8]} once more")
        self._waiting[lane] -= 1
        if self._waiting[lane]:
            self._passed[lane] = Counter()
        else:
            del self._passed[lane]


def check_refusal(job: Job, end: Terminal, *, served: bool) -> None:
    """Hold why a job was refused against what it asks for.

    Raises:
        ViolationError: no reason is given, or an untrue one.
    """
    text = f"{job.plan.id}: {end.field}, {end.reason}"
    allowed = (*_REFUSED_FOR, "program") if job.plan.broken else _REFUSED_FOR
    if not end.reason or end.field not in allowed:
        raise ViolationError(TRUE, text)
    if end.field == "requires.pool" and served:
        raise ViolationError(TRUE, text)


def check_nothing_kept(service: Service, submitters: Iterable[str]) -> None:
    """Nothing counts any more when all jobs have ended.

    Raises:
        ViolationError: a submitter may have less than before it had anything.
    """
    quotas = service.core.state.quotas
    for submitter in submitters:
        quota = quotas.of(submitter)
        room = quotas.room(submitter)
        refused = quotas.full(submitter) or quotas.refuses(
            submitter, quota.tasks_max, quota.bytes_max, UNDECIDED_MAX, at_once=1
        )
        if refused or room < (quota.running_tasks_max or 0):
            raise ViolationError(KEPT, f"at the end: {refused}, room for {room}")


def _too_much(before: Had, job: Job, quota: Quota) -> bool:
    return (
        before.jobs >= quota.jobs_max
        or before.tasks + job.total > quota.tasks_max
        or before.bytes + len(job.record.payload) > quota.bytes_max
    )


def _of(state: State, submitter: str) -> list[LiveJob]:
    return list(state.jobs.newest(submitter))


def _named(event: JobSubmitted) -> JobKey:
    named = parse_job_subject(event.subject)
    return JobKey(named.submitter, named.job)


def _ends(key: JobKey, decided: Sequence[Effect]) -> list[Terminal]:
    """Return the last words that are committed of a job."""
    subject = ".".join(("res", *key))
    commits = (one for one in decided if isinstance(one, effects.Commit))
    return [
        decode(Terminal, record.payload)
        for commit in commits
        for record in commit.records
        if record.subject == subject
    ]
