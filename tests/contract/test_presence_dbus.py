"""What services on a message bus say of people: a real dbus-daemon, services played by the test."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from message_bus import SILENCE, Answer, MessageBus, Service, needs_dbus, running_bus, services_of

from lender.sensors import dbus
from lender.sensors.dbus import Bus, UnansweredError
from lender.sensors.gamemode import GameMode
from lender.sensors.idle_mutter import MutterIdle
from lender.sensors.idle_screensaver import ScreenSaverIdle
from lender.sensors.inhibitors import SessionInhibitors
from lender.sensors.logins import Logins
from lender.sensors.metered import Metered
from lender.sensors.sighting import Sighting, Surroundings, merge

pytestmark = needs_dbus

MUTTER = "org.gnome.Mutter.IdleMonitor"
MUTTER_PATH = "/org/gnome/Mutter/IdleMonitor/Core"
LOGIND, LOGIND_PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
OWNER = 1000

Offer = Callable[[str], Service]


@pytest.fixture
def message_bus(tmp_path: Path) -> Iterator[MessageBus]:
    with running_bus(tmp_path) as bus:
        yield bus


@pytest.fixture
def offer(message_bus: MessageBus) -> Iterator[Offer]:
    with services_of(message_bus) as start:
        yield start


@pytest.fixture
def bus(message_bus: MessageBus) -> Iterator[Bus]:
    asked = Bus(lambda: message_bus.address)
    yield asked
    asked.close()


def mutter(offer: Offer, idle_ms: int) -> Service:
    service = offer(MUTTER)
    service.answers[MUTTER_PATH, f"{MUTTER}.GetIdletime"] = ("t", (idle_ms,))
    return service


def session(**changed: tuple[str, Any]) -> dict[str, tuple[str, Any]]:
    return {
        "User": ("(uo)", (OWNER, "/org/freedesktop/login1/user/_1000")),
        "Class": ("s", "user"),
        "Type": ("s", "wayland"),
        "State": ("s", "active"),
        "Seat": ("(so)", ("seat0", "/org/freedesktop/login1/seat/seat0")),
        "Active": ("b", True),
        "Remote": ("b", False),
        "LockedHint": ("b", False),
        "IdleHint": ("b", True),
        "TTY": ("s", "tty2"),
        **changed,
    }


def ssh(tty: str, uid: int = OWNER) -> dict[str, tuple[str, Any]]:
    return session(
        User=("(uo)", (uid, "/")),
        Type=("s", "tty"),
        Seat=("(so)", ("", "/")),
        Remote=("b", True),
        TTY=("s", tty),
    )


def logind(offer: Offer, *sessions: dict[str, tuple[str, Any]]) -> Service:
    service = offer(LOGIND)
    listed = []
    for index, fields in enumerate(sessions):
        path = f"{LOGIND_PATH}/session/_3{index}"
        listed.append((str(index), OWNER, "sam", "seat0", path))
        service.answers[path, "org.freedesktop.DBus.Properties.GetAll"] = ("a{sv}", (fields,))
    manager = f"{LOGIND}.Manager"
    service.answers[LOGIND_PATH, f"{manager}.ListSessions"] = ("a(susso)", (listed,))
    service.answers[LOGIND_PATH, f"{manager}.ListInhibitors"] = ("a(ssssuu)", ([],))
    return service


def seen(bus: Bus, devices: Path, *others: Sighting) -> Surroundings:
    return merge(time.monotonic(), [*others, *Logins(bus, devices).read()], OWNER)


def test_mutter_tells_the_idle_time_of_this_user(offer: Offer, bus: Bus) -> None:
    mutter(offer, 90_000)
    before = time.monotonic()
    [told] = MutterIdle(bus).read()
    assert told.last_input_at is not None
    assert before - 90.5 < told.last_input_at <= time.monotonic() - 90
    assert (told.source, told.uid, told.desktop) == ("mutter", os.getuid(), True)


def test_a_service_that_is_not_there_is_not_started_and_does_not_answer(
    tmp_path: Path,
) -> None:
    started = tmp_path / "started"
    with running_bus(tmp_path) as daemon:
        daemon.stop()
        (daemon.services / "mutter.service").write_text(
            f"[D-BUS Service]\nName={MUTTER}\nExec=/bin/touch {started}\n"
        )
        daemon.start()
        asked = Bus(lambda: daemon.address)
        with pytest.raises(UnansweredError, match=r"NameHasNoOwner|ServiceUnknown"):
            MutterIdle(asked).read()
        asked.close()
    assert not started.exists()


def test_without_any_service_no_source_answers(bus: Bus) -> None:
    for source in (MutterIdle(bus), ScreenSaverIdle(bus), GameMode(bus), Metered(bus)):
        with pytest.raises(UnansweredError):
            source.read()
    with pytest.raises(UnansweredError):
        SessionInhibitors(bus).read()


def test_without_a_bus_nothing_answers(tmp_path: Path) -> None:
    for address in ("", f"unix:path={tmp_path}/none", "nonsense", "unixexec:path=/bin/true"):
        with pytest.raises(UnansweredError):
            MutterIdle(Bus(lambda address=address: address)).read()


def test_a_silent_service_is_given_up_in_time_and_then_left_alone(offer: Offer, bus: Bus) -> None:
    service = mutter(offer, 0)
    service.answers[MUTTER_PATH, f"{MUTTER}.GetIdletime"] = SILENCE
    gamemode = offer("com.feralinteractive.GameMode")
    gamemode.answers[
        "/com/feralinteractive/GameMode", "=com.feralinteractive.GameMode.ClientCount"
    ] = ("i", (1,))
    for _ in range(3):
        with pytest.raises(UnansweredError):
            MutterIdle(bus).read()
    assert service.calls == [f"{MUTTER}.GetIdletime"]
    assert GameMode(bus).read() == [Sighting("gamemode", game=True)]


@pytest.mark.parametrize(
    "answer", [("s", ("soon",)), ("u", (5,)), ("", ()), ("tt", (1, 2)), ("d", (1.0,))]
)
def test_garbage_is_no_answer(offer: Offer, bus: Bus, answer: Answer) -> None:
    mutter(offer, 0).answers[MUTTER_PATH, f"{MUTTER}.GetIdletime"] = answer
    with pytest.raises(UnansweredError):
        MutterIdle(bus).read()


def test_a_bus_that_falls_silent_while_it_is_connected_to_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbus, "CALL_S", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "mute"))
        listener.listen(1)
        with pytest.raises(UnansweredError):
            MutterIdle(Bus(lambda: f"unix:path={tmp_path}/mute")).read()


def test_a_bus_that_dies_does_not_answer_until_it_is_back(
    message_bus: MessageBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbus, "RECONNECT_S", 0.0)
    asked = Bus(lambda: message_bus.address)
    source = MutterIdle(asked)
    with services_of(message_bus) as offer:
        mutter(offer, 1000)
        assert source.read()
        message_bus.stop()
        with pytest.raises(UnansweredError):
            source.read()
    message_bus.start()
    with services_of(message_bus) as offer:
        mutter(offer, 1000)
        assert source.read()
    asked.close()


@pytest.mark.parametrize(("count", "plays"), [(("i", (0,)), False), (("i", (2,)), True)])
def test_a_game_plays_while_gamemode_has_clients(
    offer: Offer, bus: Bus, count: Answer, *, plays: bool
) -> None:
    service = offer("com.feralinteractive.GameMode")
    path, name = "/com/feralinteractive/GameMode", "com.feralinteractive.GameMode.ClientCount"
    service.answers[path, f"={name}"] = count
    assert GameMode(bus).read() == [Sighting("gamemode", game=plays)]


@pytest.mark.parametrize(
    ("state", "metered"), [(0, False), (1, True), (2, False), (3, True), (4, False)]
)
def test_a_network_known_or_guessed_to_be_metered_counts(
    offer: Offer, bus: Bus, state: int, *, metered: bool
) -> None:
    name = "org.freedesktop.NetworkManager"
    offer(name).answers["/org/freedesktop/NetworkManager", f"={name}.Metered"] = ("u", (state,))
    assert Metered(bus).read() == [Sighting("metered", metered=metered)]


def test_a_screen_saver_service_answers_once_its_unit_is_known(
    offer: Offer, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = offer("org.freedesktop.ScreenSaver")
    at = [100.0]
    clocks = type("Clocks", (), {"with_sleep_s": property(lambda _: at[0])})
    monkeypatch.setattr("lender.sensors.idle_screensaver.read_clocks", clocks)
    key = ("/ScreenSaver", "org.freedesktop.ScreenSaver.GetSessionIdleTime")
    service.answers[key] = lambda _: ("u", (int((at[0] - 40) * 1000),))
    source = ScreenSaverIdle(bus)
    with pytest.raises(UnansweredError):
        source.read()
    at[0] += 5
    before = time.monotonic()
    [told] = source.read()
    assert told.last_input_at is not None
    assert before - 65.5 < told.last_input_at < time.monotonic() - 64.5


def test_who_keeps_a_gnome_session_awake_is_named(offer: Offer, bus: Bus) -> None:
    service = offer("org.gnome.SessionManager")
    path, name = "/org/gnome/SessionManager", "org.gnome.SessionManager"
    service.answers[path, f"{name}.IsInhibited"] = ("b", (True,))
    ones = [f"{path}/Inhibitor{index}" for index in (1, 2, 3)]
    service.answers[path, f"{name}.GetInhibitors"] = ("ao", (ones,))
    for one, flags, app in zip(ones, (8, 4, 12), ("mpv", "backup", "zoom"), strict=True):
        service.answers[one, f"{name}.Inhibitor.GetFlags"] = ("u", (flags,))
        service.answers[one, f"{name}.Inhibitor.GetAppId"] = ("s", (app,))
    assert SessionInhibitors(bus).read()[0].inhibited_by == "mpv, zoom"
    service.answers[path, f"{name}.IsInhibited"] = ("b", (False,))
    assert SessionInhibitors(bus).read()[0].inhibited_by == ""


def test_who_keeps_a_kde_session_awake_is_named(offer: Offer, bus: Bus) -> None:
    power = offer("org.freedesktop.PowerManagement")
    path = "/org/freedesktop/PowerManagement/Inhibit"
    power.answers[path, "org.freedesktop.PowerManagement.Inhibit.HasInhibit"] = ("b", (True,))
    assert SessionInhibitors(bus).read()[0].inhibited_by == "a program"
    kde = offer("org.kde.Solid.PowerManagement")
    kde.answers[
        "/org/kde/Solid/PowerManagement/PolicyAgent",
        "org.kde.Solid.PowerManagement.PolicyAgent.ListInhibitions",
    ] = ("a(ss)", ([("vlc", "playing")],))
    assert SessionInhibitors(bus).read()[0].inhibited_by == "vlc"


def test_a_locked_screen_is_locked(offer: Offer, bus: Bus, tmp_path: Path) -> None:
    logind(offer, session(LockedHint=("b", True)))
    presence = seen(bus, tmp_path).presence
    assert (presence.locked, presence.desktop, presence.idle_s) == (True, True, None)
    assert presence.sources == ("logind",)


def test_the_idle_hint_alone_tells_nothing(offer: Offer, bus: Bus, tmp_path: Path) -> None:
    logind(offer, session(IdleHint=("b", True)))
    assert seen(bus, tmp_path).presence.idle_s is None


def test_the_login_screen_is_a_locked_desktop_without_anybody(
    offer: Offer, bus: Bus, tmp_path: Path
) -> None:
    greeter = session(Class=("s", "greeter"), User=("(uo)", (42, "/")))
    logind(offer, greeter, session(Active=("b", False)))
    presence = seen(bus, tmp_path).presence
    assert (presence.locked, presence.desktop) == (True, True)


def test_people_whose_session_is_not_in_front_still_have_a_desktop(
    offer: Offer, bus: Bus, tmp_path: Path
) -> None:
    """Somebody is at the login prompt of another console: who, nobody knows."""
    logind(offer, session(Active=("b", False)))
    mine = Sighting("agent", uid=1001, last_input_at=time.monotonic() - 900)
    presence = seen(bus, tmp_path, mine).presence
    assert (presence.desktop, presence.idle_s) == (True, None)


def test_one_open_screen_of_two_means_not_locked(offer: Offer, bus: Bus, tmp_path: Path) -> None:
    logind(offer, session(LockedHint=("b", True)), session(Seat=("(so)", ("seat1", "/"))))
    assert seen(bus, tmp_path).presence.locked is False


def test_a_machine_with_ssh_alone_is_no_desktop(offer: Offer, bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "pts").mkdir()
    (tmp_path / "pts" / "0").touch()
    logind(offer, ssh("pts/0"))
    presence = seen(bus, tmp_path).presence
    assert (presence.desktop, presence.remote_sessions) == (False, 1)


def test_somebody_else_at_the_screen_is_not_vouched_for(
    offer: Offer, bus: Bus, tmp_path: Path
) -> None:
    """A source of the owner's session saw nothing for an hour; another person sits here."""
    logind(offer, session(User=("(uo)", (1001, "/"))))
    hour_ago = Sighting("mutter", uid=OWNER, last_input_at=time.monotonic() - 3600)
    assert seen(bus, tmp_path, hour_ago).presence.idle_s is None
    theirs = Sighting("agent", uid=1001, last_input_at=time.monotonic() - 600)
    idle_s = seen(bus, tmp_path, hour_ago, theirs).presence.idle_s
    assert idle_s is not None
    assert 599 < idle_s < 602


