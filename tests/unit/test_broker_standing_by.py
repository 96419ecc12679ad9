"""A broker that reads the streams along while another one leads, and then takes over."""

import pytest
from broker_world import ALICE, START, World, bad, check_places, job_spec, ok

from broker.core.broker import Broker
from broker.core.events import (
    CancelReplayed,
    JobReplayed,
    LeaseReplayed,
    LedgerRead,
    ReplayCompleted,
    ResultReplayed,
)
from broker.core.intake.quotas import DEFAULT
from lender.protocol import subjects


def live(broker: Broker) -> list[str]:
    return [job.key.job for job in broker.state.jobs]


def test_what_has_ended_meanwhile_is_forgotten_and_told_of() -> None:
    world = World()
    other = world.stand_by()
    for number in range(3):
        world.submit(job_spec(job=f"job-{number:04d}", name="mine"))
    other.follow()
    assert len(other.broker.state.jobs) == 3
    world.offer(slots=1)
    world.run(world.pull())
    world.cancel("job-0002")
    other.follow()
    assert live(other.broker) == ["job-0001"]
    world.take_over(other)
    states = {job.job: (job.state, job.name) for job in world.query().jobs}
    assert states["job-0000"] == ("succeeded", "mine")
    assert states["job-0002"] == ("cancelled", "mine")
    check_places(world)
    world.offer(slots=1)
    (lease,) = (one for one in world.queued() if one.job == "job-0001")
    assert world.run(lease) == "committed"
    assert world.refused_records == []


def test_leases_and_results_that_come_between_two_looks_count() -> None:
    world = World()
    other = world.stand_by()
    world.submit(job_spec(count=10))
    other.follow()
    world.offer(slots=2)
    world.run(world.pull())
    other.follow()
    world.offer(slots=2)
    held = world.pull()
    world.take_over(other)
    world.offer(slots=4, leases=[held])
    assert world.run(held) == "committed"
    while queued := world.queued():
        world.run(queued[0])
        world.offer(slots=4)
    assert world.terminal().tasks_succeeded == 10
    assert sorted(one.task for one in world.tasks()) == list(range(10))


@pytest.mark.parametrize("read", ["results", "jobs"])
def test_a_look_that_is_cut_short_is_gone_on_with(read: str) -> None:
    world = World()
    other = world.stand_by()
    world.submit(job_spec(count=4))
    world.offer(slots=2)
    world.run(world.pull())
    if read == "results":
        other.read_results()
    else:
        other.read_jobs()
    world.take_over(other)
    (job,) = world.broker.state.jobs
    assert job.succeeded == 1
    check_places(world)


def test_a_rejection_that_its_leader_has_committed_is_not_made_again() -> None:
    world = World(land_commits=False)
    other = world.stand_by()
    world.submit_raw(subjects.submit(ALICE.public_key, "job-0001"), {}, b"\xc1")
    other.follow()
    world.land()
    other.follow()
    world.take_over(other)
    assert world.terminal().state == "rejected"
    assert world.refused_records == []


def test_what_results_hold_of_jobs_that_are_gone_is_not_kept() -> None:
    world = World()
    world.submit(job_spec(count=2))
    world.submit(job_spec(job="job-0002"))
    world.offer(slots=3)
    for lease in world.queued()[:2]:
        world.run(lease)
    world.cancel("job-0002")
    results, jobs = dict(world.results), list(world.jobs)
    other = Broker(world.new_lease_id, world.submitters)
    for subject, (headers, _) in results.items():
        other.handle(START, ResultReplayed(subject, headers))
    other.handle(START, LedgerRead())
    # The stream has been purged, and takes the same names once more.
    for subject, headers, payload in jobs[:2]:
        other.handle(START, JobReplayed(subject, headers, payload))
    assert live(other) == ["job-0001", "job-0002"]
    other.handle(START, ReplayCompleted())
    assert [job.succeeded for job in other.state.jobs] == [0, 0]


def test_the_progress_of_a_job_that_the_ledger_told_of_since_is_kept() -> None:
    world = World()
    other = world.stand_by()
    world.submit(job_spec(count=3))
    world.offer(slots=1)
    world.run(world.pull())
    other.follow()
    other.follow()
    world.take_over(other)
    (job,) = world.broker.state.jobs
    assert job.succeeded == 1


def test_a_cancellation_that_came_before_its_job_is_not_forgotten_between_looks() -> None:
    world = World()
    other = world.stand_by()
    asked = subjects.cancel(ALICE.public_key, "job-0001")
    other.handle(CancelReplayed(asked))
    other.handle(LedgerRead())
    world.submit(job_spec())
    world.take_over(other)
    assert world.terminal().state == "cancelled"


def test_a_cancellation_of_what_goes_on_is_kept_until_it_has_ended() -> None:
    world = World(land_commits=False)
    world.submit(job_spec())
    world.offer()
    other = world.stand_by()
    world.cancel("job-0001")
    other.follow()
    assert live(other.broker) == ["job-0001"], "its end is not durable yet"
    world.land_commits = True
    world.take_over(other)
    assert world.terminal().state == "cancelled"
    other = world.stand_by()
    other.follow()
    world.take_over(other)
    assert live(world.broker) == []


def test_a_second_message_of_a_live_job_changes_nothing() -> None:
    world = World()
    other = world.stand_by()
    world.submit(job_spec(count=3))
    other.follow()
    other.handle(JobReplayed(*world.jobs[0]))
    world.take_over(other)
    world.offer(slots=4)
    while queued := world.queued():
        world.run(queued[0])
    assert world.terminal().tasks_succeeded == 3
    assert world.broker.state.quotas.full(ALICE.public_key) is None


def test_a_failure_that_was_final_is_known() -> None:
    world = World()
    other = world.stand_by()
    world.submit(job_spec(count=2))
    world.offer(slots=2)
    first, second = world.queued()
    world.report(first, [bad(first.tasks()[0])])
    other.follow()
    world.report(second, [ok(second.tasks()[0])])
    world.take_over(other)
    terminal = world.terminal()
    assert (terminal.tasks_succeeded, terminal.tasks_failed) == (1, 1)


def test_a_start_keeps_jobs_that_have_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for number in range(4):
        world.submit(job_spec(job=f"job-{number:04d}"))
    world.offer(slots=8)
    kept = {2: world.work[4]}
    monkeypatch.setattr("broker.core.intake.quotas.DEFAULT", DEFAULT._replace(jobs_max=2))
    broker = Broker(world.new_lease_id, world.submitters)
    for sequence, queued in kept.items():
        broker.handle(START, LeaseReplayed(sequence, queued.headers, queued.payload))
    put_off = [
        subject[-8:]
        for subject, *rest in world.jobs
        if broker.handle(START, JobReplayed(subject, *rest))
    ]
    broker.handle(START, ReplayCompleted())
    assert put_off == ["job-0002"]
    assert live(broker) == ["job-0000", "job-0001", "job-0003"]
    (lease,) = broker.state.leases
    assert lease.job.job == "job-0003"
