"""Work that leaves its tree of processes, deaf to SIGTERM, against the account that it runs under.

The boundary of macOS, which has no PID namespaces; the mechanism is POSIX, so this is real here.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import throw_away
from sandboxes import open_folder

from lender.sandbox.processes import account, table, tree
from lender.sandbox.processes.tree import Root

__all__ = ["open_folder"]  # a fixture
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become a throw-away user")
UID, OTHER_UID = throw_away.user(0), throw_away.user(1)
# Forks twice, each in a session of its own, ignores what can be ignored; its parents end.
ESCAPEE = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
open(sys.argv[1], "w").write(f"{os.getpid()}\\n")
while True:
    time.sleep(60)
"""
# Never more than 30 at a time, and never twice the same: who reads a list comes too late.
CHANGELING = """
import os, resource, sys, time
resource.setrlimit(resource.RLIMIT_NPROC, (30, 30))
open(sys.argv[1], "w").write(f"{os.getpid()}\\n")
while True:
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
    except BlockingIOError:
        time.sleep(0.001)
"""
# Acts for the owner as the same user: below a process of somebody else.
SWEEP = """
import json, os, sys
from lender.sandbox.processes import tree
from lender.sandbox.processes.account import Account
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
tree.enclose(Account(os.getuid(), tuple(tree.Root(*one) for one in json.loads(sys.argv[2]))))
print(json.dumps(getattr(tree, sys.argv[3])(())))
"""


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    yield
    for uid in (UID, OTHER_UID):
        account.end_everything_of(uid, uid)


def start(code: str, folder: Path, uid: int) -> Root:
    """Run it as somebody; returns what it says that it has become."""
    name = folder / f"{uid}-{time.monotonic_ns()}"
    command = ["/usr/bin/python3", "-I", "-S", "-c", code, str(name)]
    who = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
    folder.chmod(0o777)
    with subprocess.Popen(command, **who) as process:  # type: ignore[call-overload] # one of two
        until(lambda: name.exists() and name.read_text().endswith("\n"))
        found = tree.identify(int(name.read_text()))
    assert process.pid != found.pid
    shown = table.read(found.pid)
    if shown is None or shown.ppid != 1:
        pytest.skip("orphans are adopted by another process than init here")
    return found


def sweep(verb: str, spared: tuple[Root, ...] = ()) -> tuple[bool, int]:
    """What another process of that user finds, which hangs below this one of root's."""
    words = [sys.executable, "-c", SWEEP, str(UID), json.dumps(spared), verb]
    done = subprocess.run(words, capture_output=True, timeout=40, check=True)
    verified, processes, _remaining, _duration_s = json.loads(done.stdout)
    return verified, processes


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_signal_reaches_it_and_nobody_of_another_user(open_folder: Path) -> None:
    escapee, neighbour = (start(ESCAPEE, open_folder, uid) for uid in (UID, OTHER_UID))
    roots = start(ESCAPEE, open_folder, 0)
    try:
        assert tree.members([tree.identify(os.getpid())]), "it is nobody's child"
        os.kill(escapee.pid, 15)
        assert tree.alive(escapee), "it is deaf"
        account.end_everything_of(UID, UID)
        until(lambda: not tree.alive(escapee))
        assert tree.alive(neighbour)
        assert tree.alive(roots)
    finally:
        tree.kill([roots])


def test_nobody_forks_away_from_it(open_folder: Path) -> None:
    """It has another id whenever somebody looks."""
    name = open_folder / "changeling"
    open_folder.chmod(0o777)
    command = ["/usr/bin/python3", "-I", "-S", "-c", CHANGELING, str(name)]
    subprocess.run(command, user=UID, group=UID, extra_groups=[], check=True, timeout=20)
    until(lambda: bool(table.listed_of(UID)))
    account.end_everything_of(UID, UID)
    until(lambda: not any(map(lives, table.listed_of(UID))))


def lives(pid: int) -> bool:
    process = table.read(pid)
    return process is not None and process.state not in b"ZXx"


def test_a_sweep_stops_it_lets_it_go_on_and_kills_it(open_folder: Path) -> None:
    escapee, neighbour = (start(ESCAPEE, open_folder, uid) for uid in (UID, OTHER_UID))
    assert sweep("freeze") == (True, 1)
    assert tree.stopped(escapee)
    assert not tree.stopped(neighbour)
    assert sweep("thaw") == (True, 1)
    assert not tree.stopped(escapee)
    assert sweep("kill") == (True, 1)
    assert not tree.alive(escapee)
    assert tree.alive(neighbour)


def test_lenderd_is_spared_and_so_is_who_acts_for_the_owner(open_folder: Path) -> None:
    lenderd, escapee = (start(ESCAPEE, open_folder, UID) for _ in range(2))
    # As `sudo lender status` would: the same user, below a terminal of another one.
    verb = subprocess.Popen(["sleep", "60"], user=UID, group=UID, extra_groups=[])
    try:
        assert sweep("kill", (lenderd,)) == (True, 1)
        assert not tree.alive(escapee)
        assert tree.alive(lenderd)
        assert verb.poll() is None
    finally:
        verb.kill()
        verb.wait()


def test_root_never_ends_the_whole_machine() -> None:
    with pytest.raises(PermissionError, match="whole machine"):
        account.end_everything()
    for ids in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="whole machine"):
            account.end_everything_of(*ids)
