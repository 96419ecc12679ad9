"""Jobs that wait for others: in which order they are handed out, and how they end."""

from functools import partial
from itertools import pairwise

import pytest
from broker_world import ALICE, BOB, START, World, bad, check_places, job_spec

from broker.core.answers.why import Reasons
from broker.core.jobs import dependencies, following
from broker.core.jobs.endings import Endings
from broker.core.jobs.job import JobKey
from lender.protocol import subjects
from lender.protocol.job import After
from lender.protocol.result import Terminal
from lender.protocol.signature import Signer, seed_from_entropy

A, B, C, D = (f"job-000{n}" for n in range(1, 5))
STRANGER = Signer(seed_from_entropy(b"stranger" * 4))
KEY_C = JobKey(ALICE.public_key, C)


def submit(world: World, job: str, *after: str, **fields: object) -> None:
    """Submit a job that waits for others: `job` for its success, `job:end` for any end."""
    named = (one.partition(":")[::2] for one in after)
    waits = tuple(After(job=name, on=on or "success") for name, on in named)
    world.submit(job_spec(**{"job": job, "after": waits, "created_at": world.now, **fields}))


def why(world: World, job: str) -> str:
    return world.query(job).jobs[0].why


def ended(world: World, job: str) -> Terminal:
    terminal = world.terminal(job)
    assert terminal is not None, f"{job} has not ended"
    return terminal


def handed_out(world: World) -> list[str]:
    return [lease.job for lease in world.queued()]


def looks(monkeypatch: pytest.MonkeyPatch) -> list[JobKey]:
    """The jobs that the search for circles looks at from now on."""
    looked_at: list[JobKey] = []

    def look_at(submitter: str, job: str) -> JobKey:
        looked_at.append(JobKey(submitter, job))
        return looked_at[-1]

    monkeypatch.setattr(dependencies, "JobKey", look_at)
    return looked_at


def run_all(world: World) -> list[str]:
    """Run whatever is handed out; returns the jobs in that order."""
    ran = []
    while world.queued():
        lease = world.pull()
        ran.append(lease.job)
        world.run(lease)
        world.offer()
    return ran


def fail(world: World, job: str) -> None:
    lease = next(one for one in world.queued() if one.job == job)
    world.report(lease, [bad()])
    world.ack(lease)


def test_a_job_comes_after_all_that_it_waits_for() -> None:
    world = World()
    world.offer(slots=8)
    submit(world, D, B, C)
    submit(world, C, A)
    submit(world, B, A)
    assert handed_out(world) == []
    submit(world, A)
    check_places(world)
    ran = run_all(world)
    assert (ran[0], sorted(ran[1:3]), ran[3]) == (A, [B, C], D)


def test_one_that_has_ended_already_is_not_waited_for() -> None:
    world = World()
    world.offer()
    submit(world, A)
    run_all(world)
    submit(world, B, A, f"{A[:-1]}9")
    assert why(world, B).startswith(f"waits for job {A[:-1]}9 (not known: ")
    submit(world, C, A)
    assert handed_out(world) == [C]


def test_who_asked_for_success_is_cancelled_with_a_reason_and_so_are_its_own_followers() -> None:
    world = World()
    world.offer()
    submit(world, A)
    submit(world, B, A)
    submit(world, C, B)
    submit(world, D, B + ":end")
    fail(world, A)
    assert ended(world, A).state == "failed"
    assert (ended(world, B).state, ended(world, B).field) == ("cancelled", "after")
    assert ended(world, B).reason == f"it was to run after the success of job {A}, which failed"
    assert (
        ended(world, C).reason == f"it was to run after the success of job {B}, which was cancelled"
    )
    assert handed_out(world) == [D], "B has ended, and that is all that D asked for"


@pytest.mark.parametrize("how", ["cancelled", "expired", "rejected", "failed", "succeeded"])
def test_any_end_will_do_where_any_end_was_asked_for(how: str) -> None:
    world = World()
    submit(world, B, A + ":end")
    submit(world, C, A)
    if how == "rejected":
        world.submit_raw(f"submit.{ALICE.public_key}.{A}", {}, b"\xc1")
    else:
        submit(world, A, not_after=world.now + 100)
        if how == "cancelled":
            world.cancel(A)
        elif how == "expired":
            world.pass_time(101)
        world.offer()
        if how == "failed":
            fail(world, A)
        elif how == "succeeded":
            world.run(world.pull())
    world.offer()
    assert ended(world, A).state == how
    assert sorted(handed_out(world)) == ([B, C] if how == "succeeded" else [B])
    if how != "succeeded":
        assert how in (ended(world, C).reason or "")


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("other", [STRANGER, BOB])
def test_what_others_have_rejected_crowds_out_no_end_that_a_job_may_wait_for(
    monkeypatch: pytest.MonkeyPatch, other: Signer, *, restart: bool
) -> None:
    bounded = partial(Endings, entries_max=5, page_entries_min=2)
    monkeypatch.setattr(dependencies, "Endings", bounded)
    world = World()
    world.offer()
    submit(world, A)
    assert run_all(world) == [A]
    for number in range(12):
        world.submit_raw(subjects.submit(other.public_key, f"job-x{number:03d}"), {}, b"")
    if restart:
        world.start()
        world.offer()
    submit(world, B, A)
    assert handed_out(world) == [B]


