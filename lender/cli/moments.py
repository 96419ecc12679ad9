"""Moments as people type them, for argparse: `18:00`, `2026-11-21 18:00`, `10m` from now."""

import argparse
import re
import time

from lender.service.quantities import duration_s

_CLOCK = r"(\d{1,2}):(\d{2})"
_DATE = r"(\d{4})-(\d{2})-(\d{2})"
_DURATION_S_MAX = 366 * 86_400.0


def moment_s(text: str, now: float | None = None) -> float:
    """Read a local time as seconds since the epoch.

    A time of day means the next one, today or tomorrow; a date may stand before it, with a space
    or a T between.
    """
    now = time.time() if now is None else now
    if match := re.fullmatch(_CLOCK, text):
        hour, minute = int(match[1]), int(match[2])
        today = time.localtime(now)
        for day in (today.tm_mday, today.tm_mday + 1):
            moment = _local(today.tm_year, today.tm_mon, day, hour, minute, text)
            if moment > now:
                return moment
    elif match := re.fullmatch(f"{_DATE}[T ]{_CLOCK}", text):
        year, month, day, hour, minute = map(int, match.groups())
        moment = _local(year, month, day, hour, minute, text)
        if time.localtime(moment)[:3] != (year, month, day):
            raise argparse.ArgumentTypeError(f"{text!r} is no date of the calendar")
        if moment > now:
            return moment
        raise argparse.ArgumentTypeError(f"{text!r} has passed")
    raise argparse.ArgumentTypeError(f"{text!r} is no time; write 18:00 or '2026-11-21 18:00'")


def span_s(text: str) -> float:
    """Read a duration that a pause can have: more than nothing, at most a year."""
    seconds = duration_s(text)
    if not 0 < seconds <= _DURATION_S_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not between a second and a year")
    return seconds


def deadline_s(text: str) -> float:
    """Read either of them as seconds since the epoch."""
    return moment_s(text) if ":" in text else time.time() + span_s(text)


def _local(year: int, month: int, day: int, hour: int, minute: int, text: str) -> float:
    if hour > 23 or minute > 59:
        raise argparse.ArgumentTypeError(f"{text!r} is no time of day")
    try:
        return time.mktime((year, month, day, hour, minute, 0, 0, 0, -1))
    except (OverflowError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range") from error
