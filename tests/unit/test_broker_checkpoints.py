"""A task that is evicted, lost or tried again goes on from its newest checkpoint."""

import pytest
from broker_world import ALICE, L1, L2, World, archive, bad, job_spec, ok

from broker.core.containers.ranges import RangeSet
from broker.core.durable.records import SUMMARY_HEADER, CheckpointsSummary
from broker.core.jobs import checkpoints
from lender.protocol import bounds
from lender.protocol.codec import encode
from lender.protocol.lease import Done, Lease

FIRST, SECOND, THIRD = archive(1), archive(2), archive(3)


def held(world: World, lender: str = L1, **fields: object) -> Lease:
    """A lease of a job that keeps checkpoints, held by a lender."""
    world.submit(job_spec(**{"checkpoint": True, **fields}))
    world.offer(lender)
    lease = world.pull()
    world.offer(lender, leases=[lease])
    return lease


def evict(world: World, lease: Lease, lender: str = L1, **fields: object) -> str | None:
    reply = world.report(lease, [], lender, outcome="evicted", **fields)
    world.ack(lease)
    return world.verdict(reply)


def test_an_evicted_task_goes_on_elsewhere_from_its_checkpoint() -> None:
    world = World()
    lease = held(world)
    assert lease.checkpoints == ()
    assert evict(world, lease, checkpoints=((0, FIRST),)) == "committed"
    world.offer(L2)
    again = world.pull()
    assert (again.attempt, again.checkpoints) == (2, ((0, FIRST),))
    assert world.run(again, L2) == "committed"
    assert world.terminal().state == "succeeded"
    assert world.refused_records == []


def test_a_lost_task_goes_on_from_what_was_reported_before() -> None:
    world = World()
    lease = held(world)
    reply = world.report(lease, [], final=False, checkpoints=((0, FIRST),))
    assert world.verdict(reply) == "committed"
    world.pass_time(3)
    world.offer(L2)
    assert world.pull().checkpoints == ((0, FIRST),)


def test_a_task_that_failed_goes_on_when_it_is_tried_again() -> None:
    world = World()
    lease = held(world, retries=1)
    world.report(lease, [], final=False, checkpoints=((0, FIRST),))
    world.report(lease, [bad()])
    world.ack(lease)
    world.pass_time(2)
    world.offer()
    assert world.pull().checkpoints == ((0, FIRST),)


def test_a_refusal_in_between_keeps_it() -> None:
    world = World()
    evict(world, held(world), checkpoints=((0, FIRST),))
    world.report(world.pull(), [], outcome="refused", reason="no room")
    world.ack(world.pull())
    world.pass_time(1)
    world.offer()
    assert world.pull().checkpoints == ((0, FIRST),)


def test_the_newest_wins() -> None:
    world = World()
    lease = held(world)
    world.report(lease, [], final=False, checkpoints=((0, FIRST),))
    evict(world, lease, checkpoints=((0, SECOND),))
    lease = world.pull()
    assert lease.checkpoints == ((0, SECOND),)
    evict(world, lease)
    lease = world.pull()
    assert lease.checkpoints == ((0, SECOND),), "an attempt that left none"
    evict(world, lease, checkpoints=((0, FIRST),))
    assert world.pull().checkpoints == ((0, FIRST),), "newest in time, whatever it holds"


def test_only_the_tasks_of_a_lease_come_with_their_checkpoints() -> None:
    world = World()
    world.submit(job_spec(count=100, checkpoint=True))
    world.offer(slots=1)
    world.run(world.pull(), duration_s=0.01)
    lease = max(world.queued(), key=lambda one: one.task_count)
    first, second, *rest = lease.tasks()
    assert rest
    results = [ok(first, duration_s=0.01)]
    world.report(
        lease,
        results,
        outcome="evicted",
        checkpoints=((first, FIRST), (second, SECOND)),
    )
    world.ack(lease)
    assert world.noted() == {second: SECOND}, "a task that has its result needs none"
    world.offer(slots=4)
    carried = {one.lease: dict(one.checkpoints) for one in world.queued() if one.checkpoints}
    (again,) = (one for one in world.queued() if second in one.tasks())
    assert carried == {again.lease: {second: SECOND}}


