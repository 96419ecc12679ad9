"""Moments as people type them: today or tomorrow, or a date; and how moments are worded."""

import argparse
import time
from collections.abc import Iterator

import pytest

from lender.cli import moments, words

NOON = 1_795_262_400.0  # 2026-11-21 12:00 UTC
HOUR = 3600.0


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("18:00", NOON + 6 * HOUR),
        ("8:30", NOON + 20.5 * HOUR),
        ("12:00", NOON + 24 * HOUR),
        ("2026-11-22 12:00", NOON + 24 * HOUR),
        ("2026-11-21T12:01", NOON + 60),
    ],
)
def test_a_time_is_the_next_one(text: str, moment: float) -> None:
    assert moments.moment_s(text, NOON) == moment


def test_the_last_day_of_a_month_has_a_tomorrow() -> None:
    last = NOON + 9 * 24 * HOUR
    assert words.when(moments.moment_s("08:00", last), last) == "tomorrow 08:00"


@pytest.mark.parametrize(
    "text", ["", "18", "24:00", "12:60", "2026-02-30 10:00", "2026-11-21 11:00", "2026-11-21"]
)
def test_what_is_no_time_or_has_passed_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        moments.moment_s(text, NOON)


def test_a_deadline_is_either() -> None:
    assert moments.deadline_s("10m") == pytest.approx(time.time() + 600, abs=5)
    assert moments.deadline_s("18:00") > time.time()
    for text in ("0", "0s", "367d", "-5m"):
        with pytest.raises(argparse.ArgumentTypeError):
            moments.deadline_s(text)


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (6, "18:00"),
        (20, "tomorrow 08:00"),
        (36, "23 Nov"),
        (24 * 60, "20 Jan 2027"),
        (-1, "11:00"),
    ],
)
def test_moments_are_as_short_as_their_distance_allows(hours: float, text: str) -> None:
    assert words.when(NOON + hours * HOUR, NOON) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (840, "14 min"), (7200, "2 h"), (11_100, "3 h 5 min"),
     (200_000, "2 days")],
)  # fmt: skip
def test_spans_leave_out_what_does_not_matter(seconds: float, text: str) -> None:
    assert words.span(seconds) == text
