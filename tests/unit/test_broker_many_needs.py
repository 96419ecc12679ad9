"""However many different machines a submitter asks for, nobody else waits for that."""

import pytest
from broker_world import ALICE, BOB, L1, L2, World, class_of, job_spec

from broker.core.answers import why
from broker.core.events import SubmittersChanged
from broker.core.intake.quotas import DEFAULT
from broker.core.leasing import feed
from lender.protocol.job import Limits, Requires
from lender.protocol.signature import Signer

ANY = [class_of(ALICE), class_of(BOB)]
GIB = 1 << 30
MANY = 100
LOOKS = 16
"""In vain, that one submitter may cost after one event; of what comes back itself as many."""


def submit(
    world: World, number: int, memory_bytes: int, signer: Signer = BOB, **fields: object
) -> str:
    job = f"job-{number:05d}"
    limits = Limits(memory_bytes=memory_bytes)
    world.submit(job_spec(signer, job, limits=limits, created_at=world.now, **fields), signer)
    return job


def submit_too_large(world: World, count: int = MANY, signer: Signer = BOB) -> None:
    for number in range(count):
        submit(world, number, 200 * GIB + number, signer)


def offer(world: World, lender: str = L1, slots: int = 1, **fields: object) -> None:
    world.offer(lender, slots=slots, classes=ANY, memory_free_bytes=16 * GIB, **fields)


