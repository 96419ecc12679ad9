"""Tasks that several owners' machines answer: who gets them, which answer counts, and when."""

from collections.abc import Sequence

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

from broker.core.broker import Broker
from broker.core.copies.votes import digest_of
from broker.core.durable.records import VotesSummary
from broker.core.effects import PutOff
from broker.core.events import JobReplayed
from broker.core.jobs.job import FIRST_STEP, UNDECIDED_MAX, Step
from lender.protocol import subjects
from lender.protocol.codec import encode
from lender.protocol.job import Verify
from lender.protocol.lease import Lease
from lender.protocol.result import Output, TaskResult, Terminal, ValueBlob
from lender.protocol.signature import SIGNATURE_HEADER

L1, L2, L3, L4, L5, L6 = LENDERS


def verified(
    world: World | None = None,
    replicas: int = 2,
    quorum: int = 2,
    *,
    lenders: Sequence[str] = LENDERS,
    **fields: object,
) -> World:
    world = world or World()
    verify = Verify(replicas=replicas, quorum=quorum)
    world.submit(job_spec(verify=verify, **fields))
    for lender in lenders:
        world.offer(lender, slots=1)
    return world


def taken(world: World, lender: str) -> Lease:
    """Have a lender come and take the oldest lease that it may have."""
    world.offer(lender, slots=1)
    held = {one.id for one in world.broker.state.leases if one.holder is not None}
    lease = next(
        one for one in world.queued() if one.lease not in held and not one.is_barred(lender)
    )
    world.offer(lender, slots=1, leases=[lease])
    assert lease.lease not in world.cancelled(lender)
    check_places(world)
    return lease


def answer(
    world: World, lender: str, value: bytes = b"", lease: Lease | None = None, **result: object
) -> str | None:
    """Have a lender take and answer a lease whole; returns the verdict."""
    lease = lease or taken(world, lender)
    state = result.pop("state", "succeeded")
    results = [
        bad(task, value=value, **result) if state == "failed" else ok(task, value=value)
        for task in lease.tasks()
    ]
    verdict = world.verdict(world.report(lease, results, lender))
    world.ack(lease)
    world.offer(lender, slots=1)
    check_places(world)
    return verdict


def ended(world: World) -> Terminal:
    terminal = world.terminal()
    assert terminal is not None
    return terminal


def why(world: World) -> str:
    return world.query("job-0001").jobs[0].why


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


def taken_beside(world: World, lender: str, held: Lease) -> Lease:
    return next(
        one for one in world.queued() if one.lease != held.lease and not one.is_barred(lender)
    )


def answer_one(world: World, lender: str, lease: Lease) -> None:
    world.report(lease, [ok(task, value=b"4") for task in lease.tasks()], lender)
    world.ack(lease)


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


# over a crash


def test_answers_that_were_acknowledged_survive_a_crash() -> None:
    world = verified(replicas=3, quorum=2)
    answer(world, L1, b"4")
    second = taken(world, L2)
    world.start()
    check_places(world)
    world.offer(L2, slots=1, leases=[second])
    check_places(world)
    assert why(world) == "1 of 3 answers in"
    world.offer(L1, slots=1)
    assert all(one.is_barred(L1) for one in world.queued() if one.lease != second.lease)
    answer(world, L2, b"4", second)
    assert ended(world).state == "succeeded"


def test_leases_are_taken_up_as_far_as_answers_are_wanted() -> None:
    world = verified(count=2)
    leases = {lender: taken(world, lender) for lender in (L1, L2, L3, L4)}
    world.start()
    check_places(world)
    assert len(world.broker.state.leases) == 4
    for lender, lease in leases.items():
        world.offer(lender, slots=1, leases=[lease])
    check_places(world)
    for lender, lease in leases.items():
        assert answer(world, lender, b"4", lease) == "committed"
    assert ended(world).tasks_succeeded == 2


