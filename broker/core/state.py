"""Everything that the broker knows, in one place; it owns no decision."""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from broker.core.containers.priority_map import PriorityMap
from broker.core.copies.reputation import Reputation
from broker.core.effects import DeleteWork
from broker.core.enrolment.bound import Bound
from broker.core.figures import Figures
from broker.core.gangs.gang import Gangs
from broker.core.intake.quotas import Quota, Quotas
from broker.core.jobs.dependencies import Dependencies
from broker.core.jobs.history import History
from broker.core.jobs.job import Job, JobKey
from broker.core.leasing.leases import Lease, Leases
from broker.core.leasing.stands import Stands
from broker.core.matching.fleet import Fleet
from broker.core.matching.groups import Backlog, Group
from broker.core.matching.need import Need
from broker.core.matching.shares import Shares
from broker.core.outbox import Outbox
from lender.protocol.ids import task_named


class Due(NamedTuple):
    """What waits.

    A job's end of life, of its time in the queue or of its rest; a look at more jobs that waited
    for others; a lender's silence; the grace of a lease that is unlisted, or not taken; a look at
    those that are left to whose pulls wait, for tasks that take too long, or at more groups of
    jobs. Of gangs: the end of the time to gather in, and the next look at those that wait.
    """

    kind: Literal[
        "job",
        "queue",
        "rest",
        "follow",
        "look",
        "lender",
        "lease",
        "left",
        "gather",
        "gangs",
        "copies",
    ]
    name: tuple[str, ...]


class Jobs:
    """The live jobs, found by key and by submitter."""

    def __init__(self) -> None:
        self._by_submitter: dict[str, dict[JobKey, Job]] = {}
        self._orders = 0

    def __contains__(self, key: JobKey) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return sum(map(len, self._by_submitter.values()))

    def __iter__(self) -> Iterator[Job]:
        for jobs in self._by_submitter.values():
            yield from jobs.values()

    def next_order(self) -> int:
        """Return the number of the next submission."""
        self._orders += 1
        return self._orders

    def get(self, key: JobKey) -> Job | None:
        """Return a live job."""
        return self._by_submitter.get(key.submitter, {}).get(key)

    def __getitem__(self, key: JobKey) -> Job:
        return self._by_submitter[key.submitter][key]

    def named_task(self, key: JobKey) -> tuple[Job, int] | None:
        """Return the live array and the index that a name means, if it is no job's own."""
        named = task_named(key.job)
        job = self.get(JobKey(key.submitter, named[0])) if named is not None else None
        return (job, named[1]) if job is not None and named is not None and job.is_array else None

    def add(self, job: Job) -> None:
        """Take up a job."""
        self._by_submitter.setdefault(job.key.submitter, {})[job.key] = job

    def drop(self, job: Job) -> None:
        """Forget a job that has ended."""
        jobs = self._by_submitter[job.key.submitter]
        del jobs[job.key]
        if not jobs:
            del self._by_submitter[job.key.submitter]

    def newest(self, submitter: str) -> Iterator[Job]:
        """Yield the submitter's live jobs, the last submitted first."""
        return reversed(self._by_submitter.get(submitter, {}).values())