def test_remote_people_count_while_their_terminal_is_typed_into(
    offer: Offer, bus: Bus, tmp_path: Path
) -> None:
    (tmp_path / "pts").mkdir()
    now = time.time()
    for name, age_s in (("0", 10), ("1", 4000), ("2", 20)):
        terminal = tmp_path / "pts" / name
        terminal.touch()
        os.utime(terminal, (now - age_s, now))
    os.chown(tmp_path / "pts" / "2", 4711, -1) if os.getuid() == 0 else None
    uid = 4711 if os.getuid() == 0 else os.getuid()
    logind(offer, ssh("pts/0"), ssh("pts/1"), ssh("", uid), ssh("pts/9"))
    assert seen(bus, tmp_path).presence.remote_sessions == 2


def test_who_blocks_idle_by_logind_is_named_but_not_us(
    offer: Offer, bus: Bus, tmp_path: Path
) -> None:
    service = logind(offer, session())
    inhibitors = [
        ("idle:sleep", "Steam", "plays", "block", 1000, 4711),
        ("sleep", "NetworkManager", "", "delay", 0, 12),
        ("idle", "lender", "", "block", 0, os.getpid()),
        ("idle", "nobody", "", "delay", 0, 13),
    ]
    service.answers[LOGIND_PATH, f"{LOGIND}.Manager.ListInhibitors"] = ("a(ssssuu)", (inhibitors,))
    assert seen(bus, tmp_path).inhibited_by == "Steam"


def test_a_session_with_a_property_of_another_type_is_no_answer(
    offer: Offer, bus: Bus, tmp_path: Path
) -> None:
    logind(offer, session(Active=("s", "yes")))
    told = Logins(bus, tmp_path).read()
    assert told[0].source == "utmp"