def test_a_task_that_has_ended_is_forgotten() -> None:
    world = World()
    lease = held(world, count=2)
    task = lease.tasks()[0]
    world.report(lease, [], final=False, checkpoints=((task, FIRST),))
    world.report(lease, [ok(task)])
    (job,) = world.broker.state.jobs
    assert job.checkpoints is not None
    assert job.checkpoints.of(RangeSet(lease.ranges)) == ()


def test_it_is_durable_before_its_report_is_answered() -> None:
    world = World(land_commits=False)
    lease = held(world)
    reply = world.report(lease, [], outcome="evicted", checkpoints=((0, FIRST),))
    again = world.report(lease, [], outcome="evicted", checkpoints=((0, FIRST),))
    assert world.verdict(reply) is None
    world.land()
    assert world.verdict(reply) == world.verdict(again) == "committed"
    assert world.noted() == {0: FIRST}
    assert world.in_flight == []


def test_results_and_checkpoints_of_one_report_are_committed_together() -> None:
    world = World(land_commits=False)
    world.submit(job_spec(count=40, checkpoint=True))
    world.offer(slots=1)
    world.run(world.pull(), duration_s=0.01)
    world.land()
    lease = max(world.queued(), key=lambda one: one.task_count)
    first, second, *_ = lease.tasks()
    world.report(lease, [ok(first)], final=False, checkpoints=((second, FIRST),))
    (commit,) = world.in_flight
    assert len(commit.records) == 2


def test_nobody_is_told_of_it() -> None:
    world = World()
    evict(world, held(world), checkpoints=((0, FIRST),))
    assert not [event for event in world.events if "Lender-Subject" in event.headers]
    assert world.terminal() is None
    assert world.chunks() == []


# who may


def test_only_the_holder_of_the_lease_leaves_one() -> None:
    world = World()
    lease = held(world)
    reply = world.report(lease, [], L2, outcome="evicted", checkpoints=((0, FIRST),))
    assert world.verdict(reply) == "stale"
    assert world.noted() == {}
    evict(world, lease)
    assert world.pull().checkpoints == ()


def test_what_comes_late_with_a_lost_lease_changes_nothing() -> None:
    world = World()
    lease = held(world)
    world.report(lease, [], final=False, checkpoints=((0, FIRST),))
    world.pass_time(3)
    world.offer(L2)
    again = world.pull()
    assert evict(world, lease, checkpoints=((0, SECOND),)) == "stale"
    evict(world, again, L2)
    assert world.pull().checkpoints == ((0, FIRST),)


def test_what_comes_after_the_last_word_changes_nothing() -> None:
    world = World()
    lease = held(world)
    evict(world, lease, checkpoints=((0, FIRST),))
    assert evict(world, lease, checkpoints=((0, SECOND),)) == "committed", "its answer was lost"
    assert world.noted() == {0: FIRST}
    assert world.pull().checkpoints == ((0, FIRST),)


@pytest.mark.parametrize(
    ("declared", "left"),
    [
        (False, ((0, FIRST),)),
        (True, ((1, FIRST),)),
    ],
)
def test_a_strange_one_makes_the_report_malformed(
    *, declared: bool, left: tuple[tuple[int, object]]
) -> None:
    world = World()
    lease = held(world, checkpoint=declared)
    assert evict(world, lease, checkpoints=left) == "malformed"
    assert world.noted() == {}


def test_too_large_ones_too_many_or_two_of_a_task_make_it_malformed() -> None:
    world = World()
    lease = held(world, count=1)
    good = Done(lease=lease.lease, job=lease.job, submitter=lease.submitter, final=False)
    large = archive(bounds.CHECKPOINT_BYTES_MAX + 1)
    many = tuple((number, archive(number)) for number in range(bounds.CHECKPOINTS_MAX + 1))
    for left in (((0, large),), ((0, FIRST), (0, SECOND)), many, ((-1, FIRST),)):
        payload = encode(good.model_copy(update={"checkpoints": left}))
        assert world.verdict(world.report_raw(payload)) == "malformed"
    assert world.noted() == {}
    assert world.run(lease) == "committed"


def test_one_job_leaves_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINTS_MAX", 2)
    world = World()
    lease = held(world)
    for left in (FIRST, SECOND, THIRD):
        reply = world.report(lease, [], final=False, checkpoints=((0, left),))
        assert world.verdict(reply) == "committed"
    assert len(world.results) == 2
    evict(world, lease)
    assert world.pull().checkpoints == ((0, SECOND),)


