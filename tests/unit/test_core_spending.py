"""Budgets are held against what was used in the owner's own days and weeks."""

import pytest

from lender.core.budget import Bound, Usage, parse_budget
from lender.core.schedule import DAY_S, WEEK_S
from lender.core.spending import Spending

MONDAY = 1_763_942_400.0  # 24 November 2025, 00:00 UTC
H = 3600.0
DAILY = parse_budget(["10cpuh/day"])
WEEKLY = parse_budget(["5GB/week"])


def cpu(hours: float) -> Usage:
    return Usage(cpu_s=hours * H)


def test_budgets_are_read_in_the_units_that_people_type() -> None:
    typed = ["10cpuh/day, 90 cpumin / WEEK", "5GB/week", "250MB/day", "0.5kWh/day", "3000wh/week"]
    assert parse_budget(typed) == (
        Bound("cpu_s", 36_000, "day"),
        Bound("cpu_s", 5400, "week"),
        Bound("moved_bytes", 5e9, "week"),
        Bound("moved_bytes", 250e6, "day"),
        Bound("energy_wh", 500, "day"),
        Bound("energy_wh", 3000, "week"),
    )
    assert parse_budget([]) == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "'' is no budget"),
        ("10", "'10' is no budget"),
        ("10cpuh", "is no budget"),
        ("10cpuh/month", "is no budget"),
        ("10apples/day", "is no budget"),
        ("-1GB/day", "is no budget"),
        ("1e3GB/day", "is no budget"),
        ("nanGB/day", "is no budget"),
        ("0GB/day", "allows next to nothing"),
        ("0.000001wh/day", "allows next to nothing"),
        ("1GB/day,500MB/day", "'500MB/day': a second bound"),
    ],
)
def test_what_is_no_budget_is_named(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        parse_budget([text])


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("10cpuh/day", "10 CPU hours a day"),
        ("12.5kWh/week", "12.5 kWh a week"),
        ("250MB/day", "0.25 GB moved a day"),
        ("100000GB/week", "100000 GB moved a week"),
    ],
)
def test_a_bound_is_told_exactly(typed: str, told: str) -> None:
    assert [bound.text for bound in parse_budget([typed])] == [told]


def test_a_days_budget_is_free_again_at_the_owners_midnight() -> None:
    spending, zone = Spending(), 2 * 3600
    spending.count("G-1", MONDAY + 10 * H, cpu(9.5), zone)
    assert spending.exhausted(MONDAY + 11 * H, zone, "G-1", DAILY) is None
    spending.count("G-1", MONDAY + 11 * H, cpu(0.75), zone)
    reason = "grant G-1 has used 10.25 of 10 CPU hours today, free again at midnight"
    assert spending.exhausted(MONDAY + 11 * H, zone, "G-1", DAILY) == reason
    midnight = MONDAY + 22 * H
    assert spending.exhausted(midnight - 1, zone, "G-1", DAILY) == reason
    assert spending.exhausted(midnight, zone, "G-1", DAILY) is None


def test_a_day_to_come_of_a_wrong_clock_lets_nothing_be_forgotten() -> None:
    spending = Spending()
    spending.count("G-1", MONDAY + 30 * 24 * H, cpu(0.1), 0)
    spending.count("G-1", MONDAY + 11 * H, cpu(10.5), 0)
    assert spending.exhausted(MONDAY + 11 * H, 0, "G-1", DAILY) is not None


def test_a_weeks_budget_is_free_again_on_monday() -> None:
    spending = Spending()
    for day in range(5):
        spending.count("G-1", MONDAY + day * DAY_S, Usage(moved_bytes=10**9), 0)
    reason = "grant G-1 has used 5 of 5 GB moved this week, free again on Monday"
    assert spending.exhausted(MONDAY + WEEK_S - 1, 0, "G-1", WEEKLY) == reason
    assert spending.exhausted(MONDAY + WEEK_S, 0, "G-1", WEEKLY) is None


def test_days_before_the_last_seven_are_forgotten() -> None:
    spending = Spending()
    for day in range(30):
        spending.count("G-1", MONDAY + day * DAY_S, cpu(1), 0)
    assert spending.used(MONDAY + 29 * DAY_S, 0, "week") == cpu(2)
    assert spending.used(MONDAY, 0, "week") == cpu(7)


def test_the_bound_that_is_free_again_last_is_told() -> None:
    spending = Spending()
    spending.count("G-1", MONDAY, Usage(cpu_s=36_000, moved_bytes=5 * 10**9), 0)
    for budget in (DAILY + WEEKLY, WEEKLY + DAILY):
        assert "on Monday" in str(spending.exhausted(MONDAY, 0, "G-1", budget))


def test_all_grants_together_have_a_budget_of_their_own() -> None:
    spending = Spending()
    spending.count("G-1", MONDAY, cpu(6), 0)
    assert spending.exhausted_in_all(MONDAY, 0, DAILY) is None
    spending.count("G-2", MONDAY, cpu(6), 0)
    assert spending.exhausted(MONDAY, 0, "G-1", DAILY) is None
    assert spending.exhausted_in_all(MONDAY, 0, DAILY) == (
        "lent work has used 12 of 10 CPU hours today, free again at midnight"
    )
    assert spending.used(MONDAY, 0, "day") == cpu(12)
    assert spending.used(MONDAY, 0, "day", "G-2") == cpu(6)
    assert spending.used(MONDAY, 0, "day", "G-3") == Usage()


def test_without_a_bound_nothing_is_exhausted() -> None:
    spending = Spending()
    spending.count("G-1", MONDAY, cpu(1e6), 0)
    assert spending.exhausted(MONDAY, 0, "G-1", ()) is None
    assert spending.exhausted_in_all(MONDAY, 0, ()) is None


def test_a_zone_that_is_set_back_gives_no_day_again() -> None:
    spending = Spending()
    spending.count("G-1", MONDAY + DAY_S + 60, cpu(11), 0)
    assert spending.exhausted(MONDAY + DAY_S + 120, -5 * 3600, "G-1", DAILY) is not None


def test_a_meter_that_goes_back_gives_nothing_back() -> None:
    spending = Spending()
    spending.count("G-1", MONDAY, cpu(10), 0)
    spending.count("G-1", MONDAY, Usage(-1e9, -(10**12), -5.0), 0)
    assert spending.used(MONDAY, 0, "week") == cpu(10)