class State:
    """The parts of the broker's memory, and the few moves that touch several of them."""

    def __init__(
        self,
        new_lease_id: Callable[[], str],
        submitters: frozenset[str],
        weights: Mapping[str, float],
        pools: frozenset[str] | None,
        chance: Callable[[], float],
        figures: Figures,
    ) -> None:
        self.new_lease_id = new_lease_id
        self.figures = figures
        self.reputation = Reputation(chance)
        self.submitters = submitters
        self.pools = pools
        self.quotas = Quotas({})
        self.jobs = Jobs()
        self.leases = Leases()
        self.fleet = Fleet()
        self.shares = Shares(weights)
        self.backlog = Backlog(self.shares)
        self.gangs = Gangs()
        self.history = History()
        self.dependencies = Dependencies()
        self.outbox = Outbox()
        self.due: PriorityMap[Due] = PriorityMap()
        self.bounds: Mapping[str, Bound] = {}
        """Whom the operator lets lenders work for, of those that have a bound."""
        self.deaf = False
        """Whether lenders can't be heard, for no fault of theirs."""
        self.open_classes: set[str] = set()
        """Classes whose queue is known to exist."""
        self.stands = Stands()
        self.copies: dict[str, None] = {}
        """Leases of tasks that another one has already, while it is not known who holds them."""
        self.stirred: dict[Need, Group | None] = {}
        """What has got something to lease, or to count to a lender, since the last feed."""

    def allow(
        self,
        submitters: frozenset[str],
        weights: Mapping[str, float],
        quotas: Mapping[str, Quota],
    ) -> None:
        """Note who may submit, what each is entitled to, and what each may have at once."""
        self.submitters = submitters
        self.shares.weigh(weights)
        for submitter in self.quotas.change(quotas):
            self.let_back(submitter)

    def enqueue(self, job: Job) -> None:
        """Let the job's pending tasks be fed, and its resting ones when they have rested."""
        if job.is_gang:
            self._enqueue_gang(job)
        elif job.pending:
            group = self.backlog.add(job)
            self.stirred[group.need] = group
        self.wait_for(job)

    def wait_for(self, job: Job) -> None:
        """See to it that a job is looked at again when it is time."""
        wake_at = job.wake_at
        if wake_at is not None:
            self.due.set(Due("rest", job.key), wake_at)

    def stir(self, need: Need) -> None:
        """Note that a lease for such a need is counted nowhere."""
        self.stirred.setdefault(need, None)

    def add_lease(self, job: Job, lease: Lease) -> None:
        """Take up a lease of the job that nobody holds yet."""
        assert job.verified, "nothing is leased whose signature was not checked"
        job.leases[lease.id] = None
        self.leases.add(lease)
        if job.shared:
            job.note_leased(lease.id, lease.step, lease.open)
        self.shares.lease(job.key.submitter, lease.need)
        self.quotas.lease(job.key.submitter, lease.task_count)
        if lease.claim is not None:
            self.fleet.claim(lease.claim, lease.id, lease.need)

    def claim(self, lease: Lease, lender_id: str) -> None:
        """Count a lease to a lender in the fleet, and no longer to another."""
        self._release(lease)
        self.leases.claim(lease, lender_id)
        self.fleet.claim(lender_id, lease.id, lease.need)

    def forget_lease(self, lease: Lease, *, finished_at: float | None) -> None:
        """End a lease; only of a finished one are later reports answered as committed."""
        self._release(lease)
        self.copies.pop(lease.id, None)
        job = self.jobs[lease.job]
        job.leases.pop(lease.id, None)
        if job.is_gang:
            self.gangs.touch(job)
        self.due.drop(Due("lease", (lease.id,)))
        submitter = lease.job.submitter
        self.shares.end(submitter, lease.need, started=lease.holder is not None)
        self.backlog.turns.sink(submitter)
        if self.quotas.release(submitter, lease.task_count):
            self.let_back(submitter)
        if finished_at is not None:
            self.leases.finish(finished_at, lease)
        else:
            self.leases.drop(lease)

    def give_up(self, lease: Lease) -> None:
        """Forget a lease, and have its message deleted: what comes of it is stale."""
        if lease.sequence is not None:
            self.outbox.emit(DeleteWork(lease.sequence))
        self.forget_lease(lease, finished_at=None)

    def forget_job(self, job: Job) -> None:
        """Drop a job that has ended and has no lease any more."""
        self.jobs.drop(job)
        self.quotas.end(job.key.submitter, job.total, len(job.payload), job.undecided_max)
        self.backlog.drop(job)
        self.dependencies.drop(job.key)
        self.dependencies.separate.drop(job.key)
        if job.is_gang:
            self.gangs.drop(job)
            self.due.drop(Due("gather", job.key))
        self.due.drop(Due("job", job.key))
        self.due.drop(Due("queue", job.key))
        self.due.drop(Due("rest", job.key))

    def room_beside_gangs(self, submitter: str) -> int:
        """Return how many tasks more may be handed out that belong to no gang."""
        room, saved = self.quotas.room(submitter), self.gangs.saved
        return max(0, room - saved.get(submitter, 0)) if saved else room

    def let_back(self, submitter: str) -> None:
        """Have the jobs of a submitter looked at again that was passed over in its turn."""
        self.quotas.comes_back(submitter)
        self.backlog.turns.sink(submitter)
        for group in self.backlog.turns.look_again(submitter):
            self.stirred[group.need] = group

    def _enqueue_gang(self, job: Job) -> None:
        # As in Backlog.add: who had nothing waiting saves nothing up.
        submitter, turns = job.key.submitter, self.backlog.turns
        if submitter not in turns and submitter not in self.gangs.submitters:
            self.shares.lift(submitter, above=turns)
        self.gangs.touch(job)

    def _release(self, lease: Lease) -> None:
        if lease.claim is not None and self.fleet.get(lease.claim) is not None:
            self.fleet.release(lease.claim, lease.id)