def test_a_lost_lease_that_is_still_in_its_queue_is_not_taken_up_beside_the_others() -> None:
    world = verified(lenders=(L1, L2))
    taken(world, L1)
    second = taken(world, L2)
    kept = dict(world.work)
    for _ in range(8):
        world.offer(L2, slots=1, leases=[second])
        world.pass_time(0.5)
    world.offer(L3, slots=1)
    third = taken(world, L3)
    world.work.update(kept)  # its deletion was lost
    world.start()
    check_places(world)
    assert {one.id for one in world.broker.state.leases} == {second.lease, third.lease}
    assert len(world.queued()) == 2


def test_a_later_round_knows_nothing_of_the_answers_of_an_earlier_one() -> None:
    world = verified(retries=1)
    answer(world, L1, state="failed")
    answer(world, L2, state="failed")
    world.pass_time(5.0)
    for lender in LENDERS:
        world.offer(lender, slots=1)
    again = taken(world, L1)
    world.start()
    world.offer(L1, slots=1, leases=[again])
    assert answer(world, L1, b"4", again) == "committed"
    world.start()
    for lender in LENDERS[1:]:
        world.offer(lender, slots=1)
    assert world.terminal() is None
    answer(world, L2, b"4")
    assert ended(world).state == "succeeded"


def test_where_answers_differed_before_a_crash_more_are_asked_for_after_it() -> None:
    world = verified()
    answer(world, L1, b"4")
    answer(world, L2, b"5")
    world.start()
    check_places(world)
    for lender in LENDERS:
        world.offer(lender, slots=1)
    answer(world, L3, b"5")
    result = ended(world).result
    assert result is not None
    assert result.value == b"5"


def test_notes_of_others_are_ignored_and_those_of_decided_tasks_too() -> None:
    world = verified(count=3)
    answer(world, L1, b"4", taken(world, L1))
    world.offer(L2, slots=1)
    answer(world, L2, b"4", next(one for one in world.queued() if one.is_barred(L1)))
    answer(world, L3, b"4")
    assert len(world.tasks()) == 1
    subject = subjects.votes(world.jobs[0][0].split(".")[1], "job-0001", 7)
    world.results[subject] = ({}, b"")
    world.start()
    check_places(world)
    assert len(world.warnings) == 1
    for lender in (L4, L5, L6):
        answer(world, lender, b"4")
    assert ended(world).tasks_succeeded == 3


def test_a_note_says_who_answered_what() -> None:
    world = verified()
    answer(world, L1, b"4")
    ((headers, payload),) = (
        stored for subject, stored in world.results.items() if ".vote." in subject
    )
    summary = VotesSummary.load(headers)
    assert summary == VotesSummary(L1, 1, 0, ((0, digest_of(ok(value=b"4"))),))
    assert payload == summary.dump().encode()
    assert world.chunks() == []


# what makes answers equal


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (ok(value=b"4"), ok(value=b"4", duration_s=9.0), True),
        (ok(), TaskResult(task=0, state="succeeded", exit_code=0, stderr_tail=b"warm"), True),
        (ok(value=b"4"), ok(value=b"5"), False),
        (bad(), bad(exit_code=2), False),
        (bad(exit_code=0), ok(), False),
        (bad(), bad(error="killed"), True),
        (
            TaskResult(
                task=0, state="succeeded", value_blob=ValueBlob(sha256="a" * 64, size_bytes=9)
            ),
            TaskResult(
                task=0, state="succeeded", value_blob=ValueBlob(sha256="b" * 64, size_bytes=9)
            ),
            False,
        ),
        (
            TaskResult(
                task=0,
                state="succeeded",
                outputs=(
                    Output(name="a", sha256="a" * 64, size_bytes=1),
                    Output(name="b", sha256="b" * 64, size_bytes=1),
                ),
            ),
            TaskResult(
                task=0,
                state="succeeded",
                outputs=(
                    Output(name="b", sha256="b" * 64, size_bytes=1),
                    Output(name="a", sha256="a" * 64, size_bytes=1),
                ),
            ),
            True,
        ),
    ],
)
def test_answers_are_equal_by_state_exit_code_value_and_outputs(
    one: TaskResult, other: TaskResult, *, equal: bool
) -> None:
    assert (digest_of(one) == digest_of(other)) is equal


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
