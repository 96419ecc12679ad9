"""Whoever waits gets its share in the long run, and nobody waits for ever.

A model of lenders that take what is queued for them, run it for as long as it takes, and report;
submitters with any weights and any sizes of tasks, who come when they come.
"""

from heapq import heappop, heappush
from itertools import count

from broker_world import L1, START, World, class_of, job_spec, ok
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.core.events import HearingLost
from broker.core.jobs.job import PRIORITY_S
from broker.core.matching.lender import FEED_PER_SLOT
from lender.protocol.job import Limits
from lender.protocol.lease import Lease
from lender.protocol.signature import Signer, seed_from_entropy

SLOTS = 4
SIGNERS = [Signer(seed_from_entropy(bytes([n] * 32))) for n in range(30, 34)]
CLASSES = [class_of(one) for one in SIGNERS]


class Machine:
    """One lender that runs what is queued, in the order of the queue, as far as it has cores."""

    def __init__(self, weights: list[float], slots: int = SLOTS) -> None:
        keys = [signer.public_key for signer in SIGNERS]
        self.world = World(frozenset(keys))
        self.world.broker.state.allow(frozenset(keys), dict(zip(keys, weights, strict=False)), {})
        self.slots = slots
        self.running: list[tuple[float, int, Lease]] = []
        self.numbers = count()
        self.used_s: dict[str, float] = dict.fromkeys(keys, 0.0)
        self.takes_s: dict[str, float] = {}
        self.world.do(HearingLost())  # it need not be heard of every second
        self.offer()

    def submit(self, who: int, tasks: int, takes_s: float, cpu: int, **fields: object) -> str:
        job = f"job-{next(self.numbers):05d}"
        self.takes_s[job] = takes_s
        signer = SIGNERS[who]
        limits = Limits(cpu=cpu, memory_bytes=1 << 20)
        spec = job_spec(
            signer,
            job,
            count=tasks,
            limits=limits,
            **{"created_at": self.world.now, "not_after": self.world.now + 600_000.0, **fields},
        )
        self.world.submit(spec, signer)
        return job

    def offer(self) -> None:
        held = [lease for _, _, lease in self.running]
        free = self.slots - sum(self.cores(lease) for lease in held)
        self.world.offer(
            L1, classes=CLASSES, leases=held, slots_free=max(0, free), slots_total=self.slots
        )

    def cores(self, lease: Lease) -> int:
        return self.world.broker.state.leases[lease.lease].need.cores

    def run(self, until: float) -> None:
        """Go on to `until`, from one end of a lease to the next."""
        end = START + until
        while self.world.now < end:
            self.take()
            next_s = min(self.running[0][0] if self.running else end, end)
            self.world.pass_time(next_s - self.world.now)
            if self.running and self.running[0][0] <= self.world.now:
                _, _, lease = heappop(self.running)
                cores, takes_s = self.cores(lease), self.takes_s[lease.job]
                self.used_s[lease.submitter] += takes_s * lease.task_count * cores
                self.world.report(lease, [ok(task, takes_s) for task in lease.tasks()])
                self.world.ack(lease)
            self.offer()

    def take(self) -> None:
        held = {lease.lease for _, _, lease in self.running}
        for lease in self.world.queued():
            free = self.slots - sum(self.cores(one) for _, _, one in self.running)
            if lease.lease in held:
                continue
            if self.cores(lease) > free:
                break  # it is next
            takes_s = self.takes_s[lease.job] * lease.task_count
            heappush(self.running, (self.world.now + takes_s, next(self.numbers), lease))
            self.offer()


sizes = st.tuples(st.sampled_from((10.0, 30.0, 60.0)), st.sampled_from((1, 2, 4)))
weights = st.sampled_from((0.5, 1.0, 2.0, 4.0))


