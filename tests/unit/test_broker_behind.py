"""What waits behind tasks that take far longer than was expected gets to machines that lie idle."""

import pytest
from broker_world import (
    ALICE,
    BOB,
    L1,
    L2,
    L3,
    LENDERS,
    World,
    archive,
    bad,
    check_places,
    class_of,
    job_spec,
    ok,
    picture,
)

from broker.core.matching.groups import LEARNT_MIN
from lender.protocol.job import Verify
from lender.protocol.lease import Lease

BOTH = [class_of(ALICE), class_of(BOB)]
LONG_S = 10.0


class Machine:
    """Runs the tasks of one lease at a time, in their order, each as long as the others."""

    def __init__(self, world: World, lender: str) -> None:
        self.lender = lender
        self.lease: Lease | None = None
        self._world = world
        self._left: list[int] = []
        self._begun_at = 0.0

    def go_on(self, taken: set[str]) -> None:
        """Report what is done, and take what waits that no other machine has taken."""
        world = self._world
        if self.lease is not None and self.lease.lease in world.cancelled(self.lender):
            self.lease = None
        if self.lease is not None and world.now >= self._begun_at + LONG_S:
            task, self._begun_at = self._left.pop(0), world.now
            world.report(self.lease, [ok(task, LONG_S)], self.lender, final=not self._left)
            if not self._left:
                world.ack(self.lease)
                self.lease = None
        if self.lease is None:
            waiting = (one for one in world.queued() if one.lease not in taken)
            self.lease = next((one for one in waiting if not one.is_barred(self.lender)), None)
            self._left = self.lease.tasks() if self.lease else []
            self._begun_at = world.now
        held = [self.lease] if self.lease else []
        world.offer(self.lender, slots=1, classes=BOTH, leases=held)


def taught() -> World:
    """A world with one machine that has run such jobs, each in a moment."""
    world = World()
    world.offer(L1, classes=BOTH, slots=1)
    for number in range(LEARNT_MIN):
        world.submit(job_spec(job=f"short-{number:04d}"))
        world.run(world.pull(), L1, duration_s=0.001)
        world.offer(L1, classes=BOTH, slots=1)
    return world


def makespan_s(world: World, machines: int) -> float:
    """Return how long so many machines take until the job has ended."""
    began, fleet = world.now, [Machine(world, one) for one in LENDERS[:machines]]
    while world.terminal() is None:
        assert world.now < began + 10_000.0
        for one in fleet:
            one.go_on({other.lease.lease for other in fleet if other.lease})
        check_places(world)
        world.pass_time(0.5)
    assert world.refused_records == []
    return world.now - began


@pytest.mark.parametrize("foretold_s", [None, 0.001], ids=["usual", "foretold"])
@pytest.mark.parametrize("count", [8, 100])
def test_a_wrong_guess_costs_little(count: int, foretold_s: float | None) -> None:
    world = taught()
    world.submit(job_spec(count=count, expected_s=foretold_s))
    assert world.pull().task_count > 1, "it was guessed"
    assert makespan_s(world, 4) <= 1.2 * count / 4 * LONG_S
    end = world.terminal()
    assert end is not None
    assert end.tasks_succeeded == count


def long_lease(world: World, **fields: object) -> Lease:
    """L1 has begun with the first of several tasks, which takes long; all others are with L3."""
    world.submit(job_spec(count=40, **fields))
    lease = world.pull()
    assert lease.task_count > 4
    world.offer(L1, classes=BOTH, slots=1, leases=[lease])
    world.offer(L3, classes=BOTH, slots=20)
    hold_others(world, lease)
    assert not any(job.pending for job in world.broker.state.jobs)
    return lease


def hold_others(world: World, lease: Lease) -> None:
    others = [one for one in world.queued() if one.lease != lease.lease and not one.not_for]
    world.offer(L3, classes=BOTH, slots=len(others), leases=others)


def stay(world: World, lease: Lease, seconds: float, **idle: object) -> list[Lease]:
    """Let time pass while L2 lies idle; returns what of the lease's was leased once more."""
    for _ in range(round(2 * seconds)):
        world.offer(L1, classes=BOTH, slots=1, leases=[lease])
        hold_others(world, lease)
        world.offer(L2, **{"classes": BOTH, "slots": 1, **idle})
        world.pass_time(0.5)
    check_places(world)
    return [
        one
        for one in world.queued()
        if set(one.tasks()) & set(lease.tasks()) and one.lease != lease.lease
    ]


def test_they_are_taken_from_the_end_each_by_itself() -> None:
    world = taught()
    lease = long_lease(world)
    moved = stay(world, lease, 3.0, slots=3)
    assert [one.tasks() for one in moved] == [[one] for one in lease.tasks()[:-4:-1]]
    assert all(one.is_barred(L1) and one.attempt == lease.attempt + 1 for one in moved)


