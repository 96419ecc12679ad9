"""How long a job waits for somebody to begin with it: `queue_s`."""

import pytest
from broker_world import ALICE, L1, START, World, job_spec

from broker.core.events import ClockJumped, HearingRestored
from lender.protocol.job import After
from lender.protocol.lease import Outcome
from lender.protocol.result import Terminal

A, B, C = (f"job-000{n}" for n in range(1, 4))


def submit(world: World, job: str, **fields: object) -> None:
    world.submit(job_spec(**{"job": job, "created_at": world.now, **fields}))


def ended(world: World, job: str) -> Terminal:
    terminal = world.terminal(job)
    assert terminal is not None, f"{job} has not ended"
    return terminal


def test_time_in_the_queue_begins_when_the_last_predecessor_has_ended() -> None:
    world = World()
    submit(world, B, after=(After(job=A, on="success"),), queue_s=60.0)
    submit(world, A)
    world.pass_time(1000)
    world.offer()
    world.run(world.pull())
    world.offer(phase="paused")
    before = world.now
    world.pass_time(30)
    world.start()
    world.pass_time(29)
    assert world.terminal(B) is None
    world.pass_time(4 + 1)
    assert (ended(world, B).state, ended(world, B).field) == ("expired", "queue_s")
    assert ended(world, B).finished_at >= before + 60


def test_a_job_expires_that_nobody_begins_with_in_time() -> None:
    world = World()
    submit(world, A, queue_s=60.0)
    submit(world, B, queue_s=60.0, not_before=START + 100)
    world.pass_time(59)
    assert world.terminal(A) is None
    world.pass_time(2)
    assert (ended(world, A).state, ended(world, A).field) == ("expired", "queue_s")
    assert ended(world, A).reason == "no task of it had begun after 60 s in the queue"
    world.pass_time(98)
    assert world.terminal(B) is None
    world.pass_time(2)
    assert ended(world, B).field == "queue_s"


def test_one_that_came_too_late_for_its_time_in_the_queue_expires_at_once() -> None:
    world = World()
    world.offer()
    submit(world, A, queue_s=60.0, created_at=world.now - 61)
    assert ended(world, A).field == "queue_s"
    assert world.work == {}


@pytest.mark.parametrize("outcome", ["evicted", "refused", "revoked"])
def test_a_lender_that_hands_it_back_unheld_has_not_begun_with_it(outcome: Outcome) -> None:
    """Its owner paused it in the moment in which the lease came."""
    world = World()
    submit(world, A, queue_s=60.0)
    world.offer()
    lease = world.pull()
    assert world.verdict(world.report(lease, [], outcome=outcome)) == "committed"
    world.ack(lease)
    assert world.query(A).jobs[0].state == "queued"
    world.offer(phase="paused")
    world.pass_time(61)
    assert ended(world, A).field == "queue_s"
    assert world.verdict(world.report(lease, [], outcome=outcome)) == "committed"


@pytest.mark.parametrize("restarts", [False, True])
def test_once_begun_it_may_take_its_time(*, restarts: bool) -> None:
    """Also where nothing but the broker's note is left of what was begun."""
    world = World()
    submit(world, A, queue_s=60.0)
    world.offer()
    lease = world.pull()
    world.offer(leases=[lease])
    world.report(lease, [], outcome="evicted")
    world.ack(lease)
    if restarts:
        world.work.clear()
        world.start()
    world.pass_time(1000)
    assert world.terminal(A) is None
    world.offer()
    world.run(world.pull())
    assert ended(world, A).state == "succeeded"
    assert world.refused_records == []


def test_who_holds_a_lease_has_the_time_to_tell_a_new_broker() -> None:
    world = World()
    submit(world, A, queue_s=60.0)
    world.offer()
    lease = world.pull()
    world.now += 1000
    world.start()
    world.pass_time(1)
    assert world.terminal(A) is None
    world.offer(leases=[lease])
    world.pass_time(2)
    assert world.run(lease) == "committed"


def test_while_nobody_can_be_heard_nobody_is_too_late() -> None:
    world = World()
    submit(world, A, queue_s=60.0)
    world.offer()
    lease = world.pull()
    world.broker.state.deaf = True
    world.pass_time(100)
    assert world.terminal(A) is None
    world.do(HearingRestored())
    world.pass_time(1)
    world.offer(leases=[lease])
    world.pass_time(10)
    assert world.terminal(A) is None


@pytest.mark.parametrize("by_s", [-500.0, 500.0])
def test_a_clock_that_jumps_takes_no_time_in_the_queue(by_s: float) -> None:
    world = World()
    submit(world, A, queue_s=60.0)
    submit(world, B, queue_s=60.0, not_before=START + 2000)
    submit(world, C, queue_s=60.0, not_before=START + 100)
    world.pass_time(30)
    world.now += by_s
    world.do(ClockJumped(by_s))
    world.pass_time(29)
    assert world.terminal(A) is None
    world.pass_time(2)
    assert ended(world, A).field == "queue_s"
    if by_s > 0:
        assert world.terminal(C) is None, "its day has come with the jump"
        world.pass_time(30)
        assert ended(world, C).field == "queue_s"
    world.pass_time(START + 2059 - world.now)
    assert world.terminal(B) is None
    world.pass_time(2)
    assert ended(world, B).field == "queue_s"


def test_the_first_lender_that_holds_it_counts() -> None:
    world = World()
    submit(world, A, queue_s=60.0, count=2)
    world.offer()
    lease = world.pull()
    world.offer(leases=[lease])
    assert world.results.keys() == {f"res.{ALICE.public_key}.{A}.begun"}
    assert world.broker.state.leases[lease.lease].holder == L1
    world.pass_time(0)
    world.offer(leases=[lease])
    assert len(world.results) == 1
