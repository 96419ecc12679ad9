"""In which order the jobs of one submitter, and of several, are served."""

import pytest
from broker_world import ALICE, BOB, L1, START, World, check_places, class_of, job_spec

from broker.core.events import ClockJumped, HearingLost
from broker.core.matching import groups
from lender.protocol.job import Limits
from lender.protocol.signature import Signer

ANY = [class_of(ALICE), class_of(BOB)]


def serve(world: World, count: int) -> list[str]:
    """The jobs in the order in which a lender of one slot gets them."""
    served = []
    world.offer(slots=1, classes=ANY)
    for _ in range(count):
        lease = world.pull()
        served.append(lease.job)
        world.run(lease)
    return served


def test_a_step_of_priority_is_worth_a_minute() -> None:
    world = World()
    for job, age_s, priority in (
        ("older-001", 130.0, 0),
        ("plain-001", 0.0, 0),
        ("urgent-01", 0.0, 2),
        ("urgent-02", 0.0, 3),
        ("modest-01", 500.0, -100),
    ):
        world.submit(job_spec(job=job, created_at=START - age_s, priority=priority))
    assert serve(world, 5) == ["urgent-02", "older-001", "urgent-01", "plain-001", "modest-01"]


def test_priority_counts_between_groups_of_a_submitter_and_not_between_submitters() -> None:
    world = World()
    for number in range(3):
        at = START + number / 8
        small = {"limits": Limits(memory_bytes=1 << 28), "priority": number - 1}
        world.submit(job_spec(job=f"plain-00{number}", created_at=at))
        world.submit(job_spec(job=f"small-00{number}", created_at=at + 0.01, **small))
        world.submit(job_spec(BOB, f"bobs-000{number}", priority=-100), BOB)
    served = serve(world, 9)
    mine = [job[-5:] for job in served if not job.startswith("bobs")]
    assert mine == ["l-002", "n-000", "n-001", "l-001", "n-002", "l-000"]
    assert [job[:4] for job in served[:6]].count("bobs") == 3


def test_a_job_of_high_priority_goes_before_what_has_been_waiting() -> None:
    world = World()
    world.offer(slots=1, classes=ANY)
    for number in range(10):
        world.submit(job_spec(job=f"plain-00{number}"))
    world.submit(job_spec(job="urgent-01", priority=1))
    world.run(world.pull())
    assert world.queued()[-1].job == "urgent-01"


def test_a_job_waits_for_its_day() -> None:
    world = World()
    world.submit(job_spec(not_before=START + 100, count=3))
    world.offer()
    assert world.work == {}
    world.pass_time(99)
    world.offer()
    assert world.work == {}
    assert world.broker.next_deadline() is not None
    world.pass_time(1)
    assert len(world.work) == 3
    check_places(world)


@pytest.mark.parametrize("by_s", [-3600.0, 3600.0])
def test_the_day_comes_by_the_calendar(by_s: float) -> None:
    world = World()
    world.submit(job_spec(not_before=START + 1800))
    world.now += by_s
    world.do(ClockJumped(by_s))
    world.offer()
    assert len(world.work) == (1 if by_s > 0 else 0)
    while world.now < START + 1799:
        world.pass_time(10)
        world.offer()
        assert len(world.work) == (1 if by_s > 0 or world.now >= START + 1800 else 0)


def test_a_jump_forwards_does_not_cut_a_job_s_turn_aside_short() -> None:
    world = World()
    world.submit(job_spec())
    world.offer(slots=1)
    world.offer(BOB.public_key, slots=1, phase="paused")
    lease = world.pull()
    world.report(lease, [], L1, outcome="refused", reason="no")
    world.ack(lease)
    world.pass_time(0.12)
    world.now += 3600
    world.do(ClockJumped(3600.0))
    assert world.work == {}
    world.pass_time(0.1)
    assert len(world.work) == 1


def test_a_day_to_come_outlives_the_broker() -> None:
    world = World()
    world.submit(job_spec(not_before=START + 100))
    world.start()
    world.offer()
    assert world.work == {}
    world.pass_time(101)
    world.offer()
    assert len(world.work) == 1


def test_waiting_for_a_day_is_no_waiting_in_line() -> None:
    world = World()
    world.submit(job_spec(job="day-0001", created_at=START - 1000, not_before=START + 10))
    for number in range(4):
        world.submit(job_spec(job=f"plain-00{number}"))
    world.pass_time(20)
    assert serve(world, 5)[-1] == "day-0001"


def test_jobs_that_are_cancelled_leave_nothing_behind() -> None:
    world = World()
    for number in range(300):
        world.submit(job_spec(job=f"job-{number:04d}"))
    (group,) = world.broker.state.backlog._groups.values()
    for number in range(299, 1, -1):
        world.cancel(f"job-{number:04d}")
    assert len(group._line) < 100
    assert serve(world, 2) == ["job-0000", "job-0001"]
    assert group.first is None
    assert world.broker.state.backlog.turns.first() is None


def test_what_was_learned_of_groups_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_GROUPS_SLACK", 10)
    world = World()
    world.offer(slots=1)
    world.submit(job_spec(job="waits-001", limits=Limits(cpu=200)))
    for number in range(100):
        limits = Limits(memory_bytes=(1 << 20) + number)
        world.submit(job_spec(job=f"job-{number:04d}", limits=limits))
        world.run(world.pull())
    kept = world.broker.state.backlog._groups
    assert len(kept) < 20
    assert any(need.cores == 200 for need in kept)


def late(world: World, signer: Signer, prefix: str, count: int) -> None:
    for number in range(count):
        world.submit(job_spec(signer, f"{prefix}-{number:04d}"), signer)


def test_who_was_away_saves_nothing_up() -> None:
    world = World()
    world.do(HearingLost())  # nobody has to be heard of every second
    late(world, ALICE, "alice", 60)

    def run(leases: int) -> list[str]:
        owners = []
        for _ in range(leases):
            lease = world.pull()
            owners.append(lease.submitter)
            world.offer(slots=1, classes=ANY, leases=[lease])
            world.pass_time(60)
            world.run(lease)
            world.offer(slots=1, classes=ANY)
        return owners

    world.offer(slots=1, classes=ANY)
    run(30)
    late(world, BOB, "bobby", 60)
    assert 4 <= run(12)[2:].count(BOB.public_key) <= 6
