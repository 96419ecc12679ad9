"""What brokers send and sandboxes tell: late, twice, or after they were closed."""

from core_world import (
    ALICE,
    BLOB,
    BOB,
    array_spec,
    class_of,
    lease_id,
    make_lease,
    make_spec,
    results,
)
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from lender.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    BrokerGreeted,
    CheckpointSaved,
    ClassesOpened,
    LeaseDelivered,
    LeaseMalformed,
    LeasesCancelled,
    PreparationFailed,
    PullEnded,
    ReportAnswered,
    SandboxGone,
    SandboxPrepared,
    TasksEnded,
    TaskTerminated,
)
from lender.protocol.lease import Lease
from lender_model.owner import SIGNERS, OwnerAndMachine, picks
from lender_model.shell import Sandbox, Told

MANY = 1_000_000
"""Tasks of a job: no lease has one that another had."""
TASKS_MAX = 5


class BrokerAndSandboxes(OwnerAndMachine):
    # The sandboxes; what they tell may come after they were closed.

    @precondition(lambda self: any(not one.prepared for one in self.sandboxes.values()))
    @rule(pick=picks, fails=st.integers(0, 3), invalid=st.booleans())
    def prepared(self, pick: int, fails: int, *, invalid: bool) -> None:
        waiting = [one for one in self.sandboxes.values() if not one.prepared]
        sandbox = waiting[pick % len(waiting)]
        lease = sandbox.lease.lease
        if fails == 0:
            self.tell(PreparationFailed(lease, invalid, "argv", "broken"))
        else:
            sandbox.prepared = True
            self.tell(SandboxPrepared(lease))

    @precondition(lambda self: any(one.running for one in self.sandboxes.values()))
    @rule(pick=picks, count=st.integers(1, 3), failed=st.booleans())
    def tasks_ended(self, pick: int, count: int, *, failed: bool) -> None:
        running = sorted(name for name, one in self.sandboxes.items() if one.running)
        lease = self.sandboxes[running[pick % len(running)]].lease
        self.end_tasks(lease, count, "failed" if failed else "succeeded")

    def end_tasks(self, lease: Lease, count: int, state: str) -> None:
        produced = self.produced.setdefault(lease.lease, set())
        left = [task for task in lease.tasks() if task not in produced][:count]
        again = sorted(produced)[:1]  # told twice
        produced |= set(left)
        sandbox = self.sandboxes[lease.lease]
        if sandbox.open and sandbox.running:
            sandbox.results_s += 0.5 * len(set(left) - sandbox.counted)
            sandbox.counted |= set(left)
            self.spend(sandbox, sandbox.results_s)
        self.tell(TasksEnded(lease.lease, results(*again, *left, state=state)))

    @rule(late_s=st.sampled_from([0.0, 0.2, 0.2, 3.0, 60.0]), answered=st.booleans())
    def work(self, late_s: float, *, answered: bool) -> None:
        """Every sandbox makes a step, and the broker may answer all that it was told."""
        self.now += late_s
        for lease, sandbox in list(self.sandboxes.items()):
            if sandbox.open and not sandbox.prepared:
                sandbox.prepared = True
                self.tell(SandboxPrepared(lease))
            elif sandbox.open and sandbox.running and not sandbox.frozen:
                self.end_tasks(sandbox.lease, 1, "succeeded")
        for lease, told in list(self.told.items()) if answered else ():
            while told.unanswered:
                self.tell(ReportAnswered(lease, told.unanswered.pop(0), True, ""))

    def asked(self) -> list[Sandbox]:
        return [one for one in self.sandboxes.values() if one.open and one.asked_at is not None]

    def saving(self) -> list[Sandbox]:
        return [one for one in self.sandboxes.values() if one.saving]

    @precondition(asked)
    @rule(pick=picks)
    def ended_as_asked(self, pick: int) -> None:
        asked = self.asked()
        self.tell(TaskTerminated(asked[pick % len(asked)].lease.lease))

    @precondition(saving)
    @rule(pick=picks, left=st.booleans())
    def checkpoint_saved(self, pick: int, *, left: bool) -> None:
        sandbox = self.saving()[pick % len(self.saving())]
        sandbox.saved = left
        self.tell(CheckpointSaved(sandbox.lease.lease, ((0, BLOB),) if left else ()))
        sandbox.saving = False

    @rule(pick=picks, kind=st.integers(0, 2))
    def late_word_of_an_end(self, pick: int, kind: int) -> None:
        if self.sandboxes and kind == 2:
            lease = self.picked(pick).lease.lease
            if not self.sandboxes[lease].saving and not self.sandboxes[lease].open:
                self.tell(CheckpointSaved(lease, ()))
                self.tell(TaskTerminated(lease))

    def sandbox_gone(self, pick: int) -> None:
        if self.sandboxes:
            self.tell(SandboxGone(self.picked(pick).lease.lease, "killed"))

    # The broker.

    @rule(
        name=st.sampled_from(["alice", "alice", "alice", "bob"]),
        tasks=st.integers(1, TASKS_MAX),
        cpu=st.integers(1, 3),
        forged=st.booleans(),
        checkpoint=st.booleans(),
    )
    def deliver(
        self, name: str, tasks: int, cpu: int, *, forged: bool, checkpoint: bool = False
    ) -> None:
        limits = {"cpu": cpu}
        spec = array_spec(MANY, limits=limits, checkpoint=checkpoint)
        if name == "bob":
            spec = make_spec(BOB, array={"count": MANY}, limits=limits)
        signer = SIGNERS[name] if not (forged and tasks == 1) else ALICE
        number = len(self.leases)
        lease = make_lease(spec, number, ((TASKS_MAX * number, tasks),), signer=signer)
        self.leases[lease.lease] = lease
        self.hand_over(lease, class_of(spec))

    @rule(cpus=st.lists(st.integers(1, 2), min_size=2, max_size=4))
    def deliver_many(self, cpus: list[int]) -> None:
        for cpu in cpus:
            self.deliver("alice", 3, cpu, forged=False)

    @rule(checkpoint=st.booleans(), leases=st.integers(1, 3))
    def deliver_more_of_the_same(self, leases: int, *, checkpoint: bool) -> None:
        """Leases that run to their end, one after another."""
        for _ in range(leases):
            self.deliver("alice", 1, 1, forged=False, checkpoint=checkpoint)
            self.work(0.0, answered=True)
            self.work(0.0, answered=True)

    def deliver_again(self, pick: int) -> None:
        """The queue's ack wait ran out, or an ack was lost: the older message is void."""
        lease = self.leases[lease_id(pick % len(self.leases))]
        if lease.lease not in self.deliveries.values() and lease.lease in self.told:
            # It was over. The broker hears of its end anew; earlier answers may come yet.
            self.told[lease.lease] = Told(unanswered=self.told[lease.lease].unanswered)
        self.hand_over(lease, class_of())
        assert list(self.deliveries.values()).count(lease.lease) <= 1

    def hand_over(self, lease: Lease, work_class: str) -> None:
        self.delivered = self.delivered + 1
        self.deliveries[self.delivered] = lease.lease
        self.tell(LeaseDelivered(work_class, self.delivered, lease))

    def deliver_junk(self) -> None:
        self.delivered = self.delivered + 1
        self.deliveries[self.delivered] = "junk"
        self.tell(LeaseMalformed(class_of(), self.delivered, "junk"))
        assert self.delivered not in self.deliveries

    @precondition(lambda self: self.told)
    @rule(pick=picks, accepted=st.integers(0, 4))
    def answer(self, pick: int, accepted: int) -> None:
        """Answers come in order per lease, and now and then twice."""
        lease = sorted(self.told)[pick % len(self.told)]
        told = self.told[lease]
        number = told.unanswered[0] if told.unanswered else max(1, told.numbers)
        told.unanswered = told.unanswered[1:]
        self.tell(ReportAnswered(lease, number, accepted > 0, "" if accepted else "stale"))

    def cancel(self, pick: int) -> None:
        self.tell(LeasesCancelled((lease_id(pick % (len(self.leases) + 1)),)))

    def connection(self, *, up: bool) -> None:
        if up:
            self.connected = True
            self.tell(BrokerConnected())
        else:
            self.connected = False
            self.tell(BrokerDisconnected())
            for work_class in sorted(self.pulls):
                self.end_pull(work_class, refused=False)

    def greet(self) -> None:
        if self.connected:
            self.tell(BrokerGreeted())

    def open_class(self, name: str) -> None:
        self.tell(ClassesOpened((class_of(make_spec(SIGNERS[name])),)))

    @precondition(lambda self: self.pulls)
    @rule(pick=picks, refused=st.booleans())
    def pull_ended(self, pick: int, *, refused: bool) -> None:
        self.end_pull(sorted(self.pulls)[pick % len(self.pulls)], refused=refused)

    def end_pull(self, work_class: str, *, refused: bool) -> None:
        self.pulls.discard(work_class)
        self.tell(PullEnded(work_class, refused))

    @precondition(lambda self: self.leases)
    @rule(pick=picks, kind=st.integers(0, 6))
    def disturb(self, pick: int, kind: int) -> None:
        match kind:
            case 0:
                self.greet()
            case 1:
                self.deliver_junk()
            case 2:
                self.deliver_again(pick)
            case 3:
                self.cancel(pick)
            case 4:
                self.connection(up=pick % 2 == 0)
            case 5:
                self.open_class(sorted(SIGNERS)[pick % 2])
            case _:
                self.sandbox_gone(pick)
