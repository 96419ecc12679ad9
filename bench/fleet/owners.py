"""What owners do with their machines: when they sit there, walk away, and close the lid."""

from collections.abc import Callable, Iterator
from enum import Enum, auto
from itertools import count
from random import Random
from typing import NamedTuple

MINUTE_S = 60.0
HOUR_S = 3600.0
DAY_S = 86_400.0

_FIRST_WEEKDAY = 3
"""The simulation begins on a Thursday, at midnight: a weekend comes on its third day."""

_PAUSED_AT_ONCE = 0.01
_UNANNOUNCED = 0.15
"""Of laptops that are closed: how many go without a word."""


class Mode(Enum):
    """What a machine is at."""

    AWAY = auto()
    """On, and nobody there: all that its owner gives is lent."""
    IN_USE = auto()
    """Its owner is there."""
    PAUSED = auto()
    """Its owner said pause."""
    OFF = auto()
    """Asleep or shut down, after lenderd has had time to hand back what ran."""
    GONE = auto()
    """The same without a word: the lid was closed, the cable or the network is gone."""


Change = tuple[float, Mode]
"""From when on, in seconds from the beginning."""

Days = Callable[[Random], Iterator[Change]]


class Kind(NamedTuple):
    """A kind of machine; shares and weights are relative."""

    name: str
    share: int
    arch: str
    slots: tuple[int, ...]
    gib_per_slot: int
    speed: tuple[float, float]
    """Of each machine between these; a task of 60 s takes 60 s at 1."""
    lends_beside: float
    """How many of the owners go on lending two cores while they sit there."""
    days: Days


def _is_workday(day: int) -> bool:
    return (day + _FIRST_WEEKDAY) % 7 < 5


def _presence(rng: Random, come_s: float, go_s: float, use_s: float, away_s: float) -> list[Change]:
    """Return what an owner does who is there between two times, and now and then is not."""
    changes = []
    now_s = come_s
    while now_s < go_s:
        mode = Mode.PAUSED if rng.random() < _PAUSED_AT_ONCE else Mode.IN_USE
        changes.append((now_s, mode))
        now_s += rng.expovariate(1 / use_s)
        if now_s < go_s:
            changes.append((now_s, Mode.AWAY))
            now_s += rng.expovariate(1 / away_s)
    return changes


def _office(rng: Random) -> Iterator[Change]:
    """A PC at work; three in five are left on."""
    after = Mode.AWAY if rng.random() < 0.6 else Mode.OFF
    yield 0.0, after
    for day in count():
        if _is_workday(day):
            come_s = day * DAY_S + rng.gauss(8.8, 0.7) * HOUR_S
            go_s = day * DAY_S + rng.gauss(17.5, 0.9) * HOUR_S
            yield from _presence(rng, come_s, go_s, 35 * MINUTE_S, 14 * MINUTE_S)
            yield go_s, after


def _laptop(rng: Random) -> Iterator[Change]:
    """Open in meetings and at the desk, closed in between, closed at night."""
    yield 0.0, Mode.OFF
    for day in count():
        if not (_is_workday(day) or rng.random() < 0.3):
            continue
        now_s = day * DAY_S + rng.gauss(9.0, 1.0) * HOUR_S
        end_s = day * DAY_S + rng.gauss(18.5, 1.5) * HOUR_S
        while now_s < end_s:
            open_s = rng.expovariate(1 / (70 * MINUTE_S))
            yield from _presence(rng, now_s, now_s + open_s, 18 * MINUTE_S, 9 * MINUTE_S)
            now_s += open_s
            yield now_s, Mode.GONE if rng.random() < _UNANNOUNCED else Mode.OFF
            now_s += rng.expovariate(1 / (40 * MINUTE_S))


def _home(rng: Random) -> Iterator[Change]:
    """A PC at home: on in the evening and at weekends, and some nights left on."""
    yield 0.0, Mode.OFF
    for day in count():
        come_s = day * DAY_S + rng.gauss(18.0 if _is_workday(day) else 11.0, 1.2) * HOUR_S
        go_s = day * DAY_S + rng.gauss(23.0, 0.8) * HOUR_S
        yield from _presence(rng, come_s, go_s, 40 * MINUTE_S, 20 * MINUTE_S)
        yield go_s, Mode.AWAY if rng.random() < 0.4 else Mode.OFF


def _server(rng: Random) -> Iterator[Change]:
    """A machine that nobody sits at; once a week or so its administrator needs it for an hour."""
    yield 0.0, Mode.AWAY
    now_s = 0.0
    while True:
        now_s += rng.expovariate(1 / (7 * DAY_S))
        yield now_s, Mode.PAUSED
        now_s += rng.expovariate(1 / HOUR_S)
        yield now_s, Mode.AWAY


KINDS = (
    Kind("office PC", 45, "x86_64", (4, 4, 6), 4, (0.8, 1.3), 0.3, _office),
    Kind("laptop", 30, "x86_64", (4,), 2, (0.7, 1.1), 0.0, _laptop),
    Kind("home PC", 10, "x86_64", (6,), 4, (0.9, 1.5), 0.1, _home),
    Kind("server", 10, "x86_64", (12, 16), 4, (0.9, 1.2), 1.0, _server),
    Kind("Raspberry Pi", 5, "aarch64", (3,), 1, (0.25, 0.35), 1.0, _server),
)