def test_a_repeated_one_is_noted_once() -> None:
    world = World()
    lease = held(world)
    for _ in range(3):
        world.report(lease, [], final=False, checkpoints=((0, FIRST),))
    assert len(world.results) == 1


# restarts


def test_a_note_says_who_has_stored_it_and_when_where_its_version_did() -> None:
    by_desk = FIRST.model_copy(update={"by": L1, "week": 2960})
    noted = CheckpointsSummary(((0, by_desk), (1, SECOND)), 1)
    assert CheckpointsSummary.load({SUMMARY_HEADER: noted.dump()}) == noted
    former = CheckpointsSummary._read({"c": [[0, FIRST.sha256, FIRST.size_bytes, L1]], "a": 1})
    assert former.checkpoints == ((0, FIRST.model_copy(update={"by": L1})),)
    assert CheckpointsSummary._read({"c": [[1, SECOND.sha256, 2]], "a": 1}).checkpoints == (
        (1, SECOND),
    )


def test_it_survives_a_restart_of_the_broker() -> None:
    world = World()
    lease = held(world)
    evict(world, lease, checkpoints=((0, FIRST),))
    world.work.clear()  # the next lease was not stored before the crash
    world.start()
    (status,) = world.query().jobs
    assert status.state == "running"
    world.offer(L2)
    again = world.pull()
    assert (again.attempt, again.checkpoints) == (2, ((0, FIRST),))
    evict(world, again, L2, checkpoints=((0, SECOND),))
    world.work.clear()
    world.start()
    world.offer(L1)
    assert world.pull().checkpoints == ((0, SECOND),)
    assert world.run(world.pull()) == "committed"
    assert world.refused_records == []


def test_a_lease_that_outlived_the_broker_is_lost_with_its_checkpoint_kept() -> None:
    world = World()
    evict(world, held(world), checkpoints=((0, FIRST),))
    again = world.pull()
    world.start()
    world.offer(L1, leases=[again])
    world.pass_time(3)
    world.offer(L2)
    (anew,) = world.queued()
    assert (anew.attempt, anew.checkpoints) == (3, ((0, FIRST),))


def test_after_a_restart_only_tasks_without_result_have_one() -> None:
    world = World()
    world.submit(job_spec(count=3, checkpoint=True))
    world.offer(slots=1)
    first, second = world.queued()[:2]
    world.report(first, [], final=False, checkpoints=((0, FIRST),))
    world.report(first, [ok(0)])
    world.ack(first)
    evict(world, second, checkpoints=((1, SECOND),))
    world.start()
    (job,) = world.broker.state.jobs
    assert job.checkpoints is not None
    assert job.checkpoints.of(RangeSet([(0, 3)])) == ((1, SECOND),)


@pytest.mark.parametrize("landed", [True, False])
def test_one_in_flight_at_the_crash_counts_if_it_landed(*, landed: bool) -> None:
    world = World(land_commits=False)
    lease = held(world)
    world.report(lease, [], outcome="evicted", checkpoints=((0, FIRST),))
    if landed:
        world.store(world.in_flight[0])
    world.land_commits = True
    world.work.clear()
    world.start()
    world.offer(L2)
    assert world.pull().checkpoints == (((0, FIRST),) if landed else ())
    evict(world, world.pull(), L2, checkpoints=((0, SECOND),))
    assert world.noted() == {0: SECOND}
    assert world.refused_records == []


@pytest.mark.parametrize("written", [{}, {"Lender-Record": '{"c":[[0,"x",1]],"a":1}'}])
def test_a_note_that_says_nothing_is_told_and_ignored(written: dict[str, str]) -> None:
    world = World()
    world.submit(job_spec(checkpoint=True))
    world.results[f"res.{ALICE.public_key}.job-0001.cp.0"] = (written, b"")
    world.start()
    assert len(world.warnings) == 1
    world.offer()
    assert world.pull().checkpoints == ()


def test_notes_of_an_ended_job_bring_nothing_back() -> None:
    world = World()
    lease = held(world)
    world.report(lease, [], final=False, checkpoints=((0, FIRST),))
    world.run(lease)
    world.start()
    world.offer()
    assert world.work == {}
    assert world.query().jobs[0].state == "succeeded"
