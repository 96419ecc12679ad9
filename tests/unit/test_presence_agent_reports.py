"""What lenderd takes from agents, and what it does not."""

import pytest

from lender.daemon.agent_reports import AGENTS_MAX, FORGET_S, AgentReports, ReportError
from lender.sensors.sighting import Sighting, merge

OWNER, OTHER = 1000, 1001
SITS = Sighting("logind", sitting=frozenset({OWNER}), desktop=True)


def idle_s(reports: AgentReports, now: float, *others: Sighting) -> float | None:
    return merge(now, [*others, *reports.sightings(now)], OWNER).presence.idle_s


def test_the_owners_agent_tells_his_idle_time_and_it_grows_older() -> None:
    reports = AgentReports()
    reports.told({"v": 1, "verb": "presence", "idle_s": 600, "source": "mutter"}, OWNER, 100.0)
    assert idle_s(reports, 100.0) == 600
    assert idle_s(reports, 130.0, SITS) == 630
    [told] = reports.sightings(130.0)
    assert told.source == "agent of uid 1000: mutter"


def test_a_stranger_can_make_the_machine_more_present_only() -> None:
    reports = AgentReports()
    seen = Sighting("evdev", last_input_at=40.0)
    reports.told({"idle_s": 5000, "locked": True}, OTHER, 100.0)
    surroundings = merge(100.0, [SITS, *reports.sightings(100.0)], OWNER)
    assert surroundings.presence.idle_s is None
    assert surroundings.presence.locked is None
    assert idle_s(reports, 100.0, SITS, seen) == 60
    reports.told({"idle_s": 2, "game": True, "inhibited_by": "mpv"}, OTHER, 100.0)
    surroundings = merge(100.0, [SITS, seen, *reports.sightings(100.0)], OWNER)
    assert surroundings.presence.idle_s == 2
    assert (surroundings.game, surroundings.inhibited_by) == (True, "mpv")


def test_an_agent_that_falls_silent_is_forgotten() -> None:
    reports = AgentReports()
    reports.told({"idle_s": 600}, OWNER, 100.0)
    assert idle_s(reports, 100.0 + FORGET_S) == 600 + FORGET_S
    assert idle_s(reports, 100.1 + FORGET_S) is None


def test_the_latest_word_of_a_user_replaces_the_earlier() -> None:
    reports = AgentReports()
    reports.told({"idle_s": 600, "game": True}, OWNER, 100.0)
    reports.told({"idle_s": None}, OWNER, 101.0)
    [told] = reports.sightings(101.0)
    assert (told.last_input_at, told.game) == (None, False)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"idle_s": -1}, "idle_s"),
        ({"idle_s": "60"}, "idle_s"),
        ({"idle_s": True}, "idle_s"),
        ({"idle_s": float("nan")}, "idle_s"),
        ({"idle_s": float("inf")}, "idle_s"),
        ({"idle_s": 10**400}, "idle_s"),
        ({"idle_s": [1]}, "idle_s"),
        ({"locked": 1}, "locked"),
        ({"locked": "no"}, "locked"),
        ({"inhibited_by": None}, "inhibited_by"),
        ({"inhibited_by": "x" * 201}, "inhibited_by"),
        ({"inhibited_by": "\x1b[2J"}, "inhibited_by"),
        ({"game": 0}, "game"),
        ({"source": 7}, "source"),
        ({"uid": 0}, "uid"),
    ],
)
def test_a_malformed_report_is_refused_with_the_field_named(
    request_: dict[str, object], field: str
) -> None:
    reports = AgentReports()
    reports.told({"idle_s": 5}, OWNER, 0.0)
    with pytest.raises(ReportError, match=field):
        reports.told(request_, OWNER, 1.0)
    [told] = reports.sightings(1.0)
    assert told.last_input_at == -5


def test_so_many_users_and_no_more() -> None:
    reports = AgentReports()
    for uid in range(AGENTS_MAX):
        reports.told({"idle_s": 5}, uid, 0.0)
    with pytest.raises(ReportError, match="users"):
        reports.told({"idle_s": 5}, AGENTS_MAX, 1.0)
    reports.told({"idle_s": 6}, 0, 1.0)
    reports.told({"idle_s": 5}, AGENTS_MAX, 1.0 + FORGET_S)
