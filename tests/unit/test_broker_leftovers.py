"""What lies in WORK though nobody answers for it any more is deleted, and nothing else is."""

from broker_world import L1, World, job_spec, ok

from broker.core.events import WorkSeen
from lender.protocol import subjects


def answered(world: World) -> None:
    """One lease whose ack was lost."""
    world.submit(job_spec())
    world.offer()
    lease = world.pull()
    assert world.verdict(world.report(lease, [ok()])) == "committed"
    assert len(world.work) == 1


def test_a_lease_whose_ack_was_lost_is_deleted() -> None:
    world = World()
    answered(world)
    world.look_through_work()
    assert world.work == {}
    assert "WORK 1" in world.warnings[0]


def test_what_is_no_lease_at_all_is_deleted() -> None:
    world = World()
    world.do(WorkSeen(((7, b"\xc1"),)))
    assert world.deleted == [7]


def test_leases_that_wait_or_are_held_stay() -> None:
    world = World()
    world.submit(job_spec(count=3))
    world.offer(slots=2)
    world.offer(leases=[world.pull()])
    before = dict(world.work)
    world.look_through_work()
    assert world.work == before
    assert not world.in_flight
    assert not world.deleted


def test_nothing_is_deleted_before_a_commit_has_shown_that_nobody_else_leads() -> None:
    world = World()
    answered(world)
    world.land_commits = False
    world.look_through_work()
    assert len(world.work) == 1
    (proof,) = world.in_flight[0].records
    assert proof.subject.startswith(subjects.TERM_PREFIX)
    world.land()
    assert world.work == {}
    world.start()
    assert world.query().jobs[0].state == "succeeded"


def test_a_lender_that_comes_back_to_a_deleted_lease_is_answered_as_before() -> None:
    world = World()
    world.submit(job_spec())
    world.offer(L1)
    lease = world.pull()
    world.report(lease, [ok()])
    world.look_through_work()
    assert world.verdict(world.report(lease, [ok()])) == "committed"
