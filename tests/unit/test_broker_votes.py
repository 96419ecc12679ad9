"""Tasks that several owners' machines answer: who gets them, which answer counts, and when."""

import pytest
from broker_world import (
    LENDERS,
    World,
    check_places,
    job_spec,
    ok,
)
from verified_jobs import answer, answer_one, ended, taken, taken_beside, verified, why

from broker.core.copies.votes import digest_of
from lender.protocol.job import Verify

L1, L2, L3, L4, L5, L6 = LENDERS


def test_each_task_is_run_by_as_many_lenders_as_asked_and_by_none_twice() -> None:
    world = verified(replicas=3, quorum=3)
    leases = [taken(world, lender) for lender in (L1, L2, L3)]
    assert [one.attempt for one in leases] == [1, 2, 3]
    assert [one.is_barred(L1) for one in leases] == [False, True, True]
    assert [one.is_barred(L2) for one in leases] == [False, False, True]
    assert len(world.queued()) == 3


def test_what_the_quorum_agrees_on_is_the_one_result() -> None:
    world = verified(replicas=3, quorum=2)
    leases = {lender: taken(world, lender) for lender in (L1, L2, L3)}
    assert answer(world, L1, b"4", leases[L1]) == "committed"
    assert world.terminal() is None
    assert why(world) == "1 of 3 answers in"
    assert answer(world, L2, b"5", leases[L2]) == "committed"
    assert why(world) == "2 of 3 answers in, they differ"
    assert answer(world, L3, b"4", leases[L3]) == "committed"
    terminal = ended(world)
    assert (terminal.state, terminal.lender, terminal.attempt) == ("succeeded", L3, 3)
    assert terminal.result is not None
    assert terminal.result.value == b"4"
    assert world.refused_records == []


def test_who_is_not_needed_any_more_is_cancelled() -> None:
    world = verified(replicas=3, quorum=2)
    leases = {lender: taken(world, lender) for lender in (L1, L2, L3)}
    answer(world, L1, b"4", leases[L1])
    answer(world, L2, b"4", leases[L2])
    assert ended(world).state == "succeeded"
    assert world.cancelled(L3) == [leases[L3].lease]
    assert world.queued() == []
    assert answer(world, L3, b"4", leases[L3]) == "stale"


def test_an_answer_before_the_next_has_begun_counts_as_well() -> None:
    world = verified(replicas=3, quorum=2, count=2)
    answer(world, L1, b"4")
    answer(world, L1, b"4")
    assert why(world).startswith("2 tasks wait for more answers; those to 0 of them differ so far")
    answer(world, L2, b"4")
    answer(world, L2, b"4")
    assert ended(world).tasks_succeeded == 2
    assert world.queued() == []


def test_with_a_quorum_of_one_the_first_answer_wins() -> None:
    world = verified(replicas=2, quorum=1)
    first, second = taken(world, L1), taken(world, L2)
    answer(world, L2, b"4", second)
    assert ended(world).lender == L2
    assert world.cancelled(L1) == [first.lease]


def test_where_answers_differ_more_are_asked_for() -> None:
    world = verified()
    answer(world, L1, b"4")
    answer(world, L2, b"5")
    assert why(world).startswith("2 of 3 answers in, they differ")
    third = taken(world, L3)
    assert third.is_barred(L1)
    assert third.is_barred(L2)
    answer(world, L3, b"4", third)
    result = ended(world).result
    assert result is not None
    assert result.value == b"4"


def test_where_they_differ_for_good_the_task_fails_and_says_how() -> None:
    world = verified(retries=3)
    for number, lender in enumerate((L1, L2, L3)):
        answer(world, lender, str(number).encode())
        assert world.terminal() is None
    answer(world, L4, b"", state="failed")
    terminal = ended(world)
    assert terminal.state == "failed"
    digest = digest_of(ok(value=b"0"))[1:9]
    assert terminal.reason is not None
    assert terminal.reason.startswith(
        f"4 machines gave answers that differ, 2 had to agree: 1 x succeeded ({digest}), "
    )
    assert "1 x failed (" in terminal.reason