def jobs_out(world: World) -> list[str]:
    return [lease.job for lease in world.queued()]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that a place is looked for from now on."""
    looked_at = []

    def look(fleet, group, job, now, barred=()):  # noqa: ANN001, ANN202 - as `choose`
        looked_at.append(job.key.job)
        return choose(fleet, group, job, now, barred)

    choose = feed.choose
    monkeypatch.setattr(feed, "choose", look)
    return looked_at


def test_another_s_work_goes_on_beside_a_thousand_needs_that_fit_nowhere(looks: list[str]) -> None:
    world = World()
    offer(world)
    submit_too_large(world, 1_000)
    world.submit(job_spec(ALICE, count=20), ALICE)
    for _ in range(20):
        assert "job-0001" in jobs_out(world)
        looks.clear()
        world.run(world.pull(class_of(ALICE)))
        assert len(looks) <= 2 * LOOKS
        looks.clear()
        offer(world)
        assert len(looks) <= LOOKS
    assert world.terminal("job-0001", ALICE) is not None


def test_what_fits_is_found_among_many_that_do_not(looks: list[str]) -> None:
    world = World()
    submit_too_large(world)
    fits = submit(world, MANY, GIB)
    looks.clear()
    offer(world)
    assert len(looks) <= LOOKS
    world.pass_time(2 * MANY * feed.LOOK_ON_S)
    assert jobs_out(world) == [fits]
    looks.clear()
    world.pass_time(2.0)
    assert looks == [], "all have been looked at, and nothing has happened since"


def test_what_was_left_out_takes_little_time_however_many_submitters_it_is_of(
    looks: list[str],
) -> None:
    world = World()
    fits = []
    for signer in (ALICE, BOB):
        submit_too_large(world, signer=signer)
        fits.append(submit(world, MANY, GIB, signer))
    offer(world, slots=4)
    for _ in range(2 * MANY):
        looks.clear()
        world.pass_time(feed.LOOK_ON_S)
        assert len(looks) <= feed.LOOKS_ON
    assert jobs_out(world) == fits
    assert not world.broker.state.backlog.turns.owed


def test_what_fits_has_its_turn_while_another_takes_whatever_is_free() -> None:
    world = World()
    submit_too_large(world)
    fits = submit(world, MANY, GIB)
    world.submit(job_spec(ALICE, count=1_000), ALICE)
    offer(world)
    for _ in range(MANY):
        world.run(world.pull())
        offer(world)
        if fits in jobs_out(world):
            return
    pytest.fail("it was never its turn")


def test_many_needs_that_fit_are_served_in_their_order() -> None:
    world = World()
    wanted = []
    for number in range(MANY):
        world.now += 1.0
        wanted.append(submit(world, number, GIB + number, priority=3 if number == 40 else 0))
    wanted.insert(0, wanted.pop(40))
    served = []
    offer(world)
    while world.queued():
        lease = world.pull()
        served.append(lease.job)
        world.run(lease)
    assert served == wanted


def test_the_first_jobs_are_looked_at_whenever_there_is_room() -> None:
    """What they wait for is there for a moment, and others would take it."""
    world = World()
    world.submit(job_spec(ALICE, count=1_000), ALICE)
    first = submit(world, 0, 16 * GIB + 1)
    for number in range(1, MANY):
        world.now += 1.0
        submit(world, number, 200 * GIB + number)
    for more_bytes in (0, 0, 0, 1):
        world.offer(slots=1, classes=ANY, memory_free_bytes=16 * GIB + more_bytes)
        world.run(world.pull())
        assert (first in jobs_out(world)) == bool(more_bytes)


def test_who_may_have_more_out_has_all_its_needs_looked_at() -> None:
    world = World()
    both = frozenset((ALICE.public_key, BOB.public_key))
    quota = DEFAULT._replace(running_tasks_max=1)
    world.do(SubmittersChanged(both, {}, {BOB.public_key: quota}))
    offer(world, slots=8)
    first = submit(world, MANY, GIB)
    submit_too_large(world)
    second = submit(world, MANY + 1, GIB + 1)
    assert jobs_out(world) == [first]
    world.do(SubmittersChanged(both, {}, {}))
    world.pass_time(2 * MANY * feed.LOOK_ON_S)
    assert jobs_out(world) == [first, second]


def test_a_start_looks_at_all_in_the_end() -> None:
    world = World()
    submit_too_large(world)
    fits = submit(world, MANY, GIB)
    world.start()
    offer(world)
    world.pass_time(2 * MANY * feed.LOOK_ON_S)
    assert jobs_out(world) == [fits]


def test_jobs_that_end_are_owed_no_look(looks: list[str]) -> None:
    world = World()
    submit_too_large(world)
    offer(world)
    for number in range(MANY):
        world.cancel(f"job-{number:05d}", BOB)
    looks.clear()
    world.pass_time(2.0)
    assert looks == []
    assert not world.broker.state.backlog.turns.owed


def test_leases_of_many_needs_that_a_lender_leaves_behind_are_counted_by_and_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "CLAIM_LOOKS_MAX", 3)
    looked_at = []

    def look(fleet, group, tier):  # noqa: ANN001, ANN202 - as `first_with_room`
        looked_at.append(group.number)
        return first_with_room(fleet, group, tier)

    first_with_room = feed.first_with_room
    monkeypatch.setattr(feed, "first_with_room", look)
    world = World()
    offer(world, slots=20, labels=("ssd",))
    for number in range(40):
        labels = Requires(labels=("ssd",) if number < 30 else ())
        submit(world, number, (1 << 20) + number, requires=labels)
    leases = world.broker.state.leases
    assert len(leases) == 40
    offer(world, slots=20, phase="offline")
    assert {lease.claim for lease in leases} == {None}
    for turn in range(40):
        looked_at.clear()
        offer(world, L2, slots=20 + turn % 2)
        assert len(set(looked_at)) <= 3
    claimed = [lease.job.job for lease in leases if lease.claim == L2]
    assert sorted(claimed) == [f"job-{number:05d}" for number in range(30, 40)]


def test_why_they_wait_is_worked_out_for_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(why, "LOOKS_MAX", 4)
    world = World()
    offer(world)
    offer(world, L2)
    submit_too_large(world, 5)
    told = [one.why for one in world.query(signer=BOB).jobs]
    assert [one.startswith("no machine matches") for one in told] == [True, True] + [False] * 3
    assert told[2:] == ["not looked into beside so many others: ask for this job alone"] * 3
    assert world.query("job-00000", BOB).jobs[0].why.startswith("no machine matches")


def test_why_many_gangs_wait_is_worked_out_for_some_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(why, "LOOKS_MAX", 9)
    world = World()
    offer(world)
    for number in range(4):
        submit(world, number, GIB, count=5, gang=True)
    told = [one.why for one in world.query(signer=BOB).jobs]
    assert ["a gang of 5" in one for one in told] == [True, True, False, False]
