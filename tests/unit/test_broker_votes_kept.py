"""Answers that have to agree: what is noted of them, and what a start makes of the notes."""

import pytest
from broker_world import (
    LENDERS,
    World,
    bad,
    check_places,
    ok,
)
from verified_jobs import answer, ended, taken, verified, why

from broker.core.copies.votes import digest_of
from broker.core.durable.records import VotesSummary
from broker.core.leasing.presence import RECONNECT_S
from broker.core.leasing.untaken import CLOSED_LOOK_S
from lender.protocol import subjects
from lender.protocol.lease import Lease
from lender.protocol.result import Output, TaskResult, ValueBlob

L1, L2, L3, L4, L5, L6 = LENDERS


def with_outputs(*names: str) -> TaskResult:
    """An answer with a file of each name, that holds its name."""
    outputs = tuple(Output(name=one, sha256=one * 64, size_bytes=1) for one in names)
    return TaskResult(task=0, state="succeeded", outputs=outputs)


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


def stay(world: World, seconds: float, lender: str, *held: Lease) -> None:
    """Let time pass, while one lender says what it holds."""
    for _ in range(round(2 * seconds) + 1):
        world.offer(lender, slots=1, leases=list(held))
        world.pass_time(0.5)


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


def test_a_lease_that_is_closed_to_who_had_its_task_before_a_crash_is_called_in() -> None:
    """Nobody remembers whom it is closed to, and that may be the one machine that is left."""
    world = verified(lenders=(L1, L2))
    first = taken(world, L1)
    closed = next(one for one in world.queued() if one.is_barred(L1))
    world.ack(first)  # what became of it died with the broker
    world.start()
    assert world.queued() == [closed]
    stay(world, RECONNECT_S + CLOSED_LOOK_S, L1)
    check_places(world)
    (again,) = world.queued()
    assert again.attempt > closed.attempt
    assert not again.is_barred(L1)
    answer(world, L1, b"4", again)
    answer(world, L2, b"4")
    assert ended(world).state == "succeeded"


def test_a_lease_stays_closed_for_as_long_as_who_has_its_task_goes_on_with_it() -> None:
    world = verified(lenders=(L1, L2))
    first = taken(world, L1)
    closed = next(one for one in world.queued() if one.is_barred(L1))
    world.start()
    stay(world, RECONNECT_S + 3 * CLOSED_LOOK_S, L1, first)
    assert world.queued() == [first, closed]


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
        (with_outputs("a", "b"), with_outputs("b", "a"), True),
        (with_outputs("a", "b"), with_outputs("a"), False),
    ],
)
def test_answers_are_equal_by_state_exit_code_value_and_outputs(
    one: TaskResult, other: TaskResult, *, equal: bool
) -> None:
    assert (digest_of(one) == digest_of(other)) is equal


def test_a_lease_is_taken_up_without_what_its_holder_has_answered() -> None:
    """Of three who have a task two have answered: after a start the third one's answer counts."""
    world = verified(count=20, replicas=3, quorum=2, expected_s=1e-5)
    held = [taken(world, lender) for lender in (L1, L2, L3)]
    tasks = set.intersection(*(set(one.tasks()) for one in held))
    task = min(tasks)
    for lender, lease, value in ((L1, held[0], b"a"), (L3, held[2], b"b")):
        world.report(lease, [ok(task, value=value)], lender, final=False)
    world.start()
    check_places(world)
    for lender, lease in zip((L1, L2, L3), held, strict=True):
        world.offer(lender, slots=1, leases=[lease])
        check_places(world)
    assert world.cancelled(L3) == []
    world.report(held[1], [ok(task, value=b"a")], L2, final=False)
    assert [(one.task, one.value) for one in world.tasks()] == [(task, b"a")]
