"""In which order the core gets what waits for it."""

import asyncio

import pytest

from broker.core.events import (
    CancelRequested,
    DoneReported,
    Event,
    HearingLost,
    JobSubmitted,
    OfferReceived,
    QueryReceived,
)
from broker.service.intake import (
    LANE_BYTES_MAX,
    LANE_MAX,
    LENDER_BYTES_MAX,
    LENDER_MAX,
    LENDERS_BYTES_MAX,
    QUESTIONS_MAX,
    Intake,
)


def submission(who: str = "S", size_bytes: int = 10) -> JobSubmitted:
    return JobSubmitted(f"submit.{who}.job-0001", {}, b"x" * size_bytes)


def question(who: str = "S") -> QueryReceived:
    return QueryReceived(who, {}, b"", "_INBOX.1")


def taken(intake: Intake, count: int, cost_s: float = 0.001) -> list[type]:
    kinds = []
    for _ in range(count):
        event = intake.next(congested=False)
        if event is None:
            break
        kinds.append(type(event))
        intake.charge(cost_s)
    return kinds


def report(lender: str = "L", size_bytes: int = 10) -> DoneReported:
    return DoneReported(lender, b"x" * size_bytes, "_INBOX.1")


def test_outcomes_come_first_and_lenders_and_submitters_share_the_time() -> None:
    intake = Intake()
    for number in range(50):
        intake.take_in("S", submission())
        assert intake.hear(OfferReceived(f"L{number}", b""))
    intake.note(HearingLost())
    kinds = taken(intake, 21)
    assert kinds[0] is HearingLost
    assert 9 <= kinds.count(OfferReceived) <= 11


def test_lenders_wait_for_no_dear_question() -> None:
    intake = Intake()
    for _ in range(QUESTIONS_MAX):
        assert intake.ask(question())
    assert not intake.ask(question())
    assert intake.ask(question("other"))
    for number in range(40):
        assert intake.hear(OfferReceived(f"L{number}", b""))
    order: list[Event] = []
    while (event := intake.next(congested=False)) is not None:
        order.append(event)
        intake.charge(0.020 if isinstance(event, QueryReceived) else 0.001)
    first_30 = order[:30]
    assert sum(isinstance(one, OfferReceived) for one in first_30) >= 27


def test_nothing_of_submitters_is_taken_up_while_commits_are_congested() -> None:
    intake = Intake()
    intake.take_in("S", submission())
    assert intake.is_ready(congested=False)
    assert not intake.is_ready(congested=True)
    assert intake.next(congested=True) is None
    assert intake.hear(OfferReceived("L", b""))
    assert intake.is_ready(congested=True)
    assert isinstance(intake.next(congested=True), OfferReceived)


def test_no_lender_waits_behind_anothers_flood() -> None:
    intake = Intake()
    heard = sum(intake.hear(report("flood")) for _ in range(10_000))
    assert heard == LENDER_MAX
    assert intake.hear(OfferReceived("calm", b""))
    assert intake.hear(report("calm"))
    order: list[Event] = []
    while (event := intake.next(congested=False)) is not None:
        order.append(event)
        intake.charge(0.001)
    assert len(order) == LENDER_MAX + 2
    calm = [at for at, event in enumerate(order) if event.lender == "calm"]  # type: ignore[union-attr]  # lenders' words alone
    assert calm[-1] <= 4
    assert isinstance(order[calm[0]], OfferReceived)


def test_who_sends_what_costs_much_waits_for_the_others() -> None:
    intake = Intake()
    for number in range(100):
        assert intake.hear(report("dear"))
        assert intake.hear(report(f"L{number % 5}"))
    order = []
    while (event := intake.next(congested=False)) is not None:
        assert isinstance(event, DoneReported)
        order.append(event.lender)
        intake.charge(0.1 if event.lender == "dear" else 0.001)
    assert order[:102].count("dear") <= 2


def test_the_newest_of_offers_that_wait_counts_and_reports_stay_in_their_order() -> None:
    intake = Intake()
    for number in range(1_000):
        assert intake.hear(OfferReceived("L", b"%d" % number))
    assert intake.hear(report())
    for number in range(1_000):
        assert intake.hear(OfferReceived("L", b"later %d" % number))
    assert intake.next(congested=False) == OfferReceived("L", b"999")
    assert intake.next(congested=False) == report()
    assert intake.next(congested=False) == OfferReceived("L", b"later 999")
    assert intake.next(congested=False) is None


def test_lenders_fill_no_more_memory_than_there_is_for_them() -> None:
    intake = Intake()
    large = LENDER_BYTES_MAX // 4 + 1
    assert [intake.hear(report("L", large)) for _ in range(6)] == [True] * 4 + [False] * 2
    waiting = 4 * large
    number = 0
    while waiting < LENDERS_BYTES_MAX:
        assert intake.hear(report(f"L{number // 4}", large))
        waiting, number = waiting + large, number + 1
    assert not intake.hear(report("L0", 1))
    assert intake.hear(report("who has nothing waiting", 1))
    assert not intake.hear(report("who has nothing waiting", 1))
    while intake.next(congested=False) is not None:
        intake.charge(0.001)
    assert intake.hear(report("L0", 1))


@pytest.mark.parametrize("size_bytes", [10, LANE_BYTES_MAX // 10])
def test_a_lane_has_room_for_so_many_and_so_much(size_bytes: int) -> None:
    intake = Intake()
    count = 0
    while intake.has_room("S"):
        assert intake.is_low("S") == (
            count <= LANE_MAX // 2 and count * size_bytes <= LANE_BYTES_MAX // 2
        )
        intake.take_in("S", submission(size_bytes=size_bytes))
        count += 1
    assert count == min(LANE_MAX, 1 + (LANE_BYTES_MAX - 1) // size_bytes)
    assert intake.has_room("other")
    for _ in range(2 * LANE_MAX):
        intake.hurry("S", CancelRequested("cancel.S.job-0001"))
    assert len(taken(intake, 5 * LANE_MAX)) == count + LANE_MAX
    assert intake.is_low("S")


async def test_whoever_waits_is_woken() -> None:
    intake = Intake()
    await intake.wait(0.001)
    waiting = asyncio.create_task(intake.wait(30.0))
    await asyncio.sleep(0)
    intake.take_in("S", submission())
    await waiting
    waiting = asyncio.create_task(intake.wait_for_room(30.0))
    await asyncio.sleep(0)
    assert intake.next(congested=False) is not None
    await waiting
    await intake.wait_for_room(0.001)
