"""One run: a scenario from its beginning, through its faults, to the end of all its jobs."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import count
from typing import NamedTuple
from unittest import mock

from core_world import make_config, make_grant
from sim.broker_shell import BrokerShell
from sim.checkers import Brokers, Consent, Ledger, check_end
from sim.crowds import Allowance
from sim.faults import FAULTS, FaultPlan
from sim.lender_shell import LenderShell
from sim.machine import SLOWER, STALL_S, Machine, Sandbox
from sim.owners import Owner
from sim.plugging import granted
from sim.scenario import LenderPlan, Scenario
from sim.server import Server
from sim.serving import Service
from sim.submitter import Job, JobPlan, Submitter
from sim.world import EPOCH, ViolationError, World

from broker.core.events import SubmittersChanged
from broker.core.intake import quotas
from lender.core.consent import Grant
from lender.core.events import Capabilities
from lender.protocol.signature import Signer, seed_from_entropy

LIVENESS_S = 240.0
"""Within so long after the last fault every job has ended, beside what its tasks take."""

QUIET_S = 100.0
"""And within so long after that, nothing is left of it: the ack wait of a lost message is 30 s."""

_LOOK_S = 1.0


class Outcome(NamedTuple):
    """How a run ended."""

    scenario: Scenario
    broken: str
    """The promise that was broken; empty where all held."""
    text: str
    digest: str
    steps: int
    seconds: float
    stats: dict[str, int]
    tail: tuple[str, ...]


@cache
def signer(number: int) -> Signer:
    """Return a key; making one is slow."""
    return Signer(seed_from_entropy(number.to_bytes(32)))


class Simulation:
    """Everything that takes part."""

    def __init__(self, scenario: Scenario, world: World) -> None:
        self.scenario = scenario
        self.world = world
        self.chance = world.rng("chance")
        self.jobs: dict[tuple[str, str], Job] = {}
        self.ledger = Ledger(self.jobs, self.serves)
        self.server = Server(world, self.ledger.stored)
        self.brokers_watch = Brokers(self)
        self.consent = Consent(self)
        self.grant_of: dict[str, str] = {}
        self._lease_ids = count(1)
        self._grant_ids = count(1)
        self._submitter_keys = [signer(1), signer(2)]
        self._allowed = self._allowance(Allowance(0.0, ()))
        self.brokers = [self._broker(name) for name in ("broker", "standby")]
        self.shells: list[LenderShell] = []
        self._owners: dict[str, Owner] = {}
        for number, plan in enumerate(scenario.lenders):
            self._add_lender(number, plan)
        self._submitters = [
            Submitter(world, self.server, f"submitter{number}", self._hint_jobs, self._add_retry)
            for number in range(len(self._submitter_keys))
        ]
        for job_plan in _that_can_end(scenario.jobs):
            job = Job(job_plan, self._submitter_keys[job_plan.submitter])
            self.jobs[job.key] = job
            self._submitters[job_plan.submitter].plan(job)

    def _broker(self, name: str) -> BrokerShell:
        return BrokerShell(
            self.world,
            self.server,
            name,
            self._allowed,
            None if self.scenario.pools is None else frozenset(self.scenario.pools),
            lambda: f"{next(self._lease_ids):022d}",
            self.brokers_watch,
        )

    def _add_lender(self, number: int, plan: LenderPlan) -> None:
        machine = Machine(
            self.world, f"m{number}", self._job_of, self._runs, gpu=plan.gpu, lies=plan.lies
        )
        config = make_config(
            lender=signer(1000 + number).public_key,
            name=machine.name,
            slots=plan.slots,
            pools=plan.pools,
        )
        capabilities = Capabilities(
            arch="x86_64",
            os="linux",
            runtimes=frozenset({"wasm", "process"}),
            gpu="nvidia" if plan.gpu else "none",
        )
        shell = LenderShell(self.world, self.server, machine, config, capabilities, self.consent)
        self.shells.append(shell)
        owner = Owner(self.world, shell, self._new_grant, self.consent.returned)
        self._owners[machine.name] = owner
        if plan.unplugged is not None:
            machine.plug(there=True)
            for at, for_s in plan.unplugged:
                machine.after(at, lambda: machine.plug(there=False))
                machine.after(at + for_s, lambda: machine.plug(there=True))
        for submitter, workload in plan.grants:
            not_after = EPOCH + plan.expires_s
            machine.disk.keep_grant(self._new_grant(machine.name, not_after, submitter, workload))

    def _new_grant(self, machine: str, not_after: float, submitter: int, workload: str) -> Grant:
        id_ = f"G-{machine}-{next(self._grant_ids)}"
        key = self._submitter_keys[submitter]
        devices = granted(machine, submitter)
        return make_grant(id_, key, workload=workload, not_after=not_after, devices=devices)

    def _job_of(self, submitter: str, job: str) -> Job:
        return self.jobs[submitter, job]

    def _runs(self, machine: Machine, box: Sandbox) -> None:
        self.grant_of[box.lease.lease] = box.grant
        self.consent.runs(machine, box)

    def _hint_jobs(self) -> None:
        for service in self.services():
            service.hint_jobs()

    def _add_retry(self, job: Job, again: Job) -> None:
        """A submitter tries again what failed of a job."""
        self.ledger.check_retry(job, again)
        self.world.stats["jobs retried"] += 1
        self.jobs[again.key] = again

    def _allowance(self, plan: Allowance) -> SubmittersChanged:
        keys = [one.public_key for one in self._submitter_keys]
        quotas = dict(zip(keys, plan.quotas, strict=False))
        return SubmittersChanged(frozenset(keys), {}, quotas)

    def _allow(self, plan: Allowance) -> None:
        """The operator changes the file, which all brokers read."""
        self.world.note("operator", f"allows {plan.quotas}")
        allowed = self._allowance(plan)
        for broker in self.brokers:
            broker.allowed = allowed

    # for faults and checkers

    def serves(self, pool: str) -> bool:
        """Tell whether the broker takes jobs of a pool."""
        return self.scenario.pools is None or pool in self.scenario.pools

    def owner_of(self, machine: Machine) -> Owner:
        """Return the owner of a machine."""
        return self._owners[machine.name]

    def in_gang(self, machine: Machine, lease: str) -> bool:
        """Tell whether a lease is of a job whose tasks run at once or not at all."""
        return machine.sandboxes[lease].job.plan.gang

    def services(self) -> list[Service]:
        """Return the services that serve."""
        found = [one.service for one in self.brokers if one.service is not None]
        return [one for one in found if one.serving]

    # its course

    def run(self) -> None:
        """Run to the end.

        Raises:
            ViolationError: a promise was broken.
        """
        plan = self.scenario
        for allowance in plan.allowances:
            self.world.at(allowance.at, self.world.fate, self._allow, allowance)
        self.brokers[0].start()
        if plan.standby:
            self.brokers[1].start()
        for shell in self.shells:
            shell.start()
        for fault in plan.faults:
            self.world.at(fault.at, self.world.fate, self._begin_fault, fault)
        for verb in plan.verbs:
            if verb.lender < len(self.shells):
                machine = self.shells[verb.lender].machine
                owner = self._owners[machine.name]
                self.world.at(verb.at, machine, owner.say, verb.verb, *verb.args)
        self.world.run(plan.calm_at_s)
        last = max((one.at + one.for_s for one in plan.faults), default=0.0)
        self.world.run(max(self.world.now, last) + 5.0)
        self._let_all_lend()
        work_s = sum(_work_s(job) for job in plan.jobs)
        self._until(self._all_ended, LIVENESS_S + work_s, "every job ends")
        self._until(self._quiet, QUIET_S, "")
        check_end(self)
        for end in self.ledger.terminals.values():
            self.world.stats[f"jobs {end.state}"] += 1
        self.world.stats["tasks cancelled"] += self.ledger.cancelled

    def _begin_fault(self, fault: FaultPlan) -> None:
        if fault.target < len(self.shells):
            self.world.note("fate", f"{fault.kind} ({fault.target}) for {fault.for_s:.3f} s")
            self.world.stats[fault.kind] += 1
            FAULTS[fault.kind](self, fault)

    def _let_all_lend(self) -> None:
        """No fault is left, and owners lend again: the first one everything."""
        self.world.note("fate", "calm")
        for broker in self.brokers:
            broker.wall_ahead_s = 0.0  # by it jobs expire
        for shell in self.shells:
            self._owners[shell.machine.name].say("resume")
        owner = self._owners[self.shells[0].machine.name]
        for submitter in range(len(self._submitter_keys)):
            for workload in ("render", "command"):
                owner.say("grant", submitter, workload)

    def _until(self, condition: Callable[[], bool], within_s: float, promise: str) -> None:
        end = self.world.now + within_s
        while not condition():
            if self.world.now >= end:
                if promise:
                    raise ViolationError(promise, ", ".join(self._unended()))
                return
            self.world.run(self.world.now + _LOOK_S)

    def _all_ended(self) -> bool:
        return not self._unended()

    def _unended(self) -> list[str]:
        return [
            f"{job.plan.id} has not ended"
            for key, job in self.jobs.items()
            if key not in self.ledger.terminals
        ] + [f"{name} is not retried" for one in self._submitters for name in one.owed]

    def _quiet(self) -> bool:
        if not self.services():
            return False
        try:
            check_end(self)
        except ViolationError:
            return False
        return True


def _work_s(job: JobPlan) -> float:
    """Return about what the tasks of a job take one after another: a fleet may be that narrow."""
    slower_s = (SLOWER - 1.0) * job.task_s + STALL_S
    once_s = job.task_s + job.slow_permille / 1000 * slower_s
    return (job.count or 1) * once_s


def _that_can_end(jobs: Iterable[JobPlan]) -> Iterator[JobPlan]:
    """Let none wait for one that was left out, unless it soon expires."""
    there = {one.id for one in jobs}
    for one in jobs:
        after = tuple(
            pair
            for pair in one.after
            if one.life_s <= LIVENESS_S or pair[0] in there or pair[0].rpartition("-")[0] in there
        )
        yield one._replace(after=after)


def run(scenario: Scenario, *, tell: Callable[[str], None] | None = None) -> Outcome:
    """Run a scenario; `tell` takes each line of the trace."""
    world = World(scenario.seed, tell=tell)
    broken = text = ""
    try:
        with mock.patch.object(quotas, "DEFAULT", scenario.usual):
            Simulation(scenario, world).run()
    except ViolationError as error:
        broken, text = error.checker, str(error)
    except Exception as error:
        broken, text = f"raised {type(error).__name__}", f"{type(error).__name__}: {error}"
        if tell is not None:
            raise
    return Outcome(
        scenario,
        broken,
        text,
        world.digest,
        world.steps,
        world.now,
        dict(sorted(world.stats.items())),
        tuple(world.tail),
    )
