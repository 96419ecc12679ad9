"""Jobs and machines of any kind: what is leased can be run; what can be run is leased.

Checked after every event against the plain rules, worked out anew from offers and jobs.
"""

from collections import Counter

from broker_world import ALICE, BOB, LENDERS, World, check_places, class_of, job_spec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.core.leasing import feed
from broker.core.matching import groups
from broker.core.matching.lender import FEED_PER_SLOT, Lender
from broker.core.matching.need import Need
from broker.core.state import State
from lender.protocol.job import Input, Limits, Requires
from lender.protocol.signature import Signer

GIB = 1 << 30
SIGNERS = (ALICE, BOB)
CLASSES = tuple(class_of(signer) for signer in SIGNERS)
LABELS = ("quiet", "ssd")
BLOB = "a" * 64

signers = st.sampled_from(SIGNERS)
lenders = st.sampled_from(LENDERS)
labels = st.sets(st.sampled_from(LABELS)).map(sorted).map(tuple)
amounts = st.sampled_from((0, GIB, 2 * GIB, 6 * GIB))


def claimed(state: State, lender: Lender) -> Counter[str]:
    """What is counted to a lender, by resource."""
    total = Counter[str]()
    for lease_id in lender.claims:
        need = state.leases[lease_id].need
        total.update(
            cores=need.cores,
            memory=need.memory_bytes,
            disk=need.disk_bytes,
            vram=need.vram_bytes,
        )
    return total


def could_take(state: State, lender: Lender, need: Need) -> bool:
    """The plain rule: of its kind, not too large for it, and not twice over claimed."""
    offer, claims = lender.offer, claimed(state, lender)
    if offer.phase != "lending" or need.class_token not in offer.classes:
        return False
    if not need.labels <= set(offer.labels) or need.os not in ("any", offer.os):
        return False
    asked = {
        "cores": need.cores,
        "memory": need.memory_bytes,
        "disk": need.disk_bytes,
        "vram": need.vram_bytes,
    }
    lends = {
        "cores": lender.lends.cores,
        "memory": lender.lends.memory_bytes,
        "disk": lender.lends.disk_bytes,
        "vram": lender.lends.vram_bytes,
    }
    return all(
        asked[one] == 0 or (asked[one] <= lends[one] and claims[one] < FEED_PER_SLOT * lends[one])
        for one in asked
    )


