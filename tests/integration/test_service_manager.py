"""A user's lenderd as a service of a systemd that runs: started, watched over, killed, stopped.

Nothing is booted and no work runs; `make test-systemd` has both.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from owner_machine import GUARD
from sandboxes import open_folder

__all__ = ["open_folder"]  # a fixture
pytestmark = pytest.mark.timeout(400)

SYSTEMD = Path("/lib/systemd/systemd")
SCRIPT = Path(__file__).parents[1] / "user_manager.sh"
LENDER = Path(sys.executable).with_name("lender")
UID = 65534  # has to have a name
UNIT = "lenderd.service"
WITHIN_S = 120.0


def cgroup_mount() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(place)
    return None


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.05)


def members(cgroup: Path) -> set[int]:
    """Of a cgroup and all below it."""
    found = set()
    for path in cgroup.glob("**/cgroup.procs"):
        with contextlib.suppress(OSError):
            found |= {int(line) for line in path.read_text().split()}
    return found


class Session:
    """What its user types."""

    def __init__(self, folder: Path, cgroup: Path) -> None:
        self.home, self.cgroup = folder / "home", cgroup
        self.environment = {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
        }
        self._leader = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        command = ["unshare", "--mount", "--propagation", "private", "sh", str(SCRIPT)]
        command += [str(self.cgroup), str(UID), sys.base_prefix]
        with subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as systemd:
            GUARD.watch(systemd.pid)
            self._leader = systemd.pid
            ready = Path(self.environment["XDG_RUNTIME_DIR"], "systemd/private")
            try:
                until(lambda: ready.exists() or systemd.poll() is not None, "it answers")
                if systemd.poll() is not None:
                    said = systemd.stdout.read().decode() if systemd.stdout else ""
                    pytest.skip(f"no systemd of a user starts here: {said.strip()}")
                if self._run(sys.executable, "-c", "import lender.cli.main").returncode:
                    pytest.skip(f"another user can't start {sys.executable}")
                yield
            finally:
                until(self._end, "all of it is gone")

    def _end(self) -> bool:
        left = members(self.cgroup)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", "-t", str(self._leader), "--mount", "--cgroup", "setpriv"]
        inside += ["--reuid", str(UID), "--regid", str(UID), "--clear-groups", *command]
        return subprocess.run(
            inside, env=self.environment, capture_output=True, text=True, timeout=WITHIN_S,
            check=False,
        )  # fmt: skip

    def run(self, *command: str) -> str:
        done = self._run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def lender(self, *words: str) -> str:
        return self.run(str(LENDER), *words)

    def status(self) -> dict[str, Any]:
        """As lenderd tells it; nothing while none answers."""
        return dict(json.loads(self._run(str(LENDER), "status", "--json").stdout or "{}"))

    def show(self, name: str) -> str:
        return self.run("systemctl", "--user", "show", "--value", "-p", name, UNIT).strip()

    def main(self) -> int:
        """Which process systemd takes for lenderd."""
        pid = int(self.show("MainPID"))
        assert pid > 1
        return pid

    def members(self) -> set[int]:
        return members(self.cgroup / "lender.slice" / UNIT)


@pytest.fixture
def session(open_folder: Path) -> Iterator[Session]:
    tools = ("unshare", "nsenter", "setpriv", "systemctl")
    if missing := [one for one in tools if shutil.which(one) is None]:
        pytest.skip(f"{', '.join(missing)} missing (packages util-linux, systemd)")
    mount = cgroup_mount()
    if os.getuid() != 0 or mount is None or not SYSTEMD.exists():
        pytest.skip("needs root, systemd and a cgroup v2 that can be written")
    cgroup = mount / f"lender-test-{os.getpid()}"
    try:
        cgroup.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    for path in (cgroup, *cgroup.glob("cgroup.*")):
        with contextlib.suppress(OSError):
            os.chown(path, UID, UID)
    for name in ("home", "run"):
        (open_folder / name).mkdir(mode=0o700)
        os.chown(open_folder / name, UID, UID)
    made = Session(open_folder, cgroup)
    try:
        with made.open():
            yield made
    finally:
        for path in sorted(cgroup.glob("**/"), key=lambda one: -len(one.parts)):
            path.rmdir()


def test_a_user_has_a_service_that_is_watched_over_and_leaves_nothing(session: Session) -> None:
    settings = session.home / ".config/lender/lenderd.toml"
    drop_in = session.home / f".config/systemd/user/{UNIT}.d/override.conf"
    for path, text in (
        (settings, 'runtimes = []\nurl = "nats://127.0.0.1:1"\n'),
        (drop_in, "[Service]\nRestartSec=0\n"),
    ):
        session.run("mkdir", "-p", str(path.parent))
        path.write_text(text)

    # Started means ready, in a leaf of its own where there is anything to hand on.
    assert f"✓ run systemctl --user start {UNIT}" in session.lender("install")
    assert (session.show("ActiveState"), session.show("Type")) == ("active", "notify")
    assert session.show("WatchdogUSec") == "1min"
    first = session.main()
    assert first in session.members()
    assert session.status()["phase"] == "unconsented"

    # Paused, and a restart later still.
    session.lender("pause")
    session.run("systemctl", "--user", "restart", UNIT)
    assert session.main() != first
    assert session.status()["paused"] is True

    # A loop that hangs is killed with all that was its, and comes anew; still paused.
    drop_in.write_text("[Service]\nRestartSec=0\nWatchdogSec=6\nTimeoutAbortSec=1\n")
    session.run("systemctl", "--user", "daemon-reload")
    session.run("systemctl", "--user", "restart", UNIT)
    held = session.members()
    os.kill(session.main(), signal.SIGSTOP)
    until(lambda: session.show("NRestarts") != "0", "systemd missed its word")
    until(lambda: session.show("ActiveState") == "active", "it runs again")
    assert held.isdisjoint(session.members())
    assert not any(Path(f"/proc/{pid}").exists() for pid in held)
    assert session.status()["paused"] is True

    # Stopped, nothing of it is left; undone, no unit either.
    held = session.members()
    session.lender("uninstall")
    assert session.show("ActiveState") == "inactive"
    assert not session.members()
    assert not any(Path(f"/proc/{pid}").exists() for pid in held)
    assert [one.name for one in drop_in.parents[1].iterdir()] == [drop_in.parent.name]