@pytest.mark.parametrize("retries", [0, 1])
def test_a_failure_that_the_quorum_agrees_on_is_one(retries: int) -> None:
    world = verified(retries=retries)
    answer(world, L1, state="failed")
    answer(world, L2, state="failed")
    if not retries:
        assert ended(world).reason == "exit code 1"
        return
    assert world.terminal() is None
    world.pass_time(5.0)
    for lender in LENDERS:
        world.offer(lender, slots=1)
    again = taken(world, L1)
    assert again.attempt == 3
    answer(world, L1, b"4", again)
    assert world.terminal() is None
    answer(world, L2, b"4")
    assert ended(world).state == "succeeded"


def test_a_machine_that_fails_alone_uses_no_retry() -> None:
    world = verified()
    answer(world, L1, state="failed")
    answer(world, L2, b"4")
    answer(world, L3, b"4")
    assert ended(world).state == "succeeded"


def test_no_lender_alone_says_that_a_job_can_not_be_run() -> None:
    world = verified(count=2)
    for lender in (L1, L2):
        for _ in range(2):
            lease = taken(world, lender)
            world.report(
                lease, [], lender, outcome="invalid", field="program", reason="is no module"
            )
            world.ack(lease)
            world.offer(lender, slots=1)
            check_places(world)
    assert ended(world).state == "failed"
    assert {one.error for one in world.tasks()} == {"program: is no module"}


def test_the_notes_of_a_lender_that_refuses_a_long_lease_fit_into_their_headers() -> None:
    world = verified(lenders=(L1, L2), count=20_000)
    quick = world.queued()[0]
    world.report(quick, [ok(0, duration_s=0.0)])
    world.ack(quick)
    world.offer(L1, slots=2)
    world.offer(L2, slots=2)
    long = max(world.queued(), key=lambda lease: sum(count for _, count in lease.ranges))
    assert sum(count for _, count in long.ranges) > 2_000
    reply = world.report(long, [], outcome="invalid", field="program", reason="is no module")
    assert world.verdict(reply) == "committed"
    world.ack(long)
    world.start()
    ((job, *_),) = [tuple(world.broker.state.jobs)]
    assert sum(L1 in shared.votes for shared in job.shared.values()) > 2_000
    sizes = [
        sum(len(name) + len(value) for name, value in headers.items())
        for headers, _ in world.results.values()
    ]
    assert max(sizes) < 60_000  # nats-server refuses headers of 64 KiB


def test_a_lender_that_is_lost_leaves_its_place_to_another() -> None:
    world = verified(lenders=(L1, L2))
    first, second = taken(world, L1), taken(world, L2)
    for _ in range(8):
        world.offer(L2, slots=1, leases=[second])
        world.pass_time(0.5)
    world.offer(L3, slots=1)
    check_places(world)
    third = taken(world, L3)
    assert third.attempt == 3
    assert third.is_barred(L2)
    assert answer(world, L1, b"4", first) == "stale"
    answer(world, L2, b"4", second)
    answer(world, L3, b"4", third)
    assert ended(world).state == "succeeded"


@pytest.mark.parametrize("outcome", ["evicted", "refused", "finished"])
def test_what_is_handed_back_is_leased_once_more(outcome: str) -> None:
    world = verified(lenders=(L1, L2))
    first, second = taken(world, L1), taken(world, L2)
    world.report(second, [], L2, outcome=outcome)
    world.ack(second)
    check_places(world)
    world.offer(L3, slots=1)
    world.pass_time(1.0)
    third = taken(world, L3)
    answer(world, L1, b"4", first)
    answer(world, L3, b"4", third)
    assert ended(world).state == "succeeded"


def test_a_lease_that_an_old_lender_takes_all_the_same_is_not_its_own() -> None:
    world = verified(lenders=(L1,))
    taken(world, L1)
    world.offer(L2, slots=1)
    second = next(one for one in world.queued() if one.is_barred(L1))
    answer(world, L2, b"4", second)
    world = verified(lenders=(L1, L2))
    first = taken(world, L1)
    second = next(one for one in world.queued() if one.is_barred(L1))
    world.offer(L1, slots=2, leases=[first, second])
    assert world.cancelled(L1) == [second.lease]
    check_places(world)
    answer(world, L1, b"4", first)
    world.offer(L1, slots=1)
    world.pass_time(1.0)
    third = next(one for one in world.queued() if one.is_barred(L1))
    assert world.verdict(world.report(third, [ok(value=b"4")], L1)) == "stale"
    world.pass_time(1.0)
    answer(world, L2, b"4")
    assert ended(world).state == "succeeded"


