"""A real lenderd, a logind that the test plays, an agent: what `status` says of the owner."""

import json
import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from message_bus import MessageBus, Service, needs_dbus, running_bus, services_of

from lender.daemon.control_client import UnreachableError, ask

pytestmark = [needs_dbus, pytest.mark.timeout(120)]

# One that looks more often than its few seconds.
LENDERD = """
from lender.daemon import sampling
from lender.sensors import logins, presence
sampling.IDLE_SAMPLE_S = presence.RELAXED_S = logins.Logins.pace_s = 0.2
from lender.daemon.command import command
command()
"""
# The interpreter may lie where only root can read: everything is loaded before the change.
TELL = """
import json, os, pathlib, sys
from lender.daemon.control_client import ask
uid = int(sys.argv[1])
if os.getuid() != uid:
    os.setgroups([])
    os.setresuid(uid, uid, uid)
print(json.dumps(ask(pathlib.Path(sys.argv[2]), json.loads(sys.argv[3]), 5.0)))
"""
NAME, ROOT = "org.freedesktop.login1", "/org/freedesktop/login1"
SESSION = f"{ROOT}/session/_31"
ORDINARY_USER = "nobody"
"""Who lenderd becomes, where root starts it."""
HERE = pwd.getpwnam(ORDINARY_USER).pw_uid if os.getuid() == 0 else os.getuid()


def wait_for(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Desk:
    """A lenderd on a desktop where one person's graphical session is in front."""

    def __init__(self, state: Path, logind: Service) -> None:
        self._socket = state / "control.sock"
        self._logind = logind
        listed = [("1", HERE, "sam", "seat0", SESSION)]
        manager = f"{NAME}.Manager"
        logind.answers[ROOT, f"{manager}.ListSessions"] = ("a(susso)", (listed,))
        logind.answers[ROOT, f"{manager}.ListInhibitors"] = ("a(ssssuu)", ([],))
        self.lock(locked=False)

    def lock(self, *, locked: bool) -> None:
        fields = {
            "User": ("(uo)", (HERE, "/")),
            "Class": ("s", "user"),
            "Type": ("s", "wayland"),
            "State": ("s", "active"),
            "Seat": ("(so)", ("seat0", "/")),
            "Active": ("b", True),
            "Remote": ("b", False),
            "LockedHint": ("b", locked),
            "TTY": ("s", "tty2"),
        }
        key = (SESSION, "org.freedesktop.DBus.Properties.GetAll")
        self._logind.answers[key] = ("a{sv}", (fields,))

    def tell(self, report: dict[str, Any]) -> dict[str, Any]:
        """Tell as the person whose session it is."""
        request = json.dumps({"verb": "presence", **report})
        command = [sys.executable, "-c", TELL, str(HERE), str(self._socket), request]
        reply: dict[str, Any] = json.loads(subprocess.check_output(command))
        return reply

    def comfort(self) -> dict[str, Any]:
        try:
            comfort: dict[str, Any] = ask(self._socket, {"verb": "status"}, 5.0).get("comfort", {})
        except UnreachableError:
            return {}
        return comfort

    def is_(self, presence: str, **fields: object) -> bool:
        comfort = self.comfort()
        found = {name: comfort.get(name) for name in fields}
        return comfort.get("presence") == presence and found == fields


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that lenderd's ordinary user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="lender-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def bus(folder: Path) -> Iterator[MessageBus]:
    with running_bus(folder) as started:
        yield started


@pytest.fixture
def desk(folder: Path, bus: MessageBus) -> Iterator[Desk]:
    state = folder / "state"
    environment = {
        **os.environ,
        "LENDERD_STATE": str(state),
        "LENDERD_URL": "nats://127.0.0.1:1",
        "LENDERD_RUNTIMES": "[]",
        **({"LENDERD_USER": ORDINARY_USER} if os.getuid() == 0 else {}),
        "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={folder}/none",
        "XDG_RUNTIME_DIR": str(folder),
    }
    with services_of(bus) as offer, (folder / "log").open("wb") as log:
        played = Desk(state, offer(NAME))
        with subprocess.Popen(
            [sys.executable, "-c", LENDERD], env=environment, stderr=log
        ) as daemon:
            try:
                wait_for(played.comfort)
                yield played
            finally:
                daemon.terminate()
                daemon.wait(20)


def test_what_is_said_of_the_owner_shows_in_the_status(desk: Desk) -> None:
    wait_for(lambda: desk.is_("present", desktop=True, locked=False, sources=["logind"]))

    assert desk.tell({"idle_s": 3600, "source": "mutter"})["ok"]
    agent = f"agent of uid {HERE}: mutter"
    wait_for(lambda: desk.is_("away", locked=False, sources=[agent, "logind"]))

    refused = desk.tell({"idle_s": "long"})
    assert refused["error"]["code"] == "malformed"
    assert "idle_s" in refused["error"]["message"]

    assert desk.tell({"idle_s": 0.5, "source": "mutter"})["ok"]
    wait_for(lambda: desk.is_("present"))

    desk.lock(locked=True)
    wait_for(lambda: desk.is_("away", locked=True))
