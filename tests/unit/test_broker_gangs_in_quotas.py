"""Gangs of a submitter who may have so many tasks at once."""

from broker_world import ALICE, BOB, L1, World, check_places, job_spec
from gangs import ANY, gang, take, tasks, why

from broker.core.events import (
    SubmittersChanged,
)
from broker.core.intake.quotas import DEFAULT
from lender.protocol.job import Requires

_ONE = DEFAULT._replace(running_tasks_max=1)


def test_a_gang_waits_until_its_submitter_may_have_all_of_it() -> None:
    world = World()
    quotas = {ALICE.public_key: DEFAULT._replace(running_tasks_max=3)}
    world.do(SubmittersChanged(world.submitters, {}, quotas))
    world.offer(L1, classes=ANY, slots=8)
    world.submit(job_spec())
    world.submit(job_spec(job="job-0002"))
    first, second = world.queued()
    world.submit(gang(2))
    assert why(world) == "a gang of 2: no more than 1 of your tasks may be handed out now"
    world.run(first)
    world.pass_time(1.0)
    world.run(second)
    leases = world.queued()
    assert tasks(leases) == [0, 1]
    # One comes back while the submitter may have no more.
    world.submit(job_spec(job="job-0003"))
    world.do(SubmittersChanged(world.submitters, {}, quotas | {ALICE.public_key: _ONE}))
    world.report(leases[0], [], outcome="evicted")
    world.ack(leases[0])
    assert tasks([one for one in world.queued() if one.job == "gang-0001"]) == [1]
    world.do(SubmittersChanged(world.submitters, {}, quotas))
    world.pass_time(1.0)
    assert tasks([one for one in world.queued() if one.job == "gang-0001"]) == [0, 1]


def capped(most: int) -> World:
    """Alice may have so many tasks handed out; L1 has room for more."""
    world = World()
    quotas = {ALICE.public_key: DEFAULT._replace(running_tasks_max=most)}
    world.do(SubmittersChanged(world.submitters, {}, quotas))
    world.offer(L1, classes=ANY, slots=8)
    return world


def stream(world: World, until: str, steps: int = 40) -> bool:
    """Go on sending single jobs of which one ends in each step; tells whether a gang was leased."""
    for number in range(steps):
        world.submit(job_spec(job=f"more-{number:04d}", created_at=world.now))
        world.pass_time(0.5)
        world.offer(L1, classes=ANY, slots=8)
        if any(one.job == until for one in world.queued()):
            return True
        for lease in world.queued()[:1]:
            world.run(lease)
        check_places(world)
    return False


def test_other_work_of_its_submitter_keeps_no_gang_waiting_for_ever() -> None:
    world = capped(3)
    for number in range(5):
        world.submit(job_spec(job=f"job-{number:04d}"))
    world.submit(gang(3, created_at=world.now + 0.1))
    assert stream(world, "gang-0001")
    assert {one.job for one in world.queued()} == {"gang-0001"}
    assert tasks(world.queued()) == [0, 1, 2]
    world.cancel("gang-0001")
    world.pass_time(1.0)
    world.offer(L1, classes=ANY, slots=8)
    assert len(world.queued()) == 3, "the others go on"


def test_what_a_gang_leaves_of_a_quota_others_may_use() -> None:
    world = capped(4)
    for number in range(3):
        world.submit(job_spec(job=f"job-{number:04d}"))
    world.submit(gang(2, created_at=world.now + 0.1))
    world.pass_time(1.0)
    world.submit(job_spec(job="job-0003", created_at=world.now))
    assert "a gang of yours comes first" in why(world, "job-0003")
    world.run(world.queued()[1])
    world.pass_time(1.0)
    world.offer(L1, classes=ANY, slots=8)
    leased = [one.job for one in world.queued()]
    assert sorted(leased) == ["gang-0001", "gang-0001", "job-0000", "job-0002"]


def test_nothing_is_kept_for_a_gang_that_no_machines_are_there_for() -> None:
    world = capped(3)
    for number in range(5):
        world.submit(job_spec(job=f"job-{number:04d}"))
    world.submit(gang(3, created_at=world.now + 0.1, requires=Requires(labels=("farm",))))
    world.run(world.queued()[0])
    world.pass_time(2.0)
    world.offer(L1, classes=ANY, slots=8)
    assert len(world.queued()) == 3


def test_a_member_that_came_back_does_not_wait_behind_other_work() -> None:
    world = capped(3)
    world.submit(gang(3))
    leases = world.queued()
    take(world, {L1: leases[:2]}, slots=8)
    for number in range(3):
        world.submit(job_spec(job=f"job-{number:04d}", created_at=world.now + 0.1))
    world.report(leases[2], [], outcome="refused")
    world.ack(leases[2])
    for _ in range(8):
        world.pass_time(0.5)
        take(world, {L1: leases[:2]}, slots=8)
    assert tasks([one for one in world.queued() if one.job == "gang-0001"]) == [0, 1, 2]


def test_a_gang_that_its_submitter_may_never_have_at_once_is_rejected() -> None:
    world = capped(3)
    world.submit(gang(4))
    terminal = world.terminal("gang-0001")
    assert terminal is not None
    assert (terminal.state, terminal.field) == ("rejected", "quota")
    assert "a gang of 4 can't ever run: you may have 3 tasks" in (terminal.reason or "")
    world.submit(gang(3, "gang-0002"))
    world.submit(gang(4, "gang-0003", BOB), BOB)
    world.submit(job_spec(job="job-0004", count=4))
    for job, signer in (("gang-0002", ALICE), ("gang-0003", BOB), ("job-0004", ALICE)):
        assert world.terminal(job, signer) is None
