"""Tasks that several owners answer: how many at once, and what waits for a lender that may."""

import pytest
from broker_world import (
    ALICE,
    BOB,
    LENDERS,
    START,
    World,
    bad,
    check_places,
    class_of,
    job_spec,
    ok,
)
from verified_jobs import answer, ended, taken, verified

from broker.core.broker import Broker
from broker.core.effects import PutOff
from broker.core.events import JobReplayed
from broker.core.jobs.job import FIRST_STEP, UNDECIDED_MAX, Step
from lender.protocol import subjects
from lender.protocol.codec import encode
from lender.protocol.job import Verify
from lender.protocol.lease import Lease
from lender.protocol.signature import SIGNATURE_HEADER

L1, L2, L3, L4, L5, L6 = LENDERS


def test_while_too_many_tasks_are_undecided_no_others_are_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert UNDECIDED_MAX == 10_000
    monkeypatch.setattr("broker.core.jobs.job.UNDECIDED_MAX", 2)
    world = verified(lenders=(L1,), count=20)
    answered = 0
    while world.queued():
        answer(world, L1, b"4")
        answered += 1
    assert answered == 2
    answer(world, L2, b"4")
    while len(world.tasks()) < answered:
        answer(world, L2, b"4")
    world.offer(L1, slots=1)
    assert any(not one.not_for for one in world.queued())


@pytest.mark.parametrize("restart", [False, True])
def test_long_leases_begin_no_more_than_may_be_undecided_either(
    monkeypatch: pytest.MonkeyPatch, *, restart: bool
) -> None:
    monkeypatch.setattr("broker.core.jobs.job.UNDECIDED_MAX", 10)
    world = verified(lenders=(), count=300, retries=1)
    held: dict[str, list[Lease]] = {L1: [], L2: []}
    longest, fails = 0, 0 if restart else 2

    def offer(lender: str) -> None:
        world.offer(lender, slots=8, leases=held[lender])
        check_places(world)
        # A start has one lease more begun with what waits anew.
        most = 20 if restart else 10
        assert all(len(job.shared) <= most for job in world.broker.state.jobs)

    for turn in range(2_000):
        if world.terminal() is not None:
            break
        world.pass_time(0.05)
        if restart and turn in (10, 30):
            world.start()
        for lender in (L1, L2):
            offer(lender)
            taken_ids = {one.lease for leases in held.values() for one in leases}
            held[lender] += [
                one
                for one in world.queued()
                if one.lease not in taken_ids and not one.is_barred(lender)
            ][:4]
            offer(lender)
            cancelled = world.cancelled(lender)
            for lease in [one for one in held[lender] if one.lease not in cancelled]:
                longest = max(longest, len(list(lease.tasks())))
                answers = [
                    bad(task) if task == 7 and lease.attempt <= fails else ok(task, 1e-6)
                    for task in lease.tasks()
                ]
                assert world.verdict(world.report(lease, answers, lender)) == "committed"
                world.ack(lease)
            held[lender] = []
    assert ended(world).tasks_succeeded == 300
    assert 1 < longest <= 10


def test_one_submitter_has_no_more_tasks_verified_at_once_than_memory_is_kept_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.core.intake.quotas.UNDECIDED_MAX", 25_000)
    verify = Verify(replicas=2, quorum=2)
    world = World()
    for number, count in enumerate((1_000_000, 9_000, 7_000, 6_000)):
        world.submit(job_spec(job=f"job-000{number}", verify=verify, count=count))
    refused = world.terminal("job-0002")
    assert refused is not None
    assert refused.field == "quota"
    assert "7000 tasks that others answer as well are too many" in (refused.reason or "")
    assert "beside the 19000 of your jobs with `verify`" in (refused.reason or "")
    world.submit(job_spec(job="job-0004", count=9_000))
    world.submit(job_spec(BOB, "job-0005", verify=verify, count=10_000), BOB)
    assert world.terminal("job-0003") is world.terminal("job-0004") is None
    assert world.terminal("job-0005", BOB) is None
    world.cancel("job-0001")
    world.submit(job_spec(job="job-0006", verify=verify, count=9_000))
    assert world.terminal("job-0006") is None
    live = {job.key for job in world.broker.state.jobs}
    world.start()
    assert {job.key for job in world.broker.state.jobs} == live


def test_a_start_leaves_to_the_ledger_what_is_more_than_memory_is_kept_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.core.intake.quotas.UNDECIDED_MAX", 25_000)
    broker = Broker(lambda: "", frozenset((ALICE.public_key,)))
    put_off = 0
    for number in range(8):
        spec = job_spec(job=f"job-000{number}", verify=Verify(), count=10_000)
        payload = encode(spec)
        headers = {SIGNATURE_HEADER: ALICE.sign(payload)}
        subject = subjects.submit(ALICE.public_key, spec.id)
        put_off += broker.handle(START, JobReplayed(subject, headers, payload)) == [PutOff()]
    assert put_off == 5


def test_what_only_those_are_left_for_that_had_it_waits_for_others_and_takes_no_room() -> None:
    world = verified(lenders=(L1, L2), count=8)
    held = []
    for _ in range(8):
        world.offer(L1, slots=8, leases=held)
        held.append(
            next(one for one in world.queued() if not one.is_barred(L1) and one not in held)
        )
        world.offer(L1, slots=8, leases=held)
        world.offer(L2, slots=8)
    assert any(one.is_barred(L1) for one in world.queued())
    world.offer(L2, slots=8, phase="offline")
    assert not any(one.is_barred(L1) for one in world.queued()), "L1 would be given them for ever"
    check_places(world)
    for lease in held:
        answer(world, L1, b"4", lease)
    any_class = [class_of(ALICE), class_of(BOB)]
    world.submit(job_spec(BOB, "job-0002", count=40), BOB)
    world.offer(L1, slots=8, classes=any_class)
    assert len(world.queued(class_of(BOB))) == 16, "twice what it lends"
    world.offer(L3, slots=8)
    while world.terminal() is None:
        answer(world, L3, b"4")


def test_after_a_start_what_a_lender_may_not_take_is_not_counted_to_it() -> None:
    world = verified(lenders=(L1, L2), count=4)
    first = taken(world, L1)
    world.offer(L2, slots=8)
    assert any(one.is_barred(L1) for one in world.queued())
    world.start()
    world.offer(L1, slots=4, leases=[first])
    state = world.broker.state
    barred = [state.leases[one.lease] for one in world.queued() if one.is_barred(L1)]
    assert [one.claim for one in barred] == [None]
    world.offer(L2, slots=4)
    check_places(world)
    answer(world, L1, b"4", first)
    while world.terminal() is None:
        for lender in (L1, L2):
            if any(not one.is_barred(lender) for one in world.queued()):
                answer(world, lender, b"4")


def test_behind_steps_that_are_closed_to_some_one_comes_into_question_that_is_open_to_all() -> None:
    world = verified(lenders=(), count=100)
    (job,) = world.broker.state.jobs
    closed = [Step(number, 0, (L1,)) for number in range(2, 9)]
    job.put_back({step: [(number, 1)] for number, step in enumerate(closed)})
    assert job.steps() == [*closed[:2:-1], FIRST_STEP]
