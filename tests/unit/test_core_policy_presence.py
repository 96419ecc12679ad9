"""Who counts as there: at once by any input, not for long by a bump against the desk."""

import pytest
from core_world import GIB, START

from lender.core.policy import PresenceRule
from lender.core.presence import PresenceWatch, presence_words
from lender.core.signals import Presence, PresenceState, Signals


def signals(presence: Presence, inhibited_by: str = "") -> Signals:
    return Signals(0.0, GIB, presence=presence, inhibited_by=inhibited_by)


@pytest.mark.parametrize(
    ("presence", "state"),
    [
        (Presence(idle_s=0, desktop=True), "present"),
        (Presence(idle_s=299, desktop=True), "present"),
        (Presence(idle_s=300, desktop=True), "idle"),
        (Presence(idle_s=900, desktop=True), "away"),
        (Presence(idle_s=0, locked=True, desktop=True), "away"),
        (Presence(idle_s=None, desktop=True), "present"),
        (Presence(idle_s=None, locked=False, desktop=True), "present"),
        (Presence(idle_s=None, desktop=False), "away"),
        (Presence(idle_s=10, desktop=False), "present"),
        (Presence(idle_s=None, desktop=False, remote_sessions=1), "present"),
        (Presence(idle_s=9999, locked=True, desktop=True, remote_sessions=1), "present"),
    ],
)
def test_one_reading_tells(presence: Presence, state: PresenceState) -> None:
    assert PresenceWatch(PresenceRule()).read(START, signals(presence)) == state


def test_a_film_needs_no_input_unless_the_screen_is_locked() -> None:
    watch = PresenceWatch(PresenceRule())
    watching = Presence(idle_s=7200, desktop=True)
    assert watch.read(START, signals(watching, "VLC")) == "present"
    assert watch.read(START + 299, signals(watching)) == "present", "the film has just ended"
    assert watch.read(START + 300, signals(watching)) == "idle"
    locked = Presence(idle_s=7200, locked=True, desktop=True)
    assert watch.read(START + 301, signals(locked, "VLC")) == "away"


class Desk:
    """Reads once a second what a source would tell after these inputs."""

    def __init__(self, *inputs_at: float, before_s: float = 600.0) -> None:
        self.watch = PresenceWatch(PresenceRule())
        self.inputs = sorted(inputs_at)
        self.began = -before_s
        self.states = [self._read(now) for now in range(-5, 1000)]

    def _read(self, now: float) -> PresenceState:
        last = max((at for at in self.inputs if at <= now), default=self.began)
        return self.watch.read(START + now, signals(Presence(now - last, False, True)))

    def at(self, now: int) -> PresenceState:
        return self.states[now + 5]


def test_a_bump_counts_at_once_and_is_forgiven_after_a_minute() -> None:
    desk = Desk(0.0, 3.0)
    assert [desk.at(now) for now in (-1, 0, 59, 60, 61)] == [
        "idle", "present", "present", "idle", "idle",
    ]  # fmt: skip
    assert desk.at(300) == "away", "as if nobody had touched it: 15 min since the last real input"


def test_whoever_goes_on_is_there_for_the_whole_time() -> None:
    desk = Desk(0.0, 3.0, 20.0)
    assert desk.at(319) == "present"
    assert desk.at(320) == "idle"


def test_a_second_touch_before_somebody_would_be_idle_is_no_bump() -> None:
    desk = Desk(0.0, 200.0)
    assert (desk.at(100), desk.at(200), desk.at(499), desk.at(500)) == (
        "idle", "present", "present", "idle",
    )  # fmt: skip


def test_a_bump_long_after_another_is_a_bump_again() -> None:
    desk = Desk(0.0, 400.0)
    assert (desk.at(399), desk.at(400), desk.at(459), desk.at(460)) == (
        "away", "present", "present", "away",
    )  # fmt: skip


def test_unlocking_is_no_bump() -> None:
    watch = PresenceWatch(PresenceRule())
    watch.read(START, signals(Presence(idle_s=1000, desktop=True)))
    assert watch.read(START + 1, signals(Presence(1.0, True, True))) == "away"
    assert watch.read(START + 2, signals(Presence(2.0, False, True))) == "present"
    assert watch.read(START + 200, signals(Presence(200.0, False, True))) == "present"


def test_after_forgetting_a_reading_stands_by_itself() -> None:
    watch = PresenceWatch(PresenceRule())
    watch.read(START, signals(Presence(2.0, True, True)))
    watch.forget()
    assert watch.read(START + 9, signals(Presence(400.0, False, True))) == "idle"


@pytest.mark.parametrize(
    ("state", "presence", "words"),
    [
        ("away", Presence(840, True, True, 0, ("logind", "mutter")),
         "away 14 min, screen locked (logind, mutter)"),
        ("idle", Presence(7300, None, True, 0, ("x11",)), "idle 2 h (x11)"),
        ("present", Presence(2, None, True, 0, ("x11",)), "present (x11)"),
        ("present", Presence(None, None, True), "present (no source tells)"),
        ("away", Presence(None, None, False), "away (nobody can sit here)"),
        ("present", Presence(None, None, False, 2, ("utmp",)),
         "present, 2 logged in from elsewhere (utmp)"),
    ],
)  # fmt: skip
def test_presence_in_words(state: PresenceState, presence: Presence, words: str) -> None:
    assert presence_words(state, presence) == words
