"""At which times of the owner's a grant holds: always, idle, away, or weekly hours.

Standard library only: `lender grant` shows it without the daemon.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from lender.core.signals import PresenceState

DAY_S = 86_400
WEEK_S = 7 * DAY_S

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SINCE_MONDAY_S = 3 * DAY_S
"""1 January 1970 was a Thursday."""
_WORDS = {
    "always": "at any time",
    "idle": "only while you do not use the machine",
    "away": "only while you are away",
}
_EXAMPLE = "always, idle, away, or hours like 'Mon-Fri 18:00-08:00, Sat-Sun'"


def week_s(now: float, utc_offset_s: int) -> float:
    """Return the seconds since the owner's Monday 00:00, local time, 0 to `WEEK_S`.

    Args:
        now: seconds since the epoch.
        utc_offset_s: of the owner's local time.
    """
    return (now + utc_offset_s + _SINCE_MONDAY_S) % WEEK_S


@dataclass(frozen=True, slots=True)
class Hours:
    """The same hours of some days of the week; hours that end before they begin wrap overnight.

    Attributes:
        first_day, last_day: 0 for Monday to 6 for Sunday; a range may wrap around the weekend.
        start_s, end_s: seconds of the day, 0 to 86,400; never the same.
    """

    first_day: int = 0
    last_day: int = 6
    start_s: int = 0
    end_s: int = DAY_S

    def holds(self, week_s: float) -> bool:
        """Tell whether this second of the week lies within."""
        length_s = (self.end_s - self.start_s) % DAY_S or DAY_S
        days = (self.last_day - self.first_day) % 7
        # Seconds since the first day's start: how many days on, and how far into that one's hours.
        day, into_s = divmod(
            (week_s - self.first_day * DAY_S - self.start_s) % WEEK_S,
            DAY_S,
        )
        return day <= days and into_s < length_s

    def left_s(self, week_s: float) -> float:
        """Return how much longer they hold from this second of the week on, 0 if they don't."""
        into_s = (week_s - self.first_day * DAY_S - self.start_s) % WEEK_S % DAY_S
        length_s = (self.end_s - self.start_s) % DAY_S or DAY_S
        return length_s - into_s if self.holds(week_s) else 0.0

    def __str__(self) -> str:
        first, last = _DAYS[self.first_day], _DAYS[self.last_day]
        days = first if first == last else f"{first}-{last}"
        if (self.start_s, self.end_s) == (0, DAY_S):
            return days
        return f"{days} {_time(self.start_s)}-{_time(self.end_s)}"


@dataclass(frozen=True, slots=True)
class When:
    """A condition on the owner's presence, or on the hour of their week.

    Attributes:
        kind: idle holds while nobody uses the machine, away included; away only while away.
        hours: of kind hours, at least one; any of them is enough.
    """

    kind: Literal["always", "idle", "away", "hours"] = "always"
    hours: tuple[Hours, ...] = ()

    def holds(self, presence: PresenceState, week_s: float) -> bool:
        """Tell whether it holds.

        Args:
            presence: what the signals say of the owner.
            week_s: seconds since the owner's Monday 00:00, local time.
        """
        match self.kind:
            case "always":
                return True
            case "idle":
                return presence != "present"
            case "away":
                return presence == "away"
        return any(hours.holds(week_s) for hours in self.hours)

    def left_s(self, week_s: float) -> float:
        """Return how much longer it holds by the clock alone, whoever is present.

        Hours that follow on each other count as one.

        Returns:
            Seconds: 0 for hours that don't hold, infinity where no hour ends it.
        """
        if self.kind != "hours":
            return math.inf
        left_s = 0.0
        while left_s < WEEK_S:
            more_s = max(hours.left_s((week_s + left_s) % WEEK_S) for hours in self.hours)
            if not more_s:
                return left_s
            left_s += more_s
        return math.inf

    @property
    def text(self) -> str:
        """For people: `only while you are away`."""
        return _WORDS.get(self.kind) or f"only {self}"

    def __str__(self) -> str:
        """Return what `parse_when` reads: `away`, `Mon-Fri 18:00-08:00, Sat-Sun`."""
        return ", ".join(str(hours) for hours in self.hours) or self.kind


ALWAYS = When()


def parse_when(text: str) -> When:
    """Read `always`, `idle`, `away`, or weekly hours like `Mon-Fri 18:00-08:00, Sat-Sun`.

    Days without hours are whole days, hours without days are those of every day.

    Raises:
        ValueError: it is none of them; the message names the part that is wrong.
    """
    word = text.strip().lower()
    match word:
        case "always" | "idle" | "away":
            return When(word)
        case "":
            raise ValueError(f"no time is named: write {_EXAMPLE}")
        case _:
            return When("hours", tuple(_hours(part.strip()) for part in text.split(",")))


def _hours(part: str) -> Hours:
    days = r"([a-z]+)(?:\s*-\s*([a-z]+))?"
    times = r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})"
    found = re.fullmatch(rf"(?:{days})?\s*(?:{times})?", part, re.IGNORECASE | re.ASCII)
    if found is None or not part:
        raise ValueError(f"{part!r} is no time: write {_EXAMPLE}")
    first, last, *clock = found.groups()
    first_day = 0 if first is None else _day(first, part)
    last_day = 6 if first is None else first_day if last is None else _day(last, part)
    if clock[0] is None:
        return Hours(first_day, last_day)
    start_s, end_s = _seconds(clock[0], clock[1], part), _seconds(clock[2], clock[3], part)
    if start_s in (end_s, DAY_S):
        raise ValueError(f"{part!r} names no time: it ends where it begins")
    return Hours(first_day, last_day, start_s, end_s)


def _day(name: str, part: str) -> int:
    found = [day for day, full in enumerate(_DAY_NAMES) if full.startswith(name.lower())]
    if len(name) < 3 or not found:
        raise ValueError(f"{name!r} in {part!r} is no day: write {', '.join(_DAYS)}")
    return found[0]


def _seconds(hour: str, minute: str, part: str) -> int:
    seconds = int(hour) * 3600 + int(minute) * 60
    if int(minute) > 59 or seconds > DAY_S:
        raise ValueError(f"{hour}:{minute} in {part!r} is no time of day: 00:00 to 24:00")
    return seconds


def _time(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"
