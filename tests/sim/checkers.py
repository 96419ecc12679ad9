"""What must hold, held against every step as it happens. Each promise is one method or class.

The checkers know the world itself (what is stored, which processes run, what owners were told) and
what the cores decide; they decide nothing, and nobody sees them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

from broker_world import check_places, is_note
from sim import order
from sim.jetstream import Record
from sim.lender_shell import LenderShell
from sim.lender_shell import Watch as LenderWatch
from sim.machine import Machine, Sandbox
from sim.owners import Owner
from sim.serving import Service
from sim.serving import Watch as BrokerWatch
from sim.shares import Shares, check_nothing_kept, check_refusal
from sim.submitter import Job
from sim.world import ViolationError

from broker.core import effects as broker_effects
from broker.core.containers.ranges import RangeSet
from broker.core.copies.shared import owner_of
from broker.core.copies.stragglers import PARTS
from broker.core.copies.votes import digest_of
from broker.core.durable.records import RetriesSummary, VotesSummary
from broker.core.effects import Effect as BrokerEffect
from broker.core.events import DoneReported
from broker.core.events import Event as BrokerEvent
from broker.core.jobs.job import Job as LiveJob
from broker.core.jobs.job import JobKey
from broker.core.leasing.feed import COPY_HEADER, FAILURES_HEADER
from broker.core.state import State
from lender.core import effects
from lender.core.effects import Effect
from lender.core.events import Event
from lender.core.jobs_done import TAKEN, TOO_OFTEN
from lender.protocol import subjects
from lender.protocol.codec import decode
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import Done, DoneReply, Lease
from lender.protocol.result import Chunk, TaskResult, Terminal
from lender.protocol.streams import RESULTS, WORK

if TYPE_CHECKING:
    from sim.simulation import Simulation

PLACES_EVERY = 40
"""Events of a broker between two looks at where all its tasks are."""

CLOCK_GRACE_S = 6.0
"""After a clock was set: a reading, which tells of it, comes every 5 s."""

OUTSTANDING_PER_SLOT = 2

CORES_MAX = 2
"""That a task of a job here asks for."""

_AT_ONCE_S = 0.01
_TENTH_S = 0.1
"""As exactly as lenderd follows a clock that was set back."""


class Ledger:
    """Exactly one committed result per accepted task: what RESULTS says, as it is stored."""

    def __init__(self, jobs: dict[tuple[str, str], Job], serves: Callable[[str], bool]) -> None:
        self._jobs = jobs
        self._serves = serves
        self.subjects: dict[str, None] = {}
        self.results: dict[tuple[str, str], dict[int, str]] = {}
        self.terminals: dict[tuple[str, str], Terminal] = {}
        self.cancelled = 0
        """Tasks, one by one."""
        self.votes: dict[tuple[str, str, int], dict[str, str]] = {}
        self.failures: dict[tuple[str, str, int], int] = {}
        """How often the work of tasks has failed that are tried again, as is noted."""
        """The noted answers of each owner to a task."""

    def stored(self, stream: str, records: Sequence[Record], _last: int) -> None:
        """Take up what a stream has stored."""
        for record in records if stream == RESULTS else ():
            self.subjects[record.subject] = None
            if record.subject.startswith(subjects.TERM_PREFIX):
                continue
            if is_note(record.subject):
                self._noted(record)
                continue
            _, submitter, job, first_task = subjects.parse_job_subject(record.subject)
            if first_task is None:
                self._ended((submitter, job), decode(Terminal, record.payload))
            else:
                chunk = decode(Chunk, record.payload)
                for result in chunk.results:
                    self._settled((submitter, job), result)

    def has(self, key: tuple[str, str], task: int) -> bool:
        """Tell whether a task has its result, or its job its end."""
        return key in self.terminals or task in self.results.get(key, ())

    def how_ended(self, key: tuple[str, str]) -> str | None:
        """Return the state in which a job has ended, or a task that is one."""
        array = None if key in self.terminals else order.array_of(self._jobs, key)
        if array is not None:
            result = self.results.get(array.key, {}).get(int(key[1].rpartition("-")[2]))
            if result is not None:
                return result
            key = array.key
        end = self.terminals.get(key)
        return None if end is None else end.state

    def voted(self, lender: str, key: tuple[str, str], task: int) -> bool:
        """Tell whether an answer of this lender is noted."""
        return owner_of(lender) in self.votes.get((*key, task), {})

    def check_retry(self, job: Job, again: Job) -> None:
        """Hold what is tried again against what has not succeeded.

        Raises:
            ViolationError: it is more or less than that.
        """
        done = self.results.get(job.key, {})
        tasks = (task for first, count in job.indices for task in range(first, first + count))
        gang = job.plan.gang  # whose tasks need each other
        left = RangeSet.of(task for task in tasks if gang or done.get(task) != "succeeded")
        if again.indices != left:
            text = f"{again.indices} of {job.plan.id}, of which {left} have not succeeded"
            raise ViolationError("what failed is tried again", text)

    def _noted(self, record: Record) -> None:
        again = subjects.parse_retries_subject(record.subject)
        if again is not None:
            tried = RetriesSummary.load(record.headers)
            assert tried is not None, record.subject
            for first, count in tried.tasks:
                for task in range(first, first + count):
                    self.failures[again.submitter, again.job, task] = tried.failures
            return
        place = subjects.parse_votes_subject(record.subject)
        if place is None:
            return
        summary = VotesSummary.load(record.headers)
        assert summary is not None, record.subject
        for task, digest in summary.votes:
            votes = self.votes.setdefault((place.submitter, place.job, task), {})
            if summary.owner in votes:
                text = f"{place.job}/{task}: {summary.owner} twice"
                raise ViolationError("different owners answer", text)
            votes[summary.owner] = digest

    def _agreed(self, key: tuple[str, str], result: TaskResult) -> None:
        """What is committed of a job that is verified, others have said too."""
        verify = self._jobs[key].plan.verify
        if verify is None or verify.spot_check:
            return
        votes = self.votes.get((*key, result.task), {})
        others = sum(vote == digest_of(result) for vote in votes.values())
        if others < verify.quorum - 1:
            text = f"{key[1]}/{result.task}: {others} others have said so"
            raise ViolationError("a result has its quorum", text)

    def _settled(self, key: tuple[str, str], result: TaskResult) -> None:
        job, done = self._jobs[key], self.results.setdefault(key, {})
        one = "one result per task"
        if key in self.terminals:
            raise ViolationError(one, f"{job.plan.id}/{result.task}: a result after the end")
        if result.task in done:
            raise ViolationError(one, f"{job.plan.id}/{result.task} has two results")
        if result.task not in job.indices:
            raise ViolationError(one, f"{job.plan.id} has no task {result.task}")
        if result.cancelled:
            self._taken_back(job, result)
            done[result.task] = "failed"
            return
        self._agreed(key, result)
        if result.state == "succeeded" and result.value != job.value(result.task):
            raise ViolationError(one, f"{job.plan.id}/{result.task}: another's value")
        if result.state == "failed" and job.failed_runs[result.task] <= job.plan.retries:
            raise ViolationError(
                "only failures use retries",
                f"{job.plan.id}/{result.task} ran and failed {job.failed_runs[result.task]} times,"
                f" has {job.plan.retries} retries, and is given up",
            )
        done[result.task] = result.state

    def _taken_back(self, job: Job, result: TaskResult) -> None:
        """Only what its submitter took back, and never of a gang, whose tasks need each other."""
        self.cancelled += 1
        asked = any(task == result.task for _, task in job.plan.tasks_cancelled)
        if not asked or job.plan.gang:
            text = f"{job.plan.id}/{result.task}"
            raise ViolationError("who takes a task back has asked for it", text)

    def _ended(self, key: tuple[str, str], end: Terminal) -> None:
        job = self._jobs[key]
        if end.result is not None:
            self._settled(key, end.result)
        done = self.results.get(key, {})
        self.terminals[key] = end
        whole = end.state in ("succeeded", "failed")
        if whole and len(done) != job.total:
            text = f"{job.plan.id} {end.state} with {len(done)} of {job.total} results"
            raise ViolationError("one result per task", text)
        order.check_end_of(job, end, self._jobs, self.how_ended, self.subjects)
        if end.state == "rejected":
            check_refusal(job, end, served=self._serves(job.plan.pool))
        failed = sum(state == "failed" for state in done.values())
        if whole and (end.state == "failed") != (failed > 0):
            text = f"{job.plan.id} {end.state}, {failed} of its tasks failed"
            raise ViolationError("one result per task", text)


class Term(BrokerWatch):
    """What one service of a broker has said, and must stand by."""

    def __init__(self, sim: "Simulation") -> None:
        self._sim = sim
        self.last: dict[tuple[str, str, int], tuple[int, str]] = {}
        """Of each task: its last attempt number and lease."""
        self.lost: dict[str, None] = {}
        """Leases whose tasks were leased anew before their last word."""
        self.finished: dict[str, None] = {}
        self.started: dict[str, None] = {}
        """Leases of gangs whose lenders were told to begin."""
        self.asked: dict[str, tuple[str, Done, bool]] = {}
        """Who reports what, and whether its lease was lost by then."""
        self.copied = Counter[str]()
        """Of each job: how many of its tasks."""
        self.events = 0
        self.newest = True
        """No other service has begun since."""
        self.shares = Shares(sim)

    def heard(self, service: Service, event: BrokerEvent) -> None:
        """Note who reports what, and what a submitter has."""
        self.shares.heard(service, event)
        if isinstance(event, DoneReported):
            try:
                done = decode(Done, event.payload)
            except ProtocolError:
                return
            self.asked[event.reply_to] = event.lender, done, done.lease in self.lost
            lease = service.core.state.leases.get(done.lease)
            held = lease is not None and lease.holder in (None, event.lender)
            if done.final and held and done.lease not in self.lost:
                self.finished[done.lease] = None

    def decided(
        self, service: Service, event: BrokerEvent, decided: Sequence[BrokerEffect]
    ) -> None:
        """Hold each effect against what is known."""
        self.shares.decided(service, event, decided)
        for effect in decided:
            match effect:
                case broker_effects.FeedWork():
                    self._feeds(service, effect)
                case broker_effects.Reply():
                    self._replies(effect)
                case broker_effects.PublishEvent():
                    self._tells(effect)
                case broker_effects.SendControl() if effect.control.kind == "start":
                    self.started.update(dict.fromkeys(effect.control.leases))
                    self._sim.consent.may_begin.update(dict.fromkeys(effect.control.leases))
                case _:
                    pass
        if self.started:
            self._gangs_are_whole(service)
        self.events += 1
        if self.events % PLACES_EVERY == 0:
            self.look(service)

    def look(self, service: Service) -> None:
        """Each task is in exactly one place."""
        world = SimpleNamespace(broker=service.core)
        try:
            check_places(world)
        except AssertionError as error:
            raise ViolationError("every task is in one place", str(error)) from error
        state, waiting = service.core.state, Counter[str]()
        for job in state.jobs:
            leases = [state.leases[lease] for lease in job.leases]
            waiting.update(one.claim for one in leases if one.holder is None and one.claim)
        for lender, count in waiting.items():
            room = OUTSTANDING_PER_SLOT * self._sim.consent.slots[lender]
            if count > room:
                text = f"{count} leases wait for a lender with room for {room}"
                raise ViolationError("queues are no deeper than there is room", text)

    def _gangs_are_whole(self, service: Service) -> None:
        """Where one of a gang may run, a lender holds each of the others that has no result."""
        state = service.core.state
        self.started = {one: None for one in self.started if state.leases.get(one) is not None}
        running = (state.leases[one] for one in self.started)
        for key in dict.fromkeys(one.job for one in running if one.open):
            job = state.jobs[key]
            leases = [state.leases[one] for one in job.leases]
            held = sum(len(one.open) for one in leases if one.holder is not None)
            if held != job.total - job.settled:
                text = f"{key.job}: {held} of {job.total - job.settled} members are held"
                raise ViolationError("a gang runs whole or not at all", text)

    def _feeds(self, service: Service, effect: broker_effects.FeedWork) -> None:
        lease, state = effect.lease, service.core.state
        key = (lease.submitter, lease.job)
        job = self._sim.jobs[key]
        failures = int(effect.headers.get(FAILURES_HEADER, "0"))
        live = state.jobs.get(JobKey(*key))
        copy_of = effect.headers.get(COPY_HEADER)
        if live is not None:
            self._shares(state, live, lease, copy_of)
        order.check_handed_out(job, self._sim.ledger.how_ended)
        if copy_of is not None:
            self._copies(service, lease, copy_of)
        for task in lease.tasks():
            attempt, before = self.last.get((*key, task), (0, ""))
            if attempt >= lease.attempt:
                text = f"{job.plan.id}/{task}: {attempt}, then {lease.attempt}"
                raise ViolationError("attempt numbers grow", text)
            self.last[*key, task] = lease.attempt, lease.lease
            if before and before not in self.finished and state.leases.get(before) is None:
                self.lost[before] = None
            noted = self._sim.ledger.failures.get((*key, task), 0)
            if self.newest and failures < noted:
                text = f"{job.plan.id}/{task}: {failures} counted, {noted} noted"
                raise ViolationError("only failures use retries", text)
            if failures > job.failed_runs[task]:
                text = f"{job.plan.id}/{task}: {failures} counted, {job.failed_runs[task]} ran"
                raise ViolationError("only failures use retries", text)
            if self.newest and self._sim.ledger.has(key, task):
                text = f"{job.plan.id}/{task} is leased and has its result"
                raise ViolationError("no task is leased twice", text)

    def _shares(self, state: State, job: LiveJob, lease: Lease, copy_of: str | None) -> None:
        """Nobody else has a task of a lease, but for those that are not to take it."""
        if lease.lease not in state.leases:
            return  # it was taken back at once
        for other in (state.leases[one] for one in job.leases if one != lease.lease):
            apart = other.holder is not None and lease.is_barred(other.holder)
            if apart and (job.verify is not None or copy_of is not None):
                continue  # what waits behind others may do so in more leases than one
            if other.id != copy_of and other.open.overlap(lease.ranges):
                text = f"{job.key.job}: {other.id} and {lease.lease}"
                raise ViolationError("no task is leased twice", text)
        for task in lease.tasks():
            shared = job.shared.get(task)
            if shared is not None and not all(lease.is_barred(one) for one in shared.votes):
                text = f"{job.key.job}/{task}: {lease.lease} may go to who has answered"
                raise ViolationError("different owners answer", text)

    def _copies(self, service: Service, copy: Lease, copy_of: str) -> None:
        """A copy is of tasks that one other machine has, and costs nobody who waits anything."""
        state, job = service.core.state, self._sim.jobs[copy.submitter, copy.job]
        self._sim.world.stats["copies"] += 1
        if copy.lease not in state.leases:
            return  # it has made way at once
        held, one = state.leases[copy_of], "copies are few, elsewhere, and in nobody's way"
        if held.open.first in copy.tasks():  # else nothing of it has begun
            self.copied[job.plan.id] += 1
            if copy.task_count > 1:
                raise ViolationError(one, f"{copy.lease} has what waits behind {copy_of}")
        if held.holder is None or not copy.is_barred(held.holder):
            raise ViolationError(one, f"{copy.lease} may go to who has {copy_of}")
        if len(held.open.overlap(copy.ranges)) != copy.task_count:
            raise ViolationError(one, f"{copy.lease} has more tasks than {copy_of}")
        if self.copied[job.plan.id] > max(1, job.total // PARTS):
            raise ViolationError(one, f"{job.plan.id}: {self.copied[job.plan.id]} tasks copied")
        if state.leases[copy.lease].class_token in state.backlog.turns.classes:
            raise ViolationError(one, f"{copy.lease}, while others wait")

    def _replies(self, effect: broker_effects.Reply) -> None:
        if not isinstance(effect.message, DoneReply) or effect.reply_to not in self.asked:
            return
        lender, done, lost = self.asked.pop(effect.reply_to)
        if effect.message.verdict == "malformed":
            raise ViolationError("lenders are understood", effect.message.reason)
        if effect.message.verdict != "committed":
            self._sim.world.stats["stale reports"] += 1
            return
        key = (done.submitter, done.job)
        for result in done.results:
            durable = self._sim.ledger.has(key, result.task)
            durable = durable or self._sim.ledger.voted(lender, key, result.task)
            if result.state == "succeeded" and not durable:
                text = f"{done.job}/{result.task} of {done.lease}"
                raise ViolationError("committed means durable", text)
        if lost:
            raise ViolationError("stale reports are refused", f"{done.job}, {done.lease}")

    def _tells(self, effect: broker_effects.PublishEvent) -> None:
        of = effect.headers.get(subjects.SUBJECT_HEADER)
        if of is not None and of not in self._sim.ledger.subjects:
            raise ViolationError("committed means durable", f"{of} is told and not stored")


class Brokers(BrokerWatch):
    """Each term by itself: what one broker does not know of another's can't be its fault."""

    def __init__(self, sim: "Simulation") -> None:
        self._sim = sim
        self._terms: dict[Service, Term] = {}

    def started(self, service: Service) -> None:
        """A service has replayed the streams."""
        self._terms = {one: term for one, term in self._terms.items() if not one.ended}
        for term in self._terms.values():
            term.newest = False
        self._terms[service] = Term(self._sim)

    def heard(self, service: Service, event: BrokerEvent) -> None:
        """An event is about to be handled."""
        self._terms[service].heard(service, event)

    def decided(
        self, service: Service, event: BrokerEvent, decided: Sequence[BrokerEffect]
    ) -> None:
        """It was handled."""
        self._terms[service].decided(service, event, decided)

    def waits(self, service: Service, lane: str) -> None:
        """Something that a submitter asks waits."""
        self._terms[service].shares.waits(lane)

    def served(self, service: Service, lane: str) -> None:
        """It is about to be handled."""
        self._terms[service].shares.served(lane)

    def look(self, service: Service) -> None:
        """Each task is in exactly one place."""
        self._terms[service].look(service)


class Consent(LenderWatch):
    """Nothing runs without a grant, or after a pause or a revoke has returned."""

    def __init__(self, sim: "Simulation") -> None:
        self._sim = sim
        self.opened: Counter[str] = Counter()
        self.receipts: Counter[str] = Counter()
        self.may_begin: dict[str, None] = {}
        """Leases of gangs that some broker has said to be complete."""
        self.slots: dict[str, int] = {}
        """The most that each has offered, with what its leases might need."""

    def handled(self, shell: LenderShell, _event: Event, decided: Sequence[Effect]) -> None:
        """Hold what lenderd decides against what its owner was promised."""
        name, machine = shell.machine.name, shell.machine
        promises = self._sim.owner_of(machine).promises
        closed = machine.wall() < promises.closed_until - _TENTH_S
        closed = closed and not self._clock_was_set(machine)
        self._gangs_begin_together(shell, decided)
        for effect in decided:
            match effect:
                case effects.OpenSandbox():
                    self.opened[effect.lease.lease] += 1
                    self._stays_in_pool(shell, effect)
                    grant = machine.disk.issued.get(effect.grant)
                    if grant is None or grant.submitter != effect.lease.submitter:
                        raise ViolationError("nothing runs without a grant", name)
                    if closed:
                        raise ViolationError("nothing new after a pause", name)
                case effects.WriteReceipt():
                    self.receipts[effect.lease] += 1
                    self._sim.world.stats[f"attempts {effect.outcome}"] += 1
                case effects.SendReport():
                    self._reports(shell, effect)
                case effects.PullWork() if closed:
                    raise ViolationError("nothing new after a pause", f"{name} pulls")
                case effects.SendOffer():
                    slots = effect.offer.slots_free + CORES_MAX * len(effect.offer.leases)
                    self.slots[shell.lender] = max(slots, self.slots.get(shell.lender, 0))
                    if closed and effect.offer.slots_free:
                        raise ViolationError("nothing new after a pause", f"{name} offers")
                case _:
                    pass

    def _stays_in_pool(self, shell: LenderShell, effect: effects.OpenSandbox) -> None:
        job = self._sim.jobs[effect.lease.submitter, effect.lease.job]
        if job.plan.pool not in shell.pools:
            text = f"{shell.name} runs {job.plan.id} of {job.plan.pool}"
            raise ViolationError("work stays in its pool", text)
        if not all(task in job.indices for task in effect.lease.tasks()):
            text = f"{shell.name} has tasks that are none of {job.plan.id}"
            raise ViolationError("nothing runs that was not signed", text)

    def _gangs_begin_together(self, shell: LenderShell, decided: Sequence[Effect]) -> None:
        begun = (one.lease for one in decided if isinstance(one, effects.RunTasks))
        for lease in begun:
            if self._sim.in_gang(shell.machine, lease):
                if lease not in self.may_begin:
                    raise ViolationError("a gang begins together", f"{shell.name}: {lease}")
                self._sim.world.stats["gang members begun"] += 1

    def runs(self, machine: Machine, box: Sandbox) -> None:
        """Processes of a sandbox begin to run, or go on."""
        promises, shell = self._sim.owner_of(machine).promises, machine.shell
        what = f"{machine.name}: {box.lease.lease} under {box.grant}"
        if box.grant in promises.revoked:
            raise ViolationError("nothing runs after a revoke", what)
        if machine.wall() < promises.paused_until and not self._clock_was_set(machine):
            raise ViolationError("nothing runs after a pause", what)
        grant = machine.disk.issued.get(box.grant)
        if grant is not None and not set(box.devices) <= set(grant.devices):
            raise ViolationError("a device is lent by its owner's word", what)
        for one in machine.sandboxes.values():
            if one is not box and not one.dead and not set(one.devices).isdisjoint(box.devices):
                raise ViolationError("a device is one lease's", f"{what} and {one.lease.lease}")
        if bool(box.devices) != box.job.plan.device:
            raise ViolationError("a device is for who asks", what)
        awake = shell.alive and not shell.suspended
        if grant is not None and awake and shell.now() > grant.not_after + _AT_ONCE_S:
            raise ViolationError("nothing runs without a grant", f"{what}, which has expired")

    def returned(self, owner: Owner, verb: str) -> None:
        """A verb has returned: look at every process."""
        machine = owner.shell.machine
        for box in machine.sandboxes.values():
            if box.runs and not box.idle:
                self.runs(machine, box)
        if verb == "revoke":
            for box in [*machine.sandboxes.values(), *machine.lingering]:
                if box.grant in owner.promises.revoked and not (box.dead or box.stuck):
                    raise ViolationError("nothing runs after a revoke", f"{machine.name} lives")

    def _reports(self, shell: LenderShell, effect: effects.SendReport) -> None:
        key = effect.report.submitter, effect.report.job
        # A lease that a broker fed which had been replaced may come when all of it is done.
        if effect.report.reason in (TAKEN, TOO_OFTEN) and not all(
            self._sim.ledger.has(key, task) for task in effect.given.tasks()
        ):
            text = f"{shell.machine.name} refuses {effect.report.job}"
            raise ViolationError("no honest broker is taken for one that replays", text)
        grant = self._sim.grant_of.get(effect.lease)
        revoked = grant in self._sim.owner_of(shell.machine).promises.revoked
        if effect.report.results and revoked:
            text = f"{shell.machine.name}: {effect.lease}"
            raise ViolationError("a revoked attempt gives no results", text)

    def _clock_was_set(self, machine: Machine) -> bool:
        return self._sim.world.now < machine.clock_set_at + CLOCK_GRACE_S


def check_end(sim: "Simulation") -> None:
    """All jobs have ended, and nothing of them is left in anybody's memory.

    Raises:
        ViolationError: some is.
    """
    base = "memory returns to its base"
    for service in sim.services():
        state = service.core.state
        sim.brokers_watch.look(service)
        left = {
            "jobs": sum(1 for _ in state.jobs),
            "leases": len(state.leases),
            "waiting": state.leases.waiting.total(),
            "gangs": len(state.gangs),
            "dues": sum(due.kind != "lender" for due, _ in state.due.items()),
            "commits": not service.committer.idle,
            "feeds": not service.feeder.idle,
            "submissions": not service.intake.idle,
        }
        if any(left.values()):
            raise ViolationError(base, f"{service.name}: {left}")
        check_nothing_kept(service, state.submitters)
    if sim.server.js.streams[WORK].messages:
        raise ViolationError(base, f"WORK: {len(sim.server.js.streams[WORK].messages)} messages")
    for shell in sim.shells:
        status = shell.core.status(shell.now())
        left = {
            "sandboxes": len(shell.machine.sandboxes),
            "reports": not shell.reporter.idle,
            "spooled": len(shell.machine.disk.spool),
            "leases": status.leases_unanswered + len(status.attempts),
            "deliveries": shell.queues.unanswered,
        }
        if any(left.values()):
            raise ViolationError(base, f"{shell.name}: {left}")
    twice = [lease for lease, count in sim.consent.receipts.items() if count > 1]
    if any(sim.consent.opened[lease] < sim.consent.receipts[lease] for lease in twice):
        raise ViolationError("one receipt per attempt", f"{twice}")