@settings(max_examples=8)
@example([(0.5, (10.0, 4)), (0.5, (60.0, 1))])  # the machine's least busy mix: three cores wait
@given(st.lists(st.tuples(weights, sizes), min_size=2, max_size=4))
def test_long_run_shares_are_as_the_weights(mix: list[tuple[float, tuple[float, int]]]) -> None:
    """Within a tenth of the machine, whoever brings which sizes."""
    machine = Machine([weight for weight, _ in mix])
    for who, (_, (takes_s, cpu)) in enumerate(mix):
        machine.submit(who, 5000, takes_s, cpu)
    machine.run(6000.0)
    total = sum(machine.used_s.values())
    entitled = sum(weight for weight, _ in mix)
    for who, (weight, _) in enumerate(mix):
        part = machine.used_s[SIGNERS[who].public_key] / total
        assert abs(part - weight / entitled) <= 0.1
    assert total > 0.35 * 6000.0 * SLOTS, "the machine was busy"


@settings(max_examples=15)
@given(st.lists(sizes, min_size=1, max_size=3), sizes, weights)
def test_nothing_starves(
    others: list[tuple[float, int]], mine: tuple[float, int], weight: float
) -> None:
    """A job of one task is served within a bound, whatever others bring meanwhile.

    Before it comes what is queued already, which is twice the machine and a task, and at most
    one lease more of each of the others, who may hold nothing at that moment.
    """
    machine = Machine([weight])
    for who, (takes_s, cpu) in enumerate(others, start=1):
        machine.submit(who, 100_000, takes_s, cpu)
    machine.run(300.0)
    takes_s, cpu = mine
    job = machine.submit(0, 1, takes_s, cpu)
    longest_s = max(time_s for time_s, _ in others)
    queued = FEED_PER_SLOT * SLOTS + SLOTS
    bound_s = (queued + len(others) * SLOTS) * longest_s + takes_s
    machine.run(machine.world.now - START + bound_s)
    terminal = machine.world.terminal(job, SIGNERS[0])
    assert terminal is not None, f"not served within {bound_s:.0f} s"


@given(st.integers(-100, 100), st.integers(-100, 100))
def test_no_priority_holds_an_old_job_back_for_ever(old: int, new: int) -> None:
    """What comes later than the difference of the priorities in minutes comes after it."""
    world = World()
    world.submit(job_spec(job="old-00001", priority=old))
    world.submit(job_spec(job="soon-0001", priority=new, created_at=START + 1.0))
    ahead_s = (new - old) * PRIORITY_S
    world.now += max(0.0, ahead_s) + 1.0
    for number in range(3):
        world.submit(job_spec(job=f"late-{number:04d}", priority=new, created_at=world.now))
    world.offer(slots=1)
    order = []
    for _ in range(5):
        lease = world.pull()
        order.append(lease.job)
        world.run(lease)
    assert order.index("old-00001") < order.index("late-0000")
    assert (order.index("soon-0001") < order.index("old-00001")) == (ahead_s > 1.0)


@settings(max_examples=10)
@given(sizes, st.sampled_from((100.0, 600.0, 3000.0)))
def test_whoever_arrives_late_is_served_next_but_saves_nothing_up(
    size: tuple[float, int], late_s: float
) -> None:
    takes_s, cpu = size
    machine = Machine([])
    machine.submit(0, 100_000, takes_s, cpu)
    machine.submit(1, 100_000, takes_s, cpu)
    machine.run(late_s)
    before, fed = dict(machine.used_s), set(machine.world.broker.state.leases._live)
    machine.submit(2, 100_000, takes_s, cpu)
    machine.run(late_s + takes_s + 1.0)
    live = machine.world.broker.state.leases._live.values()
    new = [lease for lease in live if lease.id not in fed]
    first = min(new, key=lambda lease: (lease.fed_at, lease.id))
    late = SIGNERS[2].public_key
    assert first.job.submitter == late
    machine.run(late_s + 3000.0)
    had = {key: machine.used_s[key] - before[key] for key in before}
    equal = sum(had.values()) / 3
    assert abs(had[late] - equal) <= 0.2 * equal