def test_the_jobs_of_others_are_not_waited_for() -> None:
    world = World()
    world.offer()
    world.submit(job_spec(BOB, A), BOB)
    world.cancel(A, BOB)
    submit(world, B, A)
    assert handed_out(world) == []
    assert "not known" in why(world, B)


def test_nothing_goes_ahead_before_the_end_that_it_waits_for_is_durable() -> None:
    world = World()
    world.offer(slots=4)
    submit(world, A)
    submit(world, B, A)
    world.land_commits = False
    world.run(world.pull())
    submit(world, C, A)
    assert handed_out(world) == []
    world.land()
    assert sorted(handed_out(world)) == [B, C]


def test_what_it_waits_for_in_words() -> None:
    world = World()
    submit(world, C, A, B)
    assert why(world, C) == (
        f"waits for job {A} (not known: not submitted yet, or forgotten) and 1 more"
    )
    submit(world, A, count=10)
    assert why(world, C) == f"waits for job {A} (queued, 0 of 10 tasks done) and 1 more"
    world.offer()
    world.run(world.pull())
    assert why(world, C).startswith(f"waits for job {A} (running, 1 of 10 tasks done)")
    run_all(world)
    submit(world, B)
    assert why(world, C) == f"waits for job {B} (queued)"
    world.land_commits = False
    world.run(world.pull())
    assert Reasons(world.broker.state, world.now).why(world.broker.state.jobs[KEY_C]) == (
        f"waits for job {B} (succeeded)"
    ), "its end is on its way into RESULTS"


def test_a_circle_is_refused_when_it_is_closed() -> None:
    world = World()
    world.offer()
    submit(world, A, C)
    submit(world, B, A)
    submit(world, C, D, B + ":end")
    assert (ended(world, C).state, ended(world, C).field) == ("rejected", "after")
    assert ended(world, C).reason == f"a circle: {C} waits for {B} waits for {A} waits for {C}"
    assert ended(world, A).state == "cancelled", "it was to come after the success of C"
    assert ended(world, B).state == "cancelled"


def test_a_long_circle_is_told_in_few_words() -> None:
    world = World()
    names = [f"job-{number:04d}" for number in range(40)]
    for first, second in pairwise(names):
        submit(world, first, second)
    submit(world, names[-1], names[0])
    told = ended(world, names[-1]).reason or ""
    assert told.startswith(f"a circle: {names[-1]} waits for {names[0]} waits for {names[1]} ")
    assert "36 others in turn" in told
    assert told.endswith(f"{names[-2]} waits for {names[-1]}")


def test_a_circle_that_is_too_long_to_be_found_waits_until_it_expires(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dependencies, "CIRCLE_LOOKS_MAX", 4)
    world = World()
    for job, after in ((A, B), (B, C), (C, D), (D, A)):
        submit(world, job, after, not_after=world.now + 60)
    assert world.terminal(D) is None
    world.pass_time(61)
    assert {ended(world, job).state for job in (A, B, C, D)} == {"expired"}


def test_a_search_for_circles_is_short_in_a_dense_graph_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = dependencies.Dependencies()
    names = [f"job-{number:04d}" for number in range(40)]
    every = tuple(After(job=one, on="end") for one in names)
    known.add(JobKey("U", "job-last0"), (After(job="job-0top", on="end"),))
    for at in range(1, 40):
        known.add(JobKey("U", names[at]), every[:at])
    looked_at = looks(monkeypatch)
    monkeypatch.setattr(dependencies, "CIRCLE_LOOKS_MAX", 60)
    known.add(JobKey("U", "job-0top"), every)
    assert len(looked_at) == len(every) + 2, "itself, and one of those that it waits for"


