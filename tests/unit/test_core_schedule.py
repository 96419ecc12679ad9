"""When a grant holds: presence, and the hours of the owner's week."""

import math

import pytest

from lender.core.schedule import ALWAYS, DAY_S, WEEK_S, Hours, When, parse_when, week_s
from lender.core.signals import PresenceState

MON, TUE, FRI, SAT, SUN = (day * DAY_S for day in (0, 1, 4, 5, 6))
H = 3600


def holds(text: str, second: float, presence: PresenceState = "present") -> bool:
    return parse_when(text).holds(presence, second % WEEK_S)


@pytest.mark.parametrize(
    ("text", "presences"),
    [
        ("always", {"present", "idle", "away"}),
        ("idle", {"idle", "away"}),
        ("AWAY ", {"away"}),
        ("Tue", set()),
        ("Mon", {"present", "idle", "away"}),
    ],
)
def test_presence_decides_or_the_hour_does(text: str, presences: set[PresenceState]) -> None:
    every: tuple[PresenceState, ...] = ("present", "idle", "away")
    assert {one for one in every if holds(text, MON + H, one)} == presences


def test_hours_of_a_day_begin_at_once_and_end_before_their_end() -> None:
    assert not holds("Mon 09:00-17:00", MON + 9 * H - 1)
    assert holds("Mon 09:00-17:00", MON + 9 * H)
    assert holds("Mon 09:00-17:00", MON + 17 * H - 1)
    assert not holds("Mon 09:00-17:00", MON + 17 * H)
    assert not holds("Mon 09:00-17:00", TUE + 10 * H)


def test_a_night_belongs_to_the_day_that_it_begins_on() -> None:
    nights = "Mon-Fri 18:00-08:00"
    assert holds(nights, MON + 20 * H)
    assert holds(nights, SAT + 7 * H)
    assert not holds(nights, SAT + 8 * H)
    assert not holds(nights, SAT + 20 * H)
    assert not holds(nights, MON + 7 * H)
    assert not holds(nights, FRI + 12 * H)


def test_sundays_night_ends_on_monday() -> None:
    assert holds("Sun 22:00-06:00", SUN + 23 * H)
    assert holds("Sun 22:00-06:00", MON + 5 * H)
    assert not holds("Sun 22:00-06:00", MON + 6 * H)


def test_days_wrap_around_the_weekend() -> None:
    for day in (FRI, SAT, SUN, MON):
        assert holds("Fri-Mon", day)
        assert holds("Fri-Mon", day + DAY_S - 1)
    assert not holds("Fri-Mon", TUE)
    assert not holds("Fri-Mon", FRI - 1)


def test_several_hours_are_one_or_the_other() -> None:
    both = "Mon-Fri 18:00-08:00, Sat-Sun"
    assert holds(both, TUE + 19 * H)
    assert holds(both, SUN + 12 * H)
    assert not holds(both, TUE + 12 * H)


def test_what_is_left_of_hours_goes_on_into_those_that_follow() -> None:
    def left_s(text: str, second: float) -> float:
        return parse_when(text).left_s(second % WEEK_S)

    assert left_s("Mon 09:00-17:00", MON + 10 * H) == 7 * H
    assert left_s("Mon 09:00-17:00", MON + 17 * H) == 0
    assert left_s("Sun 22:00-06:00", SUN + 23 * H) == 7 * H
    assert left_s("Mon-Fri 18:00-08:00, Sat-Sun", FRI + 18 * H) == 6 * H + 2 * DAY_S
    assert left_s("Mon-Fri 18:00-08:00, Sat-Sun", SAT + H) == 2 * DAY_S - H
    assert left_s("Mon-Sun", TUE) == math.inf
    assert left_s("away", TUE) == math.inf


def test_hours_without_days_are_those_of_every_day() -> None:
    assert holds("22:00-24:00", SUN + 23 * H)
    assert holds("22:00-24:00", MON + 22 * H)
    assert not holds("22:00-24:00", MON)
    assert str(parse_when("22:00-24:00")) == "Mon-Sun 22:00-24:00"


@pytest.mark.parametrize(
    ("typed", "kept", "told"),
    [
        ("always", "always", "at any time"),
        ("Idle", "idle", "only while you do not use the machine"),
        (" away", "away", "only while you are away"),
        ("monday - FRIDAY 8:00 - 9:30", "Mon-Fri 08:00-09:30", "only Mon-Fri 08:00-09:30"),
        ("sat-sun,Wed", "Sat-Sun, Wed", "only Sat-Sun, Wed"),
        ("Mon 00:00-24:00", "Mon", "only Mon"),
    ],
)
def test_it_is_told_and_kept_in_one_form(typed: str, kept: str, told: str) -> None:
    when = parse_when(typed)
    assert (str(when), when.text) == (kept, told)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no time is named"),
        ("never", "'never' in 'never' is no day"),
        ("Mon,", "'' is no time"),
        ("Mo 10:00-12:00", "'Mo' in"),
        ("Mon-Foo", "'Foo' in 'Mon-Foo' is no day"),
        ("Mon 10:00", "is no time"),
        ("Mon 10:00-10:00", "ends where it begins"),
        ("Mon 24:00-10:00", "ends where it begins"),
        ("Mon 25:00-26:00", "25:00 in"),
        ("Mon 10:60-12:00", "10:60 in"),
        ("Mon 24:01-12:00", "24:01 in"),
        ("Mon 10-12", "is no time"),
        ("away, Mon", "'away' in 'away' is no day"),
        ("Mon;Tue", "'Mon;Tue' is no time"),
        ("Mon \u0661\u0660:00-12:00", "is no time"),
    ],
)
def test_what_is_no_time_is_named(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named.replace("(", r"\(")):
        parse_when(text)


def test_the_week_begins_on_the_owners_monday() -> None:
    monday = 1_763_942_400.0  # 24 November 2025, 00:00 UTC
    assert week_s(monday, 0) == 0
    assert week_s(monday - 1, 0) == WEEK_S - 1
    assert week_s(monday, 3600) == 3600
    assert week_s(monday, -3600) == WEEK_S - 3600


def test_nothing_said_means_always() -> None:
    assert When() == ALWAYS == parse_when("always")
    assert Hours().holds(0)
    assert Hours().holds(WEEK_S - 1)
