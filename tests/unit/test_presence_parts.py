"""The small pure parts: units, secrets, clocks, device kinds, when an agent tells."""

import struct
from pathlib import Path

import pytest

from lender.daemon.agent import LOOK_S, TELL_S, Report, Telling
from lender.sensors.dbus import UnansweredError
from lender.sensors.idle_evdev import is_for_people
from lender.sensors.idle_mac import MacIdle, idle_of
from lender.sensors.idle_screensaver import Unit
from lender.sensors.idle_x11 import cookie_of
from lender.sensors.sleep import SleepTracker
from lender.sensors.sleep_clocks import Clocks, read_clocks, slept_s


def unit_of(*answers: tuple[float, int]) -> float | None:
    unit = Unit()
    for at, answer in answers:
        unit.saw(at, answer)
    return unit.seconds


def test_milliseconds_show_at_once_and_seconds_after_three_spans() -> None:
    assert unit_of((0, 500), (5, 5500)) == 0.001
    assert unit_of((0, 0), (5, 5), (10, 10)) is None
    assert unit_of((0, 0), (5, 5), (10, 10), (15, 15)) == 1.0
    assert unit_of(*((second / 2, second // 2) for second in range(40))) == 1.0


def test_an_answer_that_never_grows_has_no_unit() -> None:
    assert unit_of(*((at, 0) for at in range(0, 500, 5))) is None


def test_typing_can_make_milliseconds_look_slow_but_not_three_times_on_end() -> None:
    assert unit_of((0, 1000), (5, 1006), (10, 900), (15, 905), (20, 912)) is None
    assert unit_of((0, 0), (5, 5), (10, 2), (15, 7), (20, 12)) is None


def test_seconds_are_disproved_by_milliseconds() -> None:
    assert unit_of((0, 0), (5, 5), (10, 10), (15, 15), (20, 5015)) == 0.001


def test_a_sleep_shows_in_one_clock_alone() -> None:
    assert slept_s(Clocks(100, 50), Clocks(160, 110)) == 0
    assert slept_s(Clocks(100, 50), Clocks(760, 110)) == 600
    assert slept_s(Clocks(100, 50), Clocks(160.9, 110)) == 0
    before = read_clocks()
    assert slept_s(before, read_clocks()) == 0


def test_each_sleep_is_told_once_whoever_notices_first() -> None:
    tracker = SleepTracker(Clocks(0, 0))
    assert tracker.announced()
    assert not tracker.announced()
    assert tracker.ended(Clocks(610, 10)) == 600
    assert tracker.ticked(Clocks(612, 12)) is None
    assert tracker.announced()
    assert tracker.ticked(Clocks(1220, 20)) == 600
    assert tracker.ended(Clocks(1221, 21)) is None


def test_a_sleep_that_was_called_off_is_told_as_none() -> None:
    tracker = SleepTracker(Clocks(0, 0))
    assert tracker.announced()
    assert tracker.ended(Clocks(5, 5)) == 0
    assert tracker.ended(Clocks(6, 6)) is None


def authority(*entries: tuple[bytes, bytes, bytes]) -> bytes:
    return b"".join(
        struct.pack(">H", 256)
        + b"".join(struct.pack(">H", len(one)) + one for one in (b"host", *entry))
        for entry in entries
    )


def test_the_secret_of_the_display_is_found() -> None:
    content = authority(
        (b"1", b"MIT-MAGIC-COOKIE-1", b"one"),
        (b"0", b"XDM-AUTHORIZATION-1", b"other kind"),
        (b"0", b"MIT-MAGIC-COOKIE-1", b"zero"),
    )
    assert cookie_of(content, b"0") == b"zero"
    assert cookie_of(content, b"1") == b"one"
    assert cookie_of(content, b"2") == b""
    assert cookie_of(authority((b"", b"MIT-MAGIC-COOKIE-1", b"any")), b"7") == b"any"
    with pytest.raises(struct.error):
        cookie_of(content[:9] + b"\xff", b"2")


IOREG = """
+-o IOHIDSystem  <class IOHIDSystem, id 0x10000035b, registered, matched, active, busy 0>
    {
      "HIDIdleTime" = 61234567890
      "HIDParameters" = {"HIDIdleTime"=2345678901}
    }
"""


def test_ioregs_shortest_idle_time_counts(tmp_path: Path) -> None:
    assert idle_of(IOREG) == pytest.approx(2.345678901)
    with pytest.raises(UnansweredError):
        idle_of("nothing")
    with pytest.raises(UnansweredError):
        MacIdle(str(tmp_path / "none")).read()


def device(folder: Path, ev: str, key: str, properties: str = "0") -> Path:
    (folder / "capabilities").mkdir(parents=True)
    (folder / "capabilities" / "ev").write_text(ev)
    (folder / "capabilities" / "key").write_text(key)
    (folder / "properties").write_text(properties)
    return folder


@pytest.mark.parametrize(
    ("ev", "key", "properties", "expected"),
    [
        pytest.param(
            "120013",
            "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe",
            "0",
            True,
            id="keyboard",
        ),
        pytest.param("17", "1f0000 0 0 0 0", "0", True, id="mouse"),
        pytest.param("b", "e520 10000 0 0 0 0", "5", True, id="touchpad"),
        pytest.param("b", "400 0 0 0 0 0", "2", True, id="touch screen"),
        pytest.param("3", "10000000000000 0", "0", False, id="power button"),
        pytest.param("21", "0", "0", False, id="lid switch"),
        pytest.param("b", "0", "40", False, id="accelerometer"),
        pytest.param("40001", "0", "0", False, id="speaker"),
        pytest.param("x", "0", "0", False, id="nonsense"),
    ],
)
def test_hands_use_keyboards_and_pointers(
    tmp_path: Path, ev: str, key: str, properties: str, *, expected: bool
) -> None:
    assert is_for_people(device(tmp_path / "device", ev, key, properties)) is expected


def test_a_device_without_a_description_is_none_for_people(tmp_path: Path) -> None:
    assert not is_for_people(tmp_path)


def report(idle_s: float | None, **changed: object) -> Report:
    fields = {"locked": None, "inhibited_by": "", "game": False, "source": "mutter"}
    return Report(idle_s=idle_s, **{**fields, **changed})  # type: ignore[arg-type]  # by name


def test_an_agent_tells_changes_at_once_and_the_rest_every_half_minute() -> None:
    telling = Telling()
    assert telling.due(0, report(300))
    telling.tried(0, report(300))
    assert not telling.due(10, report(310))
    assert not telling.due(TELL_S - 1, report(300 + TELL_S - 1))
    assert telling.due(TELL_S, report(300 + TELL_S))


@pytest.mark.parametrize(
    "now_seen",
    [
        report(0.5),
        report(None),
        report(310, locked=True),
        report(310, inhibited_by="mpv"),
        report(310, game=True),
        report(310, source="x11"),
    ],
)
def test_an_agent_tells_at_once_that_somebody_came_back_or_something_changed(
    now_seen: Report,
) -> None:
    telling = Telling()
    telling.tried(0, report(300))
    assert telling.due(10, now_seen)


def test_a_clock_that_is_a_little_off_is_no_change() -> None:
    telling = Telling()
    telling.tried(0, report(300))
    assert not telling.due(10, report(310 - LOOK_S))
