"""A withdrawal on a disk that fails, is read-only, or by a process that is killed in the middle."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from owner_machine import ALICE, BOB, Machine, grant, machine

from lender.sandbox.processes import tree
from lender.state.consent_files import load_consent
from lender.state.folder import StateFolder
from lender.state.withdrawal import EVERYTHING, Selection, save, withdraw

__all__ = ["machine"]

NOBODY = 65534
REVOKES = """
import os, signal, sys
from pathlib import Path
from lender.cli.revocation import revoke
from lender.state.folder import StateFolder
from lender.state.withdrawal import EVERYTHING

path, call, left, uid = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
goes_on = getattr(os, call)

def dies(*arguments, **more):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return goes_on(*arguments, **more)

setattr(os, call, dies)
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
outcome = revoke(StateFolder(Path(path)), EVERYTHING)
print(outcome.complete, outcome.not_saved, *sorted(outcome.not_withdrawn), sep="\\n")
"""


def revokes(
    machine: Machine, call: str = "getpid", left: int = 1000, uid: int = 0
) -> subprocess.CompletedProcess[str]:
    """Revoke everything in a process that dies before it calls something of os once more."""
    command = [sys.executable, "-c", REVOKES, machine.state.path, call, str(left), str(uid)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def valid(state: StateFolder) -> list[str]:
    return [one.id for one in load_consent(state).consent.valid(time.time())]


def power_cut(state: StateFolder) -> None:
    """What no fsync has vouched for may be gone."""
    for path in state.tombstones.iterdir():
        path.unlink()


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], bool]) -> None:
    """Have fsync say so of some files, as a disk does that is about to die."""
    goes_on = os.fsync

    def sync(handle: int) -> None:
        if fails(str(Path(f"/proc/self/fd/{handle}").readlink())):
            raise OSError(5, "Input/output error")
        goes_on(handle)

    monkeypatch.setattr(os, "fsync", sync)


@pytest.mark.skipif(sys.platform == "darwin", reason="names of open files are /proc's here")
@pytest.mark.parametrize("at", ["tombstones/G-2", "tombstones"])
def test_where_tombstones_cannot_be_saved_the_grants_go(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    for one in ("G-1", "G-2"):
        grant(machine.state, one)
    grant(machine.state, "G-3", BOB, "checksum")
    selection = Selection(submitters=frozenset({ALICE}))
    done = withdraw(machine.state, selection, time.time())
    assert (done.grants, done.submitters) == (("G-1", "G-2"), {ALICE})
    assert valid(machine.state) == ["G-3"]
    failing(monkeypatch, lambda path: path.endswith(at))
    saved = save(machine.state, done)
    assert saved.not_saved == "Input/output error"
    assert saved.set_aside == ("G-1", "G-2")
    assert saved.not_withdrawn == ()
    power_cut(machine.state)
    assert valid(machine.state) == ["G-3"]


@pytest.mark.skipif(sys.platform == "darwin", reason="names of open files are /proc's here")
def test_where_nothing_can_be_saved_that_is_said(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant(machine.state, "G-1")
    failing(monkeypatch, lambda _: True)
    saved = save(machine.state, withdraw(machine.state, EVERYTHING, time.time()))
    assert (saved.not_saved, saved.set_aside) == ("Input/output error", ())
    assert valid(machine.state) == []
    monkeypatch.undo()
    # Told again once the disk is well, it is done.
    again = save(machine.state, withdraw(machine.state, EVERYTHING, time.time()))
    assert again.not_saved == ""
    assert valid(machine.state) == []


def test_what_can_neither_be_buried_nor_set_aside_is_named(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    grant(machine.state, "G-1")
    for path in (machine.state.path, *machine.state.path.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for folder in (machine.state.grants, machine.state.tombstones):
        folder.chmod(0o500)
    done = revokes(machine, uid=NOBODY)
    assert done.stdout.splitlines() == [
        "False",
        "Permission denied",
        f"{machine.state.grants / 'G-1.toml'} (Permission denied)",
    ], done.stderr


@pytest.mark.parametrize(
    ("call", "left"),
    [("replace", 0), ("replace", 1), ("fsync", 0), ("fsync", 1), ("fsync", 2), ("rmdir", 0)],
)
def test_who_is_killed_in_the_middle_has_left_nothing_that_cannot_be_ended(
    machine: Machine, call: str, left: int
) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    grant(machine.state, "G-2", BOB)
    done = revokes(machine, call, left)
    assert done.returncode == -signal.SIGKILL
    if call == "replace":
        assert valid(machine.state) == ["G-1", "G-2"][left:]
    else:
        # The word of the owner counts and all is dead before the disk is waited for.
        assert valid(machine.state) == []
        assert not tree.members(record.roots)
    code, told = machine.json("revoke", "--all")
    assert (code, told["not_saved"], told["verified"]) == (0, "", True)
    assert valid(machine.state) == []
    assert not tree.members(record.roots)
    assert not Path(record.scratch).exists()
    assert not [path.name for path in machine.state.grants.iterdir() if path.suffix == ".revoked"]