class MatchingMachine(RuleBasedStateMachine):
    @initialize(looks=st.sampled_from((None, 1, 3)))
    def start(self, looks: int | None) -> None:
        """Begin; there may be more needs than are looked at in one go."""
        self.bounds = groups.LOOKS_MAX, groups.RANKED_LOOKS, feed.LOOKS_ON, feed.CLAIM_LOOKS_MAX
        if looks is not None:
            groups.LOOKS_MAX, groups.RANKED_LOOKS = looks, looks // 2
            feed.LOOKS_ON, feed.CLAIM_LOOKS_MAX = 1, looks
        self.world = World()
        self.numbers = 0
        self.checked: set[str] = set()
        self.before: dict[str, list[Need]] = {}

    def teardown(self) -> None:
        if hasattr(self, "bounds"):
            groups.LOOKS_MAX, groups.RANKED_LOOKS = self.bounds[:2]
            feed.LOOKS_ON, feed.CLAIM_LOOKS_MAX = self.bounds[2:]

    @rule(
        signer=signers,
        count=st.sampled_from((None, 1, 5, 30)),
        cpu=st.integers(1, 3),
        memory=st.sampled_from((1 << 20, GIB, 3 * GIB)),
        vram=st.sampled_from((0, 0, GIB)),
        disk=amounts,
        required=labels,
        prefers=labels,
        os=st.sampled_from(("any", "any", "linux", "macos")),
        priority=st.integers(-2, 2),
        expected_s=st.sampled_from((None, 1.0, 500.0, 50_000.0)),
        later_s=st.sampled_from((None, None, 2.0)),
        with_input=st.booleans(),
    )
    def submit(
        self,
        signer: Signer,
        count: int | None,
        cpu: int,
        memory: int,
        vram: int,
        disk: int,
        required: tuple[str, ...],
        prefers: tuple[str, ...],
        os: str,
        priority: int,
        expected_s: float | None,
        later_s: float | None,
        *,
        with_input: bool,
    ) -> None:
        self.numbers += 1
        blob = Input(name="in", sha256=BLOB, size_bytes=GIB)
        spec = job_spec(
            signer,
            f"job-{self.numbers:05d}",
            count=count,
            limits=Limits(cpu=cpu, memory_bytes=memory, scratch_bytes=disk),
            requires=Requires(labels=required, prefers=prefers, os=os, vram_bytes=vram),
            priority=priority,
            expected_s=expected_s,
            not_before=None if later_s is None else self.world.now + later_s,
            inputs=(blob,) if with_input else (),
            created_at=self.world.now,
            not_after=self.world.now + 86_400.0,
        )
        self.world.submit(spec, signer)

    @rule(
        lender=lenders,
        slots=st.integers(0, 4),
        memory=amounts,
        vram=amounts,
        disk=st.one_of(st.none(), amounts),
        has=labels,
        os=st.sampled_from(("linux", "linux", "macos")),
        stay_s=st.sampled_from((None, 30.0, 1000.0)),
        phase=st.sampled_from(("lending", "lending", "lending", "yielding", "offline")),
        classes=st.sampled_from((CLASSES, CLASSES, CLASSES[:1], ())),
        blobs=st.sampled_from(((), (BLOB,))),
    )
    def offer(
        self,
        lender: str,
        slots: int,
        memory: int,
        vram: int,
        disk: int | None,
        has: tuple[str, ...],
        os: str,
        stay_s: float | None,
        phase: str,
        classes: tuple[str, ...],
        blobs: tuple[str, ...],
    ) -> None:
        state = self.world.broker.state
        held = [
            lease
            for lease in self.world.queued()
            if (live := state.leases.get(lease.lease)) is not None and live.holder == lender
        ]
        self.world.offer(
            lender,
            leases=held,
            slots=slots + len(held),
            memory_free_bytes=memory,
            vram_free_bytes=vram,
            disk_free_bytes=disk,
            labels=has,
            os=os,
            stay_s=stay_s,
            phase=phase,
            classes=classes,
            blobs=blobs,
        )

    @rule(lender=lenders, at=st.floats(0, 1))
    def take(self, lender: str, at: float) -> None:
        """A lender takes something that waits; it may even be meant for another."""
        state = self.world.broker.state
        known = state.fleet.get(lender)
        waiting = [
            lease
            for lease in self.world.queued()
            if (live := state.leases.get(lease.lease)) is not None
            and live.holder is None
            and known is not None
            and live.class_token in known.classes
        ]
        if waiting:
            self.world.report(waiting[int(at * (len(waiting) - 1))], [], lender, final=False)

    @rule(at=st.floats(0, 1), lender=lenders, ending=st.sampled_from(("run", "refused", "evicted")))
    def end(self, at: float, lender: str, ending: str) -> None:
        queued = self.world.queued()
        if not queued:
            return
        lease = queued[int(at * (len(queued) - 1))]
        live = self.world.broker.state.leases.get(lease.lease)
        holder = (live.holder if live is not None else None) or lender
        if ending == "run":
            self.world.run(lease, holder, duration_s=0.3)
        else:
            self.world.report(lease, [], holder, outcome=ending, reason="no")
            self.world.ack(lease)

    @rule(seconds=st.sampled_from((0.05, 0.3, 2.6, 13.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(at=st.floats(0, 1))
    def cancel(self, at: float) -> None:
        for signer in SIGNERS:
            self.world.cancel(f"job-{round(at * (self.numbers + 1)):05d}", signer)

    @rule()
    def broker_crashes(self) -> None:
        self.world.start()

    @invariant()
    def everything_is_in_its_place(self) -> None:
        check_places(self.world)

    @invariant()
    def a_new_lease_is_meant_for_one_that_may_run_it(self) -> None:
        """Whatever changed since: a claim that is a guess was sound when it was made."""
        state = self.world.broker.state
        for lease in self.world.queued():
            live = state.leases.get(lease.lease)
            if lease.lease in self.checked or live is None:
                continue
            self.checked.add(lease.lease)
            lender = state.fleet.get(live.claim) if live.claim is not None else None
            if lender is not None and live.holder is None:
                assert lender.may_run(live.need)

    @invariant()
    def no_room_idles_while_something_waits_for_it(self) -> None:
        state, now = self.world.broker.state, self.world.now
        owed = state.backlog.turns.owed
        for job in state.jobs:
            if not job.pending or job.key.submitter in owed:
                continue
            for lender in state.fleet:
                if could_take(state, lender, job.need):
                    assert job.avoids(lender.id, now), f"{job.key} could go to {lender.id}"
                    assert job.aside_until is not None

    @invariant()
    def what_was_left_out_is_looked_at_soon(self) -> None:
        if self.world.broker.state.backlog.turns.owed:
            deadline = self.world.broker.next_deadline()
            assert deadline is not None
            assert deadline <= self.world.now + feed.LOOK_ON_S

    @invariant()
    def nobody_is_given_more_than_twice_what_it_lends_and_one_more(self) -> None:
        state = self.world.broker.state
        for lender in state.fleet:
            guessed = [
                state.leases[one].need for one in lender.claims if state.leases[one].holder is None
            ]
            if guessed and lender.lends == lender.most:
                cores = sum(need.cores for need in guessed)
                largest = max(need.cores for need in guessed)
                assert cores - largest < FEED_PER_SLOT * lender.lends.cores

    @invariant()
    def whoever_waits_is_in_turn(self) -> None:
        state = self.world.broker.state
        waiting = {job.key.submitter for job in state.jobs if job.pending}
        assert set(state.backlog.turns) == waiting
        for group in state.backlog._groups.values():
            first = group.first
            jobs = [job for job in state.jobs if job.pending and job.need == group.need]
            assert (first is None) == (not jobs)
            if first is not None:
                assert first.rank == min(job.rank for job in jobs)


TestMatching = MatchingMachine.TestCase
TestMatching.settings = settings(max_examples=100, stateful_step_count=40)
