"""The daemon's part of the cgroup hierarchy: made before it drops its privileges, removed after.

    <lenderd's own cgroup>/daemon                                lenderd, where it had to move
                          /lender-<state folder>/launcher        the launcher
                                                /jobs/<lease>    one sandbox each

The launcher stands beside the jobs because a process may only be moved by who can write to the
common ancestor of both places (cgroup-v2.rst, "Delegation Containment"). An ordinary user gets
there where systemd has delegated a part of the tree: a unit with Delegate=yes, or anything below
the user manager. A lock on the folder tells a subtree in use from one that was left behind.

A cgroup that hands controllers on to others holds no process itself (cgroup-v2.rst, "No Internal
Process Constraint"; the topmost one alone may). So lenderd moves into a leaf of its own, but only
where nobody else stands in its cgroup: who was started from a terminal stands beside the owner's
shell and does without controllers. What the kernel keeps then is `Subtree.keeps`; all else is
watched, or kept by admission only.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from lender.sandbox.plan import Limits
from lender.sandbox.processes import cgroup, controllers
from lender.sandbox.processes.controllers import Kept
from lender.service.places import make_folder

log = logging.getLogger(__name__)

_LAUNCHER = "launcher"
_HANDED_OVER = tuple(
    f"cgroup.{name}" for name in ("procs", "threads", "subtree_control", "freeze", "kill")
)
_IO_WEIGHTS = ("io.weight", "io.bfq.weight")  # whichever scheduler the disks have
_KILL_S = 5.0


class Subtree:
    """A claimed subtree.

    Attributes:
        path: its folder.
        keeps: the limits that the kernel keeps for each leaf.
        left_cpu_s: CPU time of the leaves that an earlier lenderd left, by their names.
    """

    def __init__(
        self,
        path: Path,
        lock: int,
        user: tuple[int, int] | None,
        left_cpu_s: Mapping[str, float],
    ) -> None:
        self.path = path
        self.left_cpu_s = left_cpu_s
        self.keeps: frozenset[Kept] = controllers.kept_below(path / cgroup.JOBS)
        self._lock = lock
        self._user = user
        self._ahead: Path | None = None

    def leaf(self, lease: str) -> Path:
        """Where a lease's processes belong; made by `make`."""
        return self.path / cgroup.JOBS / lease

    def ahead(self) -> Path | None:
        """Make a leaf for a process that is nobody's yet; None where that is not to be had.

        To move a process takes the kernel milliseconds: it waits until all others have seen that.
        So who is kept ahead is moved ahead, too, and the next sandbox stands where it stands.
        """
        if self._ahead is None:
            # No name comes again: a record that an earlier lenderd has left may still say it.
            leaf = self.leaf(f"ahead-{time.monotonic_ns():x}")
            try:
                self._make_folder(leaf)
            except OSError:
                return None
            self._ahead = leaf
        return self._ahead

    def take(self, lease: str) -> Path:
        """Where the next process of a lease belongs: the leaf that was made ahead, else its own."""
        leaf, self._ahead = self._ahead, None
        return leaf or self.leaf(lease)

    def make(self, leaf: Path, limits: Limits) -> None:
        """Make a leaf, if it is not there, with the limits that the kernel keeps.

        Its limits belong to who makes it: to root as long as lenderd is, else to lenderd's user.
        A task has that uid as well, and its walls keep it from every cgroup file.

        Raises:
            OSError: it could not be made, or not be limited.
        """
        self._make_folder(leaf)
        controllers.limit(leaf, limits, self.keeps)

    def _make_folder(self, leaf: Path) -> None:
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
    make_folder(state, 0o711)
    own = _place()
    if own is None:
        log.info("no cgroup, process trees are swept instead: no cgroup v2 hierarchy is mounted")
        return None
    path = own / cgroup.name_for(state)
    lock = -1
    try:
        _remove_abandoned(own, path)
        path.mkdir(exist_ok=True)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left_cpu_s = _clear(path)
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
    _hand_controllers_on(own, path)
    _yield_to_owner(path, user)
    made = Subtree(path, lock, user, left_cpu_s)
    kept = ", ".join(sorted(made.keeps)) or "none"
    log.info("each sandbox has a cgroup; limits that the kernel keeps: %s", kept)
    return made


def _place() -> Path | None:
    """The cgroup that is ours to divide: our own, or the one that we have divided already."""
    own = cgroup.of()
    return own.parent if own is not None and own.name == cgroup.DAEMON else own


def _hand_controllers_on(own: Path, path: Path) -> None:
    """From our own cgroup down to the leaves, as many as there are."""
    lacking = controllers.available(own).intersection(controllers.WANTED) - controllers.enabled(own)
    if lacking and _make_room(own):
        controllers.enable(own, lacking)
    for folder in (path, path / cgroup.JOBS):
        controllers.enable(folder, controllers.WANTED)


def _make_room(own: Path) -> bool:
    """Leave our own cgroup to the folders below it; False where somebody else stands in it."""
    if not (own / "cgroup.type").exists():
        return True  # the topmost one
    inside = cgroup.pids(own)
    if inside - {os.getpid()}:
        log.info("no controllers are handed on: other processes share the cgroup of lenderd")
        return False
    if not inside:
        return True
    daemon = own / cgroup.DAEMON
    try:
        daemon.mkdir(exist_ok=True)
    except OSError as error:
        log.info("no controllers are handed on: %s", error)
        return False
    return cgroup.order(daemon, "cgroup.procs", str(os.getpid()))


def _yield_to_owner(path: Path, user: tuple[int, int] | None) -> None:
    """The least weight for the subtree among its neighbours, and for the jobs beside the launcher.

    What counts beside the programs of the owner is the weight of lenderd's unit (CPUWeight=).
    """
    cgroup.yield_to_owner(path)
    cgroup.order(path / cgroup.JOBS, "cpu.idle", "1")
    for file in _IO_WEIGHTS:
        cgroup.order(path, file, "default 1")
    if user is not None:
        # No limit, but what the owner's verbs hurry with whatever they stop.
        with contextlib.suppress(FileNotFoundError):
            os.chown(path / "cpu.weight", *user)


def _hand_over(folder: Path, uid: int, gid: int) -> None:
    """Delegate a cgroup (cgroup-v2.rst, "Model of Delegation")."""
    for place in (folder, *(folder / name for name in _HANDED_OVER)):
        os.chown(place, uid, gid)


def _remove_abandoned(parent: Path, ours: Path) -> None:
    """Remove the subtrees that no lenderd holds; one that still stands in its start is locked."""
    for path in {*parent.glob("lender-*-*")} - {ours}:
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _clear(path)
                cgroup.remove(path)
            finally:
                os.close(lock)


def _clear(path: Path) -> dict[str, float]:
    """Kill all that stands in a subtree and remove what is below it; return what it had used."""
    deadline = time.monotonic() + _KILL_S
    jobs = path / cgroup.JOBS
    cgroup.order(jobs, "cgroup.kill", "1")
    cgroup.wait_until(jobs, "populated 0", deadline)
    leaves = [one for one in jobs.iterdir() if one.is_dir()] if jobs.is_dir() else []
    used_s = {leaf.name: cgroup.cpu_s(leaf) for leaf in leaves}
    for folder in (*leaves, jobs, path / _LAUNCHER):
        cgroup.remove(folder)
    return used_s