def test_a_start_walks_along_a_chain_once_and_not_once_for_each_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    names = [f"job-{number:04d}" for number in range(101)]
    for before, job in pairwise(names):
        submit(world, job, before)
    looked_at = looks(monkeypatch)
    world.start()
    assert len(names) < len(looked_at) < 5 * len(names)


def test_a_circle_that_nobody_was_told_of_is_refused_by_the_next_broker() -> None:
    world = World()
    world.land_commits = False
    for job, after in ((A, C), (B, A), (C, B)):
        submit(world, job, after)
    world.land_commits = True
    world.start()
    assert (ended(world, C).state, ended(world, C).field) == ("rejected", "after")
    assert ended(world, A).state == "cancelled"


def test_two_ways_to_the_same_job_are_no_circle() -> None:
    world = World()
    world.offer()
    submit(world, "job-last0", D)
    submit(world, B, A)
    submit(world, C, A)
    submit(world, D, B, C)
    submit(world, A)
    assert handed_out(world) == [A]
    assert run_all(world)[-1] == "job-last0"


@pytest.mark.parametrize("cancelled", [A, B])
def test_a_job_that_waits_can_be_cancelled_at_any_time(cancelled: str) -> None:
    world = World()
    world.offer()
    submit(world, B, A)
    submit(world, C, B)
    world.cancel(cancelled)
    submit(world, A)
    run_all(world)
    assert ended(world, B).state == "cancelled"
    assert ended(world, C).state == "cancelled"
    assert len(list(world.broker.state.jobs)) == 0


def test_a_job_that_waits_keeps_to_its_own_day_too() -> None:
    world = World()
    world.offer()
    submit(world, B, A, not_before=START + 100)
    submit(world, A)
    run_all(world)
    assert why(world, B).startswith("not to begin for another ")
    world.pass_time(100)
    world.offer()
    assert handed_out(world) == [B]


def test_many_that_wait_for_one_go_ahead_a_thousand_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "LOOKS_MAX", 3)
    world = World()
    names = [f"wait-{number:04d}" for number in range(10)]
    for job in names:
        submit(world, job, A)
    submit(world, A)
    world.land_commits = False
    world.cancel(A)
    world.land()
    assert len(world.in_flight) == 3
    assert world.broker.next_deadline() == world.now, "it goes on at once"
    world.cancel(names[4])
    world.pass_time(0)
    while world.in_flight:
        world.land()
    assert {ended(world, job).state for job in names} == {"cancelled"}
    assert world.broker.next_deadline() is None


# a broker that takes over


def test_who_takes_over_knows_what_is_waited_for_and_what_has_ended() -> None:
    world = World()
    world.offer(slots=4)
    submit(world, A)
    submit(world, B, A)
    submit(world, C, A, D)
    world.start()
    world.offer(slots=4)
    assert handed_out(world) == [A]
    world.run(world.pull())
    world.start()
    world.offer(slots=4)
    assert handed_out(world) == [B]
    assert why(world, C).startswith(f"waits for job {D} ")
    submit(world, D)
    world.start()
    world.offer(slots=4)
    assert sorted(run_all(world)) == [B, C, D]


@pytest.mark.parametrize("landed", [False, True])
def test_an_end_that_was_not_durable_is_waited_for_again(*, landed: bool) -> None:
    world = World()
    world.offer(slots=4)
    submit(world, A)
    submit(world, B, A)
    submit(world, C, B)
    world.land_commits = False
    world.run(world.pull())
    if landed:
        world.store(world.in_flight[0])
    world.start()
    world.land_commits = True
    world.offer(slots=4)
    # Its lease was acked in this model, whatever became of the commit.
    assert handed_out(world) == ([B] if landed else [A])
    assert run_all(world) == ([B, C] if landed else [A, B, C])


def test_who_takes_over_ends_what_can_no_longer_be() -> None:
    world = World()
    submit(world, B, A)
    submit(world, C, B)
    submit(world, A)
    world.land_commits = False
    world.cancel(A)
    for commit in world.in_flight:
        world.store(commit)
    world.start()
    while world.in_flight:
        world.land()
    assert (ended(world, B).state, ended(world, C).state) == ("cancelled", "cancelled")
    assert world.refused_records == []


def test_one_that_was_handed_out_does_not_wait_again_where_it_is_forgotten() -> None:
    world = World()
    world.offer()
    submit(world, A)
    run_all(world)
    submit(world, B, A)
    (lease,) = world.queued()
    del world.results[f"res.{ALICE.public_key}.{A}"]  # as if it had aged out
    world.start()
    world.offer(leases=[lease])
    assert world.run(lease) == "committed"
    assert ended(world, B).state == "succeeded"
