"""The thread that asks all sources, the devices of people, and an agent that tells lenderd."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lender.daemon.agent_reports import AgentReports
from lender.daemon.control import ControlServer
from lender.sensors import dbus, presence, remote_sessions
from lender.sensors.dbus import UnansweredError
from lender.sensors.idle_evdev import EvdevIdle
from lender.sensors.logind import Session
from lender.sensors.presence import PresenceSensors, machine_sources, session_sources
from lender.sensors.sighting import Sighting

OWNER = 1000
AGENT = """
import sys
from lender.cli.main import main
sys.exit(main(["agent", "--state", sys.argv[1]]))
"""
NO_DESKTOP = """
import os, time
from lender.sensors import presence
presence.RELAXED_S = presence.RETRY_S = 0.02
sensors = presence.PresenceSensors(presence.machine_sources(), os.getuid())
sensors.start()
deadline = time.monotonic() + 10
while sensors.read().presence.desktop and time.monotonic() < deadline:
    time.sleep(0.01)
print(sensors.read().presence.desktop)
sensors.close()
"""
KEYBOARD = {"ev": "120013", "key": "fffffffffffffffe"}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Played:
    """A source that does what the test says."""

    def __init__(self, name: str, read: Callable[[], list[Sighting]]) -> None:
        self.name = name
        self.pace_s = 0.02
        self.read = read


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "RELAXED_S", 0.02)
    monkeypatch.setattr(presence, "RETRY_S", 0.02)


def test_before_anything_answers_somebody_is_present() -> None:
    found = PresenceSensors([], OWNER).read().presence
    assert (found.desktop, found.idle_s) == (True, None)


def test_a_source_that_fails_does_not_keep_the_others_from_telling() -> None:
    def fail() -> list[Sighting]:
        raise ZeroDivisionError

    def tell() -> list[Sighting]:
        return [Sighting("second", uid=OWNER, last_input_at=time.monotonic() - 60)]

    sensors = PresenceSensors([Played("first", fail), Played("second", tell)], OWNER)
    sensors.start()
    try:
        until(lambda: sensors.read().presence.sources == ("second",))
        idle_s = sensors.read().presence.idle_s
        assert idle_s is not None
        assert 59 < idle_s < 61
    finally:
        sensors.close()


def test_a_source_that_stops_answering_leaves_unknown_behind() -> None:
    silent = threading.Event()

    def tell() -> list[Sighting]:
        if silent.is_set():
            raise UnansweredError("silent")
        return [Sighting("only", uid=OWNER, last_input_at=0.0, desktop=True)]

    sensors = PresenceSensors([Played("only", tell)], OWNER)
    sensors.start()
    try:
        until(lambda: sensors.read().presence.idle_s is not None)
        silent.set()
        until(lambda: sensors.read().presence.idle_s is None)
        assert sensors.read().presence.desktop is True
    finally:
        sensors.close()


def test_a_source_that_hangs_leaves_unknown_behind_and_blocks_nobody() -> None:
    hangs, released = threading.Event(), threading.Event()

    def tell() -> list[Sighting]:
        if hangs.is_set():
            released.wait(20)
        return [Sighting("only", uid=OWNER, last_input_at=0.0)]

    sensors = PresenceSensors([Played("only", tell)], OWNER)
    sensors.start()
    try:
        until(lambda: sensors.read().presence.idle_s is not None)
        hangs.set()
        until(lambda: sensors.read().presence.idle_s is None)
    finally:
        released.set()
        sensors.close()


def test_the_sources_of_this_machine_answer_or_say_that_they_can_not() -> None:
    for source in machine_sources():
        try:
            told = source.read()
        except UnansweredError as error:
            assert str(error)  # noqa: PT017 - either is right, by machine
        else:
            assert all(isinstance(one, Sighting) for one in told)
    names = [source.name for source in [*session_sources(), *machine_sources()]]
    assert len(set(names)) == len(machine_sources())


def test_a_machine_without_display_and_console_is_no_desktop() -> None:
    """In a network namespace of its own, which has no display's socket, whatever else runs here."""
    without = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", NO_DESKTOP],
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (without.returncode, without.stdout) == (0, "False\n"), without.stderr


