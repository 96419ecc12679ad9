"""lenderd with an account of its own: what left its sandbox is found, whatever lenderd does."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import throw_away
from sandboxes import open_folder

from lender.sandbox.processes import account, table, tree
from lender.sandbox.processes.tree import Root

__all__ = ["open_folder"]  # a fixture
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can start it as somebody else")
UID, OTHER_UID = throw_away.user(0), throw_away.user(1)
LENDER = Path(sys.executable).with_name("lender")
# The machine's own list of accounts stays as it is.
SERVE = f"""
import pwd, sys
entry = pwd.struct_passwd(("_lender", "x", {UID}, {UID}, "", "/", sys.argv[1]))
pwd.getpwnam, pwd.getpwuid = lambda _name: entry, lambda _uid: entry
from lender.daemon.main import main
sys.exit(main(sys.argv[2:]))
"""
ESCAPEE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
open(sys.argv[1], "w").write(f"{os.getpid()}\\n")
time.sleep(100)
"""


# Another id whenever somebody looks; never more than 30 at a time.
CHANGELING = """
import os, resource, sys, time
resource.setrlimit(resource.RLIMIT_NPROC, (30, 30))
while True:
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
    except BlockingIOError:
        time.sleep(0.001)
"""


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    yield
    for uid in (UID, OTHER_UID):
        account.end_everything_of(uid, uid)


def escapee(folder: Path, uid: int = UID) -> Root:
    """A process of somebody that hangs below nobody."""
    name = folder / f"{uid}-{time.monotonic_ns()}"
    command = ["/usr/bin/python3", "-I", "-S", "-c", ESCAPEE, str(name)]
    folder.chmod(0o777)
    subprocess.run(command, user=uid, group=uid, extra_groups=[], check=True, timeout=20)
    until(lambda: name.exists() and name.read_text().endswith("\n"))
    found = tree.identify(int(name.read_text()))
    process = table.read(found.pid)
    if process is None or process.ppid != 1:
        pytest.skip("orphans are adopted by another process than init here")
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(folder: Path, shell: str) -> tuple[subprocess.Popen[bytes], Path]:
    log = folder / "log"
    words = ["--url", "nats://127.0.0.1:1", "--state", str(folder / "state")]
    environment = {**os.environ, "LENDERD_USER": "_lender", "LENDERD_USER_IS_DEDICATED": "true"}
    environment["LENDERD_RUNTIMES"] = '["wasm"]'
    with log.open("w") as stderr:
        command = [sys.executable, "-c", SERVE, shell, *words]
        return subprocess.Popen(command, env=environment, stderr=stderr), log


def verb(folder: Path, *words: str) -> dict[str, Any]:
    command = [str(LENDER), *words, "--json", "--state", str(folder / "state")]
    done = subprocess.run(command, capture_output=True, timeout=40, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_pause_and_revoke_reach_who_left_also_past_a_lenderd_that_hangs(open_folder: Path) -> None:
    earlier, bystander = escapee(open_folder), escapee(open_folder, OTHER_UID)
    lenderd, log = start(open_folder, "/usr/sbin/nologin")
    try:
        until(lambda: " serves " in log.read_text() or lenderd.poll() is not None)
        assert lenderd.poll() is None, log.read_text()
        assert not tree.alive(earlier), "what an earlier lenderd left is ended at the start"
        left = escapee(open_folder)
        paused = verb(open_folder, "pause")
        assert (paused["verified"], paused["daemon"]) == (True, "answered")
        assert tree.stopped(left)
        lenderd.send_signal(signal.SIGSTOP)
        revoked = verb(open_folder, "revoke", "--all")
        assert (revoked["complete"], revoked["daemon"]) == (True, "killed")
        assert not tree.alive(left)
        assert tree.alive(bystander)
    finally:
        lenderd.kill()
        lenderd.wait()


def test_revoke_ends_who_never_stands_still(open_folder: Path) -> None:
    lenderd, log = start(open_folder, "/usr/sbin/nologin")
    try:
        until(lambda: " serves " in log.read_text() or lenderd.poll() is not None)
        until(lambda: not changelings())  # whom the self-test started have ended
        command = ["/usr/bin/python3", "-I", "-S", "-c", CHANGELING]
        subprocess.run(command, user=UID, group=UID, extra_groups=[], check=True, timeout=20)
        until(lambda: bool(changelings()))
        assert verb(open_folder, "revoke", "--all")["complete"]
        until(lambda: not any(changelings() for _ in range(20)))  # the dead are taken note of
    finally:
        lenderd.kill()
        lenderd.wait()


def changelings() -> set[int]:
    """Who runs in lenderd's account and is none of its own processes, at a glance.

    Whoever vanishes before they are read is another one by then.
    """
    found = set()
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == UID:
                found.add(int(entry.name))
    return {pid for pid in found if not _ended(pid) and not _is_of_lenderd(pid)}


def _ended(pid: int) -> bool:
    one = table.read(pid)
    return one is not None and one.state in b"ZXx"


def _is_of_lenderd(pid: int) -> bool:
    try:
        return b"lender" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_an_account_that_somebody_can_log_in_to_is_refused(open_folder: Path) -> None:
    theirs = escapee(open_folder)
    lenderd, log = start(open_folder, "/bin/bash")
    assert lenderd.wait(40) == 1
    assert "can log in" in log.read_text()
    assert tree.alive(theirs), "their session goes on"
