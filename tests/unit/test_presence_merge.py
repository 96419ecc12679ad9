"""What follows from what all sources say; every doubt is the owner's."""

import pytest

from lender.core.signals import Presence
from lender.sensors.sighting import Sighting, Surroundings, merge

NOW = 10_000.0
OWNER, OTHER = 1000, 1001


def ago(seconds: float, source: str = "mutter", uid: int | None = OWNER) -> Sighting:
    return Sighting(source, uid=uid, last_input_at=NOW - seconds)


def sits(*uids: int, **fields: object) -> Sighting:
    return Sighting("logind", sitting=frozenset(uids), desktop=bool(uids), **fields)  # type: ignore[arg-type]  # by name


def presence(*sightings: Sighting) -> Presence:
    return merge(NOW, sightings, OWNER).presence


def test_nothing_known_is_a_desktop_with_somebody_at_it() -> None:
    assert merge(NOW, [], OWNER) == Surroundings(Presence(desktop=True))
    assert Surroundings().presence == Presence(desktop=True)


def test_what_was_a_desktop_stays_one_while_nobody_tells() -> None:
    assert merge(NOW, [], OWNER, desktop=False).presence.desktop is False
    assert merge(NOW, [sits()], OWNER, desktop=True).presence.desktop is False


def test_the_shortest_idle_time_counts_and_all_sources_are_named_in_order() -> None:
    found = presence(ago(900), ago(3, "evdev", None), ago(60, "tty"), sits(OWNER, locked=False))
    assert found.idle_s == 3
    assert found.sources == ("mutter", "evdev", "tty", "logind")


def test_input_in_the_future_is_now() -> None:
    assert presence(ago(-5)).idle_s == 0


@pytest.mark.parametrize(
    ("sightings", "idle_s"),
    [
        pytest.param([ago(900)], 900, id="nobody tells who sits here: the owner does"),
        pytest.param([ago(900, uid=OTHER)], None, id="a stranger can't vouch for the owner"),
        pytest.param([ago(900), sits(OTHER)], None, id="nor the owner for who sits here"),
        pytest.param([ago(900, uid=OTHER), sits(OTHER)], 900, id="who sits here is believed"),
        pytest.param([ago(900), sits(OWNER, OTHER)], None, id="one of two is not seen"),
        pytest.param([ago(900), ago(60, uid=OTHER), sits(OWNER, OTHER)], 60, id="both are"),
        pytest.param([ago(900, uid=None), sits(OTHER)], 900, id="the keyboards see everybody"),
        pytest.param([ago(900), sits()], 900, id="nobody sits here"),
        pytest.param(
            [ago(900, uid=None), sits(remote_desktops=frozenset({OTHER}))],
            None,
            id="the keyboards do not see a remote desktop",
        ),
        pytest.param([sits(OWNER)], None, id="no source of input"),
    ],
)
def test_an_idle_time_is_believed_if_everybody_here_is_seen(
    sightings: list[Sighting], idle_s: float | None
) -> None:
    assert presence(*sightings).idle_s == idle_s


@pytest.mark.parametrize(
    ("locks", "locked"),
    [
        ([], None),
        ([(None, True)], True),
        ([(None, False)], False),
        ([(None, True), (OWNER, False)], False),
        ([(OTHER, True)], None),
        ([(OWNER, True)], True),
    ],
)
def test_a_lock_is_believed_if_it_covers_everybody_here(
    locks: list[tuple[int | None, bool]], *, locked: bool | None
) -> None:
    assert presence(*(Sighting("x", uid=uid, locked=one) for uid, one in locks)).locked is locked


def test_the_word_of_who_knows_the_sessions_beats_a_display_without_anybody() -> None:
    assert presence(Sighting("x11", uid=OWNER, desktop=True), sits()).desktop is False
    assert presence(Sighting("x11", uid=OWNER, desktop=True)).desktop is True
    assert presence(Sighting("utmp", desktop=False)).desktop is False


def test_the_rest_is_told_by_whoever_knows() -> None:
    found = merge(
        NOW,
        [
            Sighting("a", inhibited_by="", game=False, remote_sessions=1),
            Sighting("b", inhibited_by="mpv", game=True, metered=True, remote_sessions=2),
            Sighting("c", inhibited_by="zoom"),
        ],
        OWNER,
    )
    assert (found.inhibited_by, found.game, found.metered) == ("mpv", True, True)
    assert found.presence.remote_sessions == 3