def test_a_terminal_that_is_typed_into_shows_it_and_output_does_not() -> None:
    ours, theirs = pty.openpty()
    try:
        path = Path(os.ttyname(theirs))
        session = Session(
            os.getuid(), person=True, kind="tty", seat="", active=True, remote=True,
            locked=False, tty=str(path.relative_to("/dev")),
        )  # fmt: skip
        old = time.time() - 4000
        os.utime(path, (old, old))
        os.write(theirs, b"output\n")
        os.read(ours, 100)
        at = remote_sessions.typed_at(session)
        assert at is not None
        assert time.time() - at > 3900
        assert remote_sessions.active([session], time.time(), remote_sessions.typed_at) == 0
        os.write(ours, b"ls\n")
        os.read(theirs, 100)
        assert remote_sessions.active([session], time.time(), remote_sessions.typed_at) == 1
    finally:
        os.close(ours)
        os.close(theirs)


def test_an_input_device_tells_that_it_was_touched_and_never_what(tmp_path: Path) -> None:
    """A named pipe plays the device: like one, it loses what it holds when all close it."""
    devices, described = tmp_path / "input", tmp_path / "class"
    capabilities = described / "event0" / "device" / "capabilities"
    capabilities.mkdir(parents=True)
    for name, value in KEYBOARD.items():
        (capabilities / name).write_text(value)
    (described / "event0" / "device" / "properties").write_text("0")
    devices.mkdir()
    os.mkfifo(devices / "event0")
    os.mkfifo(devices / "event1")  # nothing describes it: not for people
    source = EvdevIdle(devices, described)
    try:
        [told] = source.read()
        first = told.last_input_at
        assert source.read()[0].last_input_at == first
        keyboard = os.open(devices / "event0", os.O_WRONLY | os.O_NONBLOCK)
        os.write(keyboard, b"a secret")
        os.close(keyboard)
        touched = source.read()[0].last_input_at
        assert touched is not None
        assert first is not None
        assert touched > first
        assert source.read()[0].last_input_at == touched
        with pytest.raises(OSError, match="such device"):
            os.open(devices / "event1", os.O_WRONLY | os.O_NONBLOCK)
    finally:
        source.close()


def test_without_devices_or_rights_evdev_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(UnansweredError):
        EvdevIdle(tmp_path, tmp_path).read()


async def test_an_agent_tells_lenderd_over_the_control_socket(tmp_path: Path) -> None:
    reports = AgentReports()
    told = asyncio.Event()

    def presence_verb(request: dict[str, object], peer: object) -> dict[str, object]:
        reports.told(request, peer.uid, time.monotonic())  # type: ignore[attr-defined]  # a Peer
        told.set()
        return {}

    server = ControlServer(
        tmp_path / "control.sock", {"presence": presence_verb}, owner_uid=os.getuid()
    )
    await server.start()
    environment = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(tmp_path),
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/none",
    }
    command = [sys.executable, "-c", AGENT, str(tmp_path)]
    agent = await asyncio.create_subprocess_exec(*command, env=environment, stderr=subprocess.PIPE)
    try:
        async with asyncio.timeout(20):
            await told.wait()
            [sighting] = reports.sightings(time.monotonic())
            assert sighting.uid == os.getuid()
            assert agent.stderr is not None
            assert b"is told" in await agent.stderr.readline()
            agent.send_signal(signal.SIGTERM)
            assert await agent.wait() == 0
    finally:
        if agent.returncode is None:
            agent.kill()
            await agent.wait()
        await server.close()


def test_the_bus_of_a_session_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert dbus.session_address() == ""
    (tmp_path / "bus").touch()
    assert dbus.session_address() == f"unix:path={tmp_path}/bus"