def test_one_machine_alone_gets_on_with_other_tasks_and_other_jobs() -> None:
    world = verified(lenders=(L1,), count=3)
    world.submit(job_spec(job="job-0002"))
    for _ in range(3):
        assert answer(world, L1, b"4") == "committed"
    assert "machine of another owner" in why(world)
    world.run(world.pull())
    assert world.terminal("job-0002") is not None
    for _ in range(3):
        answer(world, L2, b"4")
    assert ended(world).tasks_succeeded == 3


def test_of_tasks_that_wait_alike_only_what_is_decided_is_withdrawn() -> None:
    world = World()
    world.submit(job_spec(job="job-0000", count=30))
    world.offer(L1, slots=1)
    while world.queued():
        world.run(world.pull(), duration_s=0.01)
    world.submit(job_spec(count=2, verify=Verify(replicas=3, quorum=2)))
    both = [taken(world, L1)]
    world.offer(L1, slots=2, leases=both)
    both.append(taken_beside(world, L1, both[0]))
    world.offer(L1, slots=2, leases=both)
    world.offer(L2, slots=2)
    others = [one for one in world.queued() if one.is_barred(L1)]
    world.offer(L2, slots=2, leases=others)
    check_places(world)
    answer_one(world, L1, both[0])
    answer_one(world, L2, others[0])
    check_places(world)
    assert len(world.tasks()) == 1
    answer_one(world, L1, both[1])
    answer_one(world, L2, others[1])
    assert ended(world).tasks_succeeded == 2


def test_a_task_that_is_decided_is_withdrawn_wherever_it_waits() -> None:
    world = verified(replicas=3, quorum=2, lenders=(L1, L2), count=2)
    answer(world, L1, b"4")
    answer(world, L1, b"4")
    answer(world, L2, b"4")  # the third of it waits, for nobody
    assert len(world.tasks()) == 1
    world.cancel("job-0001")
    assert ended(world).state == "cancelled"


def test_a_rest_ends_with_the_task() -> None:
    world = verified(replicas=3, quorum=2, lenders=(L1, L2, L3))
    leases = {lender: taken(world, lender) for lender in (L1, L2, L3)}
    world.report(leases[L3], [], L3, outcome="refused", reason="no")
    check_places(world)
    answer(world, L1, b"4", leases[L1])
    answer(world, L2, b"4", leases[L2])
    assert ended(world).state == "succeeded"


def test_of_an_array_only_what_is_undecided_is_asked_again() -> None:
    world = World()
    world.submit(job_spec(job="job-0000", count=30))
    world.offer(L1, slots=1)
    while world.queued():
        world.run(world.pull(), duration_s=0.01)
    verified(world, count=30, expected_s=0.01)
    first = taken(world, L1)
    for task in first.tasks():
        world.report(first, [ok(task, 0.01, b"%d" % task)], L1, final=False)
    world.report(first, [], L1)
    world.ack(first)
    while world.terminal() is None:
        for lender in LENDERS[1:]:
            try:
                lease = taken(world, lender)
            except StopIteration:
                continue
            tasks = lease.tasks()
            world.report(lease, [ok(task, 0.01, b"%d" % task) for task in tasks], lender)
            world.ack(lease)
            world.offer(lender, slots=1)
            check_places(world)
    assert {one.task: one.value for one in world.tasks()} == {n: b"%d" % n for n in range(30)}


def test_one_that_takes_too_long_to_answer_is_copied_to_who_has_not_answered() -> None:
    world = verified(expected_s=0.5, lenders=(L1, L2, L3))
    first, late = taken(world, L1), taken(world, L2)
    answer(world, L1, b"4", first)
    for _ in range(12):
        for lender, leases in ((L1, []), (L2, [late]), (L3, [])):
            world.offer(lender, slots=1, leases=leases)
        world.pass_time(0.5)
        check_places(world)
    (copy,) = (one for one in world.queued() if one.lease != late.lease)
    assert [copy.is_barred(one) for one in (L1, L2, L3)] == [True, True, False]
    assert why(world) == (
        "1 of 2 answers in; 1 task runs on one machine more, "
        "since the first takes far longer than usual"
    )
    answer(world, L3, b"4")
    assert ended(world).state == "succeeded"
    assert world.cancelled(L2) == [late.lease]