def test_a_lease_of_which_nothing_is_left_is_cancelled() -> None:
    world = taught()
    lease = long_lease(world)
    world.report(lease, [ok(one, LONG_S) for one in lease.tasks()[:-1]], L1, final=False)
    last = lease.tasks()[-1]
    assert world.broker.state.leases[lease.lease].covers(last)
    assert stay(world, lease, 3.0) == [], "nothing waits behind it"
    world.start()
    check_places(world)


def test_the_first_word_on_each_counts() -> None:
    world = taught()
    lease = long_lease(world)
    (moved,) = stay(world, lease, 3.0)
    (task,) = moved.tasks()[-1:]
    world.offer(L2, classes=BOTH, slots=1, leases=[moved])
    assert world.run(moved, L2) == "committed"
    check_places(world)
    reply = world.report(lease, [bad(one) for one in lease.tasks()], L1)
    assert world.verdict(reply) == "committed"
    assert {one.task: one.state for one in world.tasks()}[task] == "succeeded"
    check_places(world)


def test_they_stay_where_others_wait_for_the_room() -> None:
    world = taught()
    lease = long_lease(world)
    moved = stay(world, lease, 3.0, slots=3)
    assert moved
    world.submit(job_spec(job="other-00001", count=40))
    check_places(world)
    still = {one.lease for one in world.queued()}
    assert still.isdisjoint(one.lease for one in moved)


@pytest.mark.parametrize("idle", [{"slots": 0}, {"classes": []}], ids=["busy", "not of it"])
def test_they_stay_where_nobody_could_begin(idle: dict[str, object]) -> None:
    world = taught()
    assert stay(world, long_lease(world), 5.0, **idle) == []


def test_they_stay_where_the_only_idle_machine_refused_the_job() -> None:
    world = taught()
    lease = long_lease(world)
    (moved,) = stay(world, lease, 3.0)
    world.report(moved, [], L2, outcome="refused", reason="too large", field="limits.prepare_s")
    world.ack(moved)
    assert stay(world, lease, 3.0) == []


def test_they_stay_where_a_second_of_work_is_as_was_foretold() -> None:
    world = taught()
    assert stay(world, long_lease(world, expected_s=0.1), 1.5) == []


def test_they_stay_where_answers_have_to_agree() -> None:
    """Whoever has such a task is known: others are asked for theirs otherwise."""
    world = World()
    world.submit(job_spec(count=40, expected_s=1e-5, verify=Verify()))
    held: dict[str, list[Lease]] = {L1: [], L2: []}
    for _ in range(12):
        for lender, leases in held.items():
            world.offer(lender, slots=len(leases) + 2, leases=leases)
            taken = {one.lease for both in held.values() for one in both}
            waiting = (one for one in world.queued() if one.lease not in taken)
            leases.extend(one for one in waiting if not one.is_barred(lender))
            world.offer(lender, slots=len(leases) + 2, leases=leases)
    assert not any(job.pending for job in world.broker.state.jobs)
    assert max(one.task_count for one in held[L1]) > 4
    leased = world.broker.state.figures.tasks_leased
    for _ in range(4):
        for lender, leases in held.items():
            world.offer(lender, slots=len(leases), leases=leases)
        world.offer(L3, slots=1)
        world.pass_time(1.0)
    assert world.broker.state.figures.tasks_leased - leased <= 40 // 10


def test_a_start_knows_of_all_that_have_a_part_of_it() -> None:
    world = taught()
    lease = long_lease(world)
    moved = stay(world, lease, 3.0, slots=4)
    assert len(moved) > 2
    anew = world.copy()
    anew.start()
    follower = world.stand_by()
    follower.follow()
    world.take_over(follower)
    assert picture(world) == picture(anew)
    check_places(world)
    live = world.broker.state.leases[lease.lease]
    assert all(one.tasks()[0] in live.open for one in moved)
    for one in moved:
        world.offer(L2, classes=BOTH, slots=4, leases=[one])
        assert world.run(one, L2) == "committed"
    assert len(live.open) == lease.task_count - len({t for one in moved for t in one.tasks()})


def test_what_goes_on_from_a_checkpoint_takes_it_along() -> None:
    world = taught()
    lease = long_lease(world, checkpoint=True)
    last = lease.tasks()[-1]
    world.report(lease, [], L1, final=False, checkpoints=((last, archive(1)),))
    moved = stay(world, lease, 3.0, slots=3)
    assert [dict(one.checkpoints) for one in moved if last in one.tasks()] == [{last: archive(1)}]
