"""What the broker tells a monitoring system: the metrics, and where their values come from."""

import asyncio
import time
from collections import Counter
from typing import get_args

from broker.core.figures import Figures
from broker.core.jobs.job import Job
from broker.core.state import State
from broker.service.committer import Committer
from lender.protocol.lease import LenderPhase, Outcome
from lender.protocol.result import TerminalState
from lender.service.metrics import OTHER, Metric, Registry

_WAITS_S = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0)
_SHORT_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_FIELDS = (
    *("id", "submitter", "signature", "quota", "payload", "not_after", "created_at", "after"),
    *("requires", "class", "workload", "runtime", "argv", "inputs", "array", "sealing", "proof"),
)
"""The first parts of fields that a rejection may name, as docs/protocol.md has them."""

LEADING = Metric("lender_broker_leading", "gauge", "1 on the broker that leads, 0 on a stand-by.")
JOBS = Metric(
    *("lender_broker_jobs", "gauge", "Live jobs: queued until a lender holds a lease of theirs."),
    *("state", ("queued", "running")),
)
TASKS_PENDING = Metric(
    "lender_broker_tasks_pending", "gauge", "Tasks of live jobs that are in no lease and may be."
)
OLDEST_WAIT = Metric(
    "lender_broker_oldest_wait_seconds", "gauge", "Since the oldest queued job was submitted."
)
LEASES = Metric(
    *("lender_broker_leases", "gauge", "Leases out: in a work queue, or held by a lender."),
    *("state", ("waiting", "held")),
)
LENDERS = Metric(
    *("lender_broker_lenders", "gauge", "Lenders heard of lately, by the phase that they tell."),
    *("phase", get_args(LenderPhase)),
)
CORES = Metric("lender_broker_lent_cores", "gauge", "Cores that lenders lend now, busy or not.")
SUBMISSIONS = Metric(
    "lender_broker_submissions", "counter", "Submissions taken up or rejected; repeated ones once."
)
JOBS_ENDED = Metric(
    *("lender_broker_jobs_ended", "counter", "Jobs that have ended, by how."),
    *("state", get_args(TerminalState)),
)
REJECTED = Metric(
    *("lender_broker_jobs_rejected", "counter", "Rejected jobs, by the field that was at fault."),
    *("field", (*_FIELDS, OTHER)),
)
TASKS_ENDED = Metric(
    *("lender_broker_tasks_ended", "counter", "Tasks with a result, by its state."),
    *("state", ("succeeded", "failed", "cancelled")),
)
PLACED = Metric("lender_broker_leases_placed", "counter", "Leases put into a work queue.")
TASKS_PLACED = Metric("lender_broker_tasks_placed", "counter", "Tasks of these leases: attempts.")
HANDED_BACK = Metric(
    "lender_broker_leases_handed_back",
    "counter",
    "Leases that lenders gave back with tasks left, by the outcome that they report.",
    *("outcome", get_args(Outcome)),
)
LOST = Metric(
    "lender_broker_attempts_lost", "counter", "Attempts lost with a lender that fell silent."
)
COMMITTED = Metric("lender_broker_records_stored", "counter", "Records stored in RESULTS.")
COMMITS_WAITING = Metric(
    "lender_broker_commits_waiting", "gauge", "Commits that are decided and not yet sent."
)
SEQUENCE = Metric(
    "lender_broker_results_sequence", "gauge", "Last sequence of RESULTS that is known here."
)
REPLAY = Metric(
    "lender_broker_takeover_seconds", "gauge", "What the last start as leader took; 0 before it."
)
LEASE_WAIT = Metric(
    *("lender_broker_lease_wait_seconds", "histogram", "From placing a lease to its taking."),
    bounds=_WAITS_S,
)
JOB_WAIT = Metric(
    *("lender_broker_job_wait_seconds", "histogram", "From submission to the first lender."),
    bounds=_WAITS_S,
)
COMMIT_TIME = Metric(
    *("lender_broker_commit_seconds", "histogram", "To store a batch of records in RESULTS."),
    bounds=_SHORT_S,
)
LAG = Metric(
    "lender_broker_loop_lag_seconds",
    *("histogram", "How late a timer of the event loop is, tried once a second."),
    bounds=_SHORT_S,
)

