"""The daemon's part of the cgroup hierarchy: made before it drops its privileges, removed after.

    <lenderd's own cgroup>/lender-<state folder>/launcher        the launcher
                                                /jobs/<lease>   one sandbox each

The launcher stands beside the jobs because a process may only be moved by who can write to the
common ancestor of both places (cgroup-v2.rst, "Delegation Containment"). An ordinary user gets
there where systemd has delegated a part of the tree: a unit with Delegate=yes, or anything below
the user manager. A lock on the folder tells a subtree in use from one that was left behind.
"""

import contextlib
import fcntl
import logging
import os
import time
from pathlib import Path

from lender.sandbox.processes import cgroup

log = logging.getLogger(__name__)

_LAUNCHER = "launcher"
_HANDED_OVER = ("procs", "threads", "subtree_control", "freeze", "kill")
_KILL_S = 5.0


class Subtree:
    """A claimed subtree.

    Attributes:
        path: its folder.
    """

    def __init__(self, path: Path, lock: int, user: tuple[int, int] | None) -> None:
        self.path = path
        self._lock = lock
        self._user = user

    def leaf(self, lease: str) -> Path:
        """Where a lease's processes belong; made by `make`."""
        return self.path / cgroup.JOBS / lease

    def make(self, lease: str) -> None:
        """Make a lease's leaf, if it is not there.

        Raises:
            OSError: it could not be made.
        """
        leaf = self.leaf(lease)
        leaf.mkdir(exist_ok=True)
        if self._user is not None and os.geteuid() == 0:
            _hand_over(leaf, *self._user)

    def close(self) -> None:
        """Kill what is left and remove all of it; the launcher must be gone.

        Made by root, the empty top folder stays until the next start: its parent is not ours.
        """
        _clear(self.path)
        cgroup.remove(self.path)
        os.close(self._lock)


def claim(state: Path, launcher: int, user: tuple[int, int] | None) -> Subtree | None:
    """Make the subtree of this state folder and put the launcher into it.

    What an earlier lenderd left there is killed. None, and why in the log, where no cgroup is
    ours to use: sandboxes are then stopped by sweeps over their process trees.

    Args:
        state: the state folder; made if missing.
        launcher: process id of the launcher, with no sandbox yet.
        user: uid and gid that this process is going to become; None if it stays who it is.
    """
    state.mkdir(parents=True, exist_ok=True)
    own = _own()
    if own is None:
        log.info("no cgroup, process trees are swept instead: no cgroup v2 hierarchy is mounted")
        return None
    path = own / cgroup.name_for(state)
    lock = -1
    try:
        _remove_abandoned(own)
        path.mkdir(exist_ok=True)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clear(path)
        for folder in (path, path / _LAUNCHER, path / cgroup.JOBS):
            folder.mkdir(exist_ok=True)
            if not (folder / "cgroup.kill").exists():
                raise FileNotFoundError("the kernel is older than 5.14: no cgroup.kill")
            if user is not None:
                _hand_over(folder, *user)
        (path / _LAUNCHER / "cgroup.procs").write_text(str(launcher))
    except OSError as error:
        if lock >= 0:
            os.close(lock)
        log.info("no cgroup, process trees are swept instead: %s", error)
        return None
    return Subtree(path, lock, user)


def _own() -> Path | None:
    """The folder of the cgroup that this process is in (proc_pid_cgroup(5), the line `0::`)."""
    top = cgroup.mount()
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::/") and top is not None and "/.." not in line:
            return top / line[4:]
    return None


def _hand_over(folder: Path, uid: int, gid: int) -> None:
    """Delegate a cgroup (cgroup-v2.rst, "Model of Delegation")."""
    for place in (folder, *(folder / f"cgroup.{name}" for name in _HANDED_OVER)):
        os.chown(place, uid, gid)


def _remove_abandoned(parent: Path) -> None:
    """Remove the subtrees that no lenderd holds; one that still stands in its start is locked."""
    for path in parent.glob("lender-*-*"):
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _clear(path)
                cgroup.remove(path)
            finally:
                os.close(lock)


def _clear(path: Path) -> None:
    """Kill all that stands in a subtree and remove what is below it."""
    deadline = time.monotonic() + _KILL_S
    jobs = path / cgroup.JOBS
    cgroup.order(jobs, "cgroup.kill", "1")
    cgroup.wait_until(jobs, "populated 0", deadline)
    leaves = jobs.iterdir() if jobs.is_dir() else ()
    for folder in (*(one for one in leaves if one.is_dir()), jobs, path / _LAUNCHER):
        cgroup.remove(folder)
