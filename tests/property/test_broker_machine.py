"""Random submitters, lenders, crashes and losses against the broker's core.

Whatever happens, in whatever order: each accepted job ends in exactly one terminal record, each
task of an array in exactly one result, no lease that may still answer shares a task with
another unless both are noted of it, and nothing is forgotten: no checkpoint either that was
answered for.
"""

from collections import Counter
from collections.abc import Iterable

from broker_world import (
    ALICE,
    BOB,
    L1,
    L2,
    L3,
    Follower,
    World,
    archive,
    bad,
    check_places,
    class_of,
    is_note,
    job_spec,
    ok,
    picture,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from broker.core.events import ClockJumped, FeedFailed, HearingLost, HearingRestored
from broker.core.jobs.job import JobKey
from lender.protocol.codec import decode
from lender.protocol.ids import task_name
from lender.protocol.job import After, AfterOn, BlobRef, JobSpec, Verify
from lender.protocol.lease import Lease
from lender.protocol.signature import Signer
from lender.protocol.subjects import cancel

SIGNERS = (ALICE, BOB)
LENDER_IDS = (L1, L2, L3)
CLASSES = tuple(
    class_of(signer, workload) for signer in SIGNERS for workload in ("command", "render")
)
ENDED = ("succeeded", "failed", "cancelled", "rejected", "expired")

SLOTS_MAX = 4

VERIFIED = (
    None,
    None,
    Verify(replicas=2, quorum=1),
    Verify(),
    Verify(replicas=3, quorum=2),
    Verify(spot_check=True),
)

signers = st.sampled_from(SIGNERS)
lenders = st.sampled_from(LENDER_IDS)
fractions = st.floats(0, 1)
durations = st.sampled_from((0.0, 0.001, 0.05, 0.5, 20.0))


def spec_of(lease: Lease) -> JobSpec:
    """What the submitter signed."""
    return decode(JobSpec, lease.spec, lease.content_type)


class BrokerMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.world = World()
        self.numbers = Counter[str]()
        self.held: dict[str, dict[str, Lease]] = {lender: {} for lender in LENDER_IDS}
        self.offered: dict[str, tuple[str, ...]] = dict.fromkeys(LENDER_IDS, ())
        self.records_seen = 0
        self.done: dict[tuple[str, str], set[int]] = {}
        self.accepted: dict[tuple[str, str], int] = {}
        self.separate: set[tuple[str, str]] = set()
        self.told: dict[str, set[int]] = {}
        self.answered: set[str] = set()
        self.failures: dict[tuple[str, str, int], set[str]] = {}
        self.leases_seen: set[str] = set()
        self.follower: Follower | None = None
        for lender in (L1, L2):
            self.offered[lender] = CLASSES
            self.offer_again(lender)
        self.submit_and_pull(ALICE, 7)

    # submitters

    @rule(
        signer=signers,
        count=st.one_of(st.none(), st.integers(1, 40)),
        retries=st.integers(0, 2),
        workload=st.sampled_from(("command", "render")),
        life_s=st.sampled_from((5.0, 3600.0, 86_400.0)),
        checkpoint=st.booleans(),
        after=st.sampled_from((None, None, "success", "end")),
        queue_s=st.sampled_from((None, None, 3.0)),
        gang=st.booleans(),
        verify=st.sampled_from(VERIFIED),
        separate=st.booleans(),
        at=fractions,
    )
    def submit(
        self,
        signer: Signer,
        count: int | None,
        retries: int,
        workload: str,
        life_s: float,
        *,
        checkpoint: bool,
        after: AfterOn | None = None,
        queue_s: float | None = None,
        gang: bool = False,
        verify: Verify | None = None,
        separate: bool = False,
        at: float = 0.0,
    ) -> None:
        theirs = [job for submitter, job in self.accepted if submitter == signer.public_key]
        if theirs and (signer.public_key, theirs[-1]) in self.separate:
            # One that is not there would be waited for until the job expires.
            task = round(at * (self.accepted[signer.public_key, theirs[-1]] - 1))
            theirs.append(task_name(theirs[-1], task))
        waits = (After(job=theirs[-1], on=after),) if after and theirs else ()
        self.numbers["job"] += 1
        # No larger than what ends all jobs at the end can hold.
        gang = gang and verify is None and count is not None and count <= SLOTS_MAX
        checkpoint = checkpoint and verify is None
        separate = separate and count is not None and not gang and not checkpoint
        spec = job_spec(
            signer,
            f"job-{self.numbers['job']:05d}",
            count=count,
            separate=separate,
            retries=retries,
            workload=workload,
            after=waits,
            queue_s=queue_s,
            gang=gang,
            checkpoint=checkpoint,
            verify=verify,
            created_at=self.world.now,
            not_after=self.world.now + life_s,
        )
        self.accepted[signer.public_key, spec.id] = count or 0
        if separate:
            self.separate.add((signer.public_key, spec.id))
        self.world.submit(spec, signer)

    @rule(signer=signers)
    def submit_nonsense(self, signer: Signer) -> None:
        self.numbers["job"] += 1
        job = f"job-{self.numbers['job']:05d}"
        self.accepted[signer.public_key, job] = 0
        self.world.submit_raw(f"submit.{signer.public_key}.{job}", {}, b"\xc1")

    @rule(signer=signers, at=fractions)
    def cancel(self, signer: Signer, at: float) -> None:
        number = round(at * (self.numbers["job"] + 1))
        self.world.cancel(f"job-{number:05d}", signer)

    @precondition(lambda self: any(self.accepted.values()))
    @rule(data=st.data(), at=fractions)
    def cancel_task(self, data: st.DataObject, at: float) -> None:
        """Cancel a task of an array, or one that it does not have."""
        arrays = sorted(key for key, count in self.accepted.items() if count)
        submitter, job = data.draw(st.sampled_from(arrays))
        signer = next(one for one in SIGNERS if one.public_key == submitter)
        before = len(self.world.controls)
        task = round(at * self.accepted[submitter, job])
        self.world.cancel(task_name(job, task), signer)
        self._obey(before)

    # lenders

    @rule(
        lender=lenders,
        classes=st.one_of(st.just(CLASSES), st.sets(st.sampled_from(CLASSES))),
        slots=st.integers(0, SLOTS_MAX),
        phase=st.sampled_from(("lending", "lending", "lending", "paused", "offline")),
    )
    def offer(self, lender: str, classes: Iterable[str], slots: int, phase: str) -> None:
        self.offered[lender] = tuple(sorted(classes)) if phase == "lending" else ()
        self._offer(lender, classes, slots, phase)

    @rule(lender=lenders)
    def offer_again(self, lender: str) -> None:
        self._offer(lender, self.offered[lender], 3, "lending")

    def _offer(self, lender: str, classes: Iterable[str], slots: int, phase: str) -> None:
        before = len(self.world.controls)
        self.world.offer(
            lender, classes=classes, slots=slots, phase=phase, leases=self.held[lender].values()
        )
        self._obey(before)

    def _obey(self, before: int) -> None:
        for sent in self.world.controls[before:]:
            if sent.control.kind == "cancel":
                for lease in sent.control.leases:
                    self.held[sent.lender].pop(lease, None)

    @precondition(lambda self: self.world.work)
    @rule(lender=lenders, tell=st.booleans(), at=fractions)
    def pull(self, lender: str, *, tell: bool, at: float) -> None:
        """Take a message of a listed class; the queue may deliver one that another holds."""
        takable = [
            queued.lease
            for queued in self.world.work.values()
            if queued.class_token in self.offered[lender]
        ]
        if takable and len(self.held[lender]) < SLOTS_MAX:
            lease = takable[int(at * (len(takable) - 1))]
            self.held[lender][lease.lease] = lease
            if tell:
                self.offer_again(lender)

    @rule(signer=signers, count=st.integers(1, 40))
    def submit_and_pull(self, signer: Signer, count: int | None) -> None:
        self.submit(signer, count, 1, "command", 3600.0, checkpoint=True)
        self.streams_catch_up()
        for lender in LENDER_IDS:
            self.offer_again(lender)
            self.pull(lender, tell=True, at=1.0)
        # Another rule may go on from here, before the invariants are looked at.
        self.a_new_lease_carries_the_newest_checkpoints()

    @rule(data=st.data(), final=st.booleans(), duration_s=durations)
    def report(self, data: st.DataObject, *, final: bool, duration_s: float) -> None:
        if not any(self.held.values()):
            self.submit_and_pull(data.draw(signers), data.draw(st.integers(1, 40)))
        if not any(self.held.values()):
            return
        lender, lease = self._some_held(data)
        tasks = lease.tasks()
        done = data.draw(st.sets(st.sampled_from(tasks)))
        if data.draw(st.booleans()):
            done = set(tasks)
        failed = data.draw(st.sets(st.sampled_from(tasks), max_size=2))
        outcome = "finished"
        if final and done != set(tasks):
            outcome = data.draw(
                st.sampled_from(("finished", "refused", "evicted", "revoked", "invalid"))
            )
        results = [bad(n) if n in failed else ok(n, duration_s) for n in sorted(done)]
        signer = next(one for one in SIGNERS if one.public_key == lease.submitter)
        ended = self.world.terminal(lease.job, signer)
        left = self._some_checkpoints(data, lease)
        goes_on = self._open_tasks(lease, lender) - done
        fails = self._open_tasks(lease, lender) & done & failed - self._shared(lease)
        reply = self.world.report(
            lease, results, lender, final=final, outcome=outcome, checkpoints=left
        )
        lost_reply = data.draw(st.booleans())
        verdict = self.world.verdict(reply)
        assert verdict != "malformed"
        if verdict == "committed" and self.world.terminal(lease.job, signer) is None:
            noted = self.world.noted(lease.job, signer)
            assert all(noted[task] == blob for task, blob in left if task in goes_on)
        assert verdict is None or not self.world.in_flight, "told before it was durable"
        if ended is not None and ended.state in ("cancelled", "expired"):
            # Committed only what had been answered before the end.
            assert verdict != "committed" or lease.lease in self.answered
        self._count_failures(lease, fails if verdict == "committed" else set())
        if verdict in ("committed", None):  # None: it is answered once the commit has landed
            told = self.told.setdefault(lease.lease, set())
            told |= done
            if final or told == set(tasks):
                self.answered.add(lease.lease)
        if verdict == "stale" or (verdict == "committed" and final and not lost_reply):
            self.held[lender].pop(lease.lease, None)
            self.world.ack(lease)

    def _some_checkpoints(
        self, data: st.DataObject, lease: Lease
    ) -> tuple[tuple[int, BlobRef], ...]:
        if not spec_of(lease).checkpoint:
            return ()
        tasks = data.draw(st.sets(st.sampled_from(lease.tasks()), max_size=2))
        self.numbers["checkpoint"] += len(tasks)
        newest = self.numbers["checkpoint"]
        return tuple((task, archive(newest - n)) for n, task in enumerate(sorted(tasks)))

    def _count_failures(self, lease: Lease, tasks: set[int]) -> None:
        for task in tasks:
            leases = self.failures.setdefault((lease.submitter, lease.job, task), set())
            leases.add(lease.lease)
            assert len(leases) <= 1 + spec_of(lease).retries, "it is tried too often"

    def _shared(self, lease: Lease) -> set[int]:
        """The tasks of which no lease alone tells."""
        job = self.world.broker.state.jobs.get(JobKey(lease.submitter, lease.job))
        return set() if job is None else set(job.shared)

    def _open_tasks(self, lease: Lease, lender: str) -> set[int]:
        """The tasks of a lease whose checkpoints the broker takes from `lender`."""
        live = self.world.broker.state.leases.get(lease.lease)
        if live is None or live.holder not in (None, lender):
            return set()
        return {index for first, count in live.open for index in range(first, first + count)}

    @rule(data=st.data(), duration_s=durations)
    def report_partly(self, data: st.DataObject, duration_s: float) -> None:
        self.report(data, final=False, duration_s=duration_s)

    @rule(data=st.data())
    def report_while_the_server_is_slow(self, data: st.DataObject) -> None:
        self.world.land_commits = False
        self.report(data, final=True, duration_s=0.1)

    def _some_held(self, data: st.DataObject) -> tuple[str, Lease]:
        return data.draw(
            st.sampled_from(
                [(lender, lease) for lender, held in self.held.items() for lease in held.values()]
            )
        )

    @rule(lender=lenders)
    def lender_crashes(self, lender: str) -> None:
        self.held[lender].clear()

    # the world

    @rule(seconds=st.sampled_from((0.01, 0.2, 0.5, 1.1, 2.6, 13.0)))
    def time_passes(self, seconds: float) -> None:
        before = len(self.world.controls)
        self.world.pass_time(seconds)
        self._obey(before)

    @rule(by_s=st.sampled_from((-100.0, 100.0)))
    def clock_jumps(self, by_s: float) -> None:
        self.world.now += by_s
        self.world.do(ClockJumped(by_s))

    @rule(deaf=st.booleans())
    def line_breaks_or_heals(self, *, deaf: bool) -> None:
        self.world.do(HearingLost() if deaf else HearingRestored())

    @rule(land=st.booleans(), answer=st.booleans())
    def servers_pace_changes(self, *, land: bool, answer: bool) -> None:
        self.world.land_commits, self.world.answer_feeds = land, answer

    @precondition(lambda self: self.world.in_flight or self.world.feeds)
    @rule()
    def streams_catch_up(self) -> None:
        while self.world.in_flight:
            self.world.land()
        while self.world.feeds:
            self.world.store_feed()

    @precondition(lambda self: self.world.feeds)
    @rule(stored=st.booleans())
    def feed_fails(self, *, stored: bool) -> None:
        feed = self.world.feeds[0]
        if stored:
            # Stored, but the answer is lost; a later LeaseFed never comes.
            do, self.world.do = self.world.do, lambda _: []
            self.world.store_feed()
            self.world.do = do
        else:
            self.world.feeds.pop(0)
        self.world.do(FeedFailed(feed.lease.lease, "timeout"))

    @rule(landed=st.integers(0, 3), fed=st.booleans())
    def broker_crashes(self, landed: int, *, fed: bool) -> None:
        for commit in self.world.in_flight[:landed]:
            self.world.store(commit)
        if fed and self.world.feeds:
            do, self.world.do = self.world.do, lambda _: []
            self.world.store_feed()
            self.world.do = do
        started_anew = self.world.copy()
        started_anew.start()
        follower, self.follower = self.follower or self.world.stand_by(), None
        self.world.take_over(follower)
        assert picture(self.world) == picture(started_anew)

    @rule(read=st.sampled_from(("results", "jobs", "both", "both")))
    def another_broker_reads_along(self, read: str) -> None:
        if self.follower is None:
            self.follower = self.world.stand_by()
        match read:
            case "results":
                self.follower.read_results()
            case "jobs":
                self.follower.read_jobs()
            case _:
                self.follower.follow()

    # what must hold

    @invariant()
    def every_task_is_in_one_place(self) -> None:
        check_places(self.world)

    @invariant()
    def no_two_live_leases_share_a_task(self) -> None:
        state = self.world.broker.state
        for job in state.jobs:
            tasks = Counter(
                index
                for lease_id in job.leases
                for first, count in state.leases.get(lease_id).open
                for index in range(first, first + count)
            )
            for task, leases in tasks.items():
                shared = job.shared.get(task)
                assert leases == (1 if shared is None else len(shared.leases))

    @invariant()
    def a_gang_runs_whole_or_not_at_all(self) -> None:
        state = self.world.broker.state
        for gang in state.gangs:
            leases = [state.leases.get(lease_id) for lease_id in gang.job.leases]
            held = sum(len(lease.open) for lease in leases if lease.holder is not None)
            if state.gangs.runs(gang.job):
                assert held == gang.job.total - gang.job.settled

    @invariant()
    def nothing_is_committed_twice(self) -> None:
        assert self.world.refused_records == []
        new = list(self.world.results)[self.records_seen :]
        self.records_seen += len(new)
        for subject in new:
            if is_note(subject):
                continue
            _, submitter, job, *chunk = subject.split(".")
            for result in self.world.chunk(subject).results if chunk else ():
                done = self.done.setdefault((submitter, job), set())
                assert result.task not in done, "a task has two results"
                assert result.task < self.accepted[submitter, job]
                done.add(result.task)
                if result.cancelled:
                    name = task_name(job, result.task)
                    assert any(one == cancel(submitter, name) for one, _, _ in self.world.jobs)
        for lease in self.world.broker.state.leases:
            results = self.done.get(lease.job, set())
            assert not any(task in lease.open for task in results), "it has its result"

    @invariant()
    def a_new_lease_carries_the_newest_checkpoints(self) -> None:
        for lease in self.world.queued():
            if lease.lease in self.leases_seen:
                continue
            self.leases_seen.add(lease.lease)
            signer = next(one for one in SIGNERS if one.public_key == lease.submitter)
            noted, carried = self.world.noted(lease.job, signer), dict(lease.checkpoints)
            assert set(carried) <= set(lease.tasks())
            assert spec_of(lease).checkpoint or not carried
            self._follows(signer, lease)
            for task in lease.tasks():
                if task in noted:
                    # It may carry one that a commit in flight will note.
                    assert carried[task].size_bytes >= noted[task].size_bytes

    def _follows(self, signer: Signer, lease: Lease) -> None:
        """Its job waits for none whose end is not durable, or not as asked."""
        for one in spec_of(lease).after:
            how = self._how_ended(one.job, signer)
            assert how is not None
            assert one.on == "end" or how == "succeeded"

    def _how_ended(self, name: str, signer: Signer) -> str | None:
        """How a job has ended, or one that went together with others, as far as is stored."""
        array, _, task = name.rpartition("-")
        if (signer.public_key, array) in self.separate:
            for result in self.world.tasks(array, signer):
                if result.task == int(task):
                    return result.state
            name = array
        end = self.world.terminal(name, signer)
        return None if end is None else end.state

    @invariant()
    def feeding_is_bounded(self) -> None:
        leases = self.world.broker.state.leases
        for lender in self.world.broker.state.fleet:
            guessed = [one for one in lender.claims if leases.get(one).holder is None]
            assert len(guessed) <= 2 * SLOTS_MAX

    def _run_all_that_waits(self) -> None:
        for lender in LENDER_IDS:
            self.world.offer(lender, classes=CLASSES, slots=SLOTS_MAX)
            for lease in self.world.queued():
                if not lease.is_barred(lender):
                    self.world.run(lease, lender)

    def teardown(self) -> None:
        """Let good lenders finish everything: each accepted job has its one last word."""
        if not hasattr(self, "world"):
            return  # it failed before its start
        world = self.world
        world.land_commits = world.answer_feeds = True
        self.streams_catch_up()
        world.do(HearingRestored())
        for held in self.held.values():
            held.clear()
        for _ in range(400):
            if not list(world.broker.state.jobs):
                break
            world.pass_time(1.0)
            self._run_all_that_waits()
        for (submitter, job), count in self.accepted.items():
            signer = next(one for one in SIGNERS if one.public_key == submitter)
            terminal = world.terminal(job, signer)
            assert terminal is not None, f"{job} never ended"
            assert terminal.state in ENDED
            if count:
                tasks = world.tasks(job, signer)
                assert len(tasks) == terminal.tasks_succeeded + terminal.tasks_failed
                assert sum(one.state == "failed" for one in tasks) == terminal.tasks_failed
                if terminal.state in ("succeeded", "failed"):
                    assert sorted(one.task for one in tasks) == list(range(count))
        assert len(world.broker.state.leases) == 0
        assert world.refused_records == []


TestBroker = BrokerMachine.TestCase
TestBroker.settings = settings(max_examples=120, stateful_step_count=50)