METRICS = (
    *(LEADING, JOBS, TASKS_PENDING, OLDEST_WAIT, LEASES, LENDERS, CORES, SUBMISSIONS, JOBS_ENDED),
    *(REJECTED, TASKS_ENDED, PLACED, TASKS_PLACED, HANDED_BACK, LOST, COMMITTED, COMMITS_WAITING),
    *(SEQUENCE, REPLAY, LEASE_WAIT, JOB_WAIT, COMMIT_TIME, LAG),
)

LOOK_S = 2.0
"""Jobs and lenders are gone through at most as often, however often somebody asks."""
_SLICE = 1_000
_LAG_S = 1.0


class BrokerMetrics:
    """The broker's metrics; one for the process, through all its terms as leader."""

    def __init__(self) -> None:
        self.registry = Registry(METRICS)
        self.figures = Figures(
            lease_waited=lambda seconds: self.registry.observe(LEASE_WAIT, seconds),
            job_waited=lambda seconds: self.registry.observe(JOB_WAIT, seconds),
        )
        self._state: State | None = None
        self._committer: Committer | None = None
        self._looked_at: float | None = None

    def watch(self, state: State) -> None:
        """Show what stands in this memory from now on: that of a broker that stands by."""
        self._state, self._committer, self._looked_at = state, None, None
        self.registry.set(LEADING, 0)

    def leads(self, committer: Committer, took_s: float) -> None:
        """Note that the broker leads, what stores for it, and how long it took to know all."""
        self._committer = committer
        self.registry.set(LEADING, 1)
        self.registry.set(REPLAY, took_s)

    def stored(self, records: int, took_s: float) -> None:
        """Note a batch of RESULTS."""
        self.registry.add(COMMITTED, records)
        self.registry.observe(COMMIT_TIME, took_s)

    async def page(self) -> str:
        """Return all of it as text; gives way to the loop, where there are many jobs."""
        await self._look()
        self._count()
        return self.registry.render()

    async def measure_lag(self) -> None:
        """Try for ever how late the loop comes."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_S
            await asyncio.sleep(_LAG_S)
            self.registry.observe(LAG, loop.time() - due)

    def _count(self) -> None:
        registry, figures = self.registry, self.figures
        for metric, number in (
            (SUBMISSIONS, figures.submissions),
            (PLACED, figures.leases),
            (TASKS_PLACED, figures.tasks_leased),
            (LOST, figures.attempts_lost),
        ):
            registry.set(metric, number)
        if self._committer is not None:
            registry.set(COMMITS_WAITING, self._committer.waiting)
            registry.set(SEQUENCE, self._committer.last_sequence)
        for metric, numbers in (
            (JOBS_ENDED, figures.jobs_ended),
            (TASKS_ENDED, figures.tasks_ended),
            (HANDED_BACK, figures.leases_handed_back),
            (REJECTED, _known(figures.jobs_rejected)),
        ):
            for label, number in numbers.items():
                registry.set(metric, number, label)

    async def _look(self) -> None:
        now, state = time.monotonic(), self._state
        if state is None or (self._looked_at is not None and now < self._looked_at + LOOK_S):
            return
        self._looked_at = now
        registry = self.registry
        waiting = sum(one.holder is None for one in state.leases)
        registry.set(LEASES, waiting, "waiting")
        registry.set(LEASES, len(state.leases) - waiting, "held")
        phases = Counter[str](one.offer.phase for one in state.fleet)
        for phase in LENDERS.values:
            registry.set(LENDERS, phases[phase], phase)
        registry.set(CORES, state.fleet.lends.cores)
        await self._look_at_jobs(list(state.jobs))

    async def _look_at_jobs(self, jobs: list[Job]) -> None:
        """Sum up all jobs, some at a time: others want the loop."""
        queued = pending = 0
        oldest: float | None = None
        for first in range(0, len(jobs), _SLICE):
            for job in jobs[first : first + _SLICE]:
                pending += job.pending_count
                if job.state == "queued":
                    queued += 1
                    oldest = job.submitted_at if oldest is None else min(oldest, job.submitted_at)
            await asyncio.sleep(0)
        registry = self.registry
        registry.set(JOBS, queued, "queued")
        registry.set(JOBS, len(jobs) - queued, "running")
        registry.set(TASKS_PENDING, pending)
        wait_s = 0.0 if oldest is None else time.time() - oldest
        registry.set(OLDEST_WAIT, max(0.0, wait_s))


def _known(rejected: Counter[str]) -> Counter[str]:
    """Return the figures by fields that are declared, and of all others together."""
    known: Counter[str] = Counter()
    for field, number in rejected.items():
        known[field if field in REJECTED.values else OTHER] += number
    return known
