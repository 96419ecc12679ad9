"""Processes as the kernel shows them: /proc on Linux, libproc on macOS. Standard library only."""

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING or sys.platform == "darwin":
    from lender.sandbox.processes import libproc

# Where processes are read from; None is /proc.
_processes: "libproc.Processes | None" = libproc.load() if sys.platform == "darwin" else None

_LOOKS_MAX = 8


class Root(NamedTuple):
    """One process, told apart from a later one with the same id.

    Attributes:
        pid: process id as seen by the reader's PID namespace.
        start_time: clock ticks after boot, field 22 of proc_pid_stat(5); on macOS microseconds
            since the epoch.
    """

    pid: int
    start_time: int


class Process(NamedTuple):
    """What one look shows of a process, or of one thread of it.

    Attributes:
        pid: its id.
        ppid: of its parent.
        pgid: of its group.
        state: a letter of proc_pid_stat(5).
        threads: how many it has; 1 where its state is that of all of them.
        start_time: see `Root`.
    """

    pid: int
    ppid: int
    pgid: int
    state: int
    threads: int
    start_time: int

    @property
    def root(self) -> Root:
        """Which process it is."""
        return Root(self.pid, self.start_time)


def listed() -> set[int]:
    """All processes of this machine as of now; on macOS those of this user, of all for root."""
    if _processes is not None:
        return _processes.pids()
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def listed_of(uid: int) -> set[int]:
    """The processes of one user as of now, whoever they have become for a while.

    Not by the owner of their folder in /proc: who is not dumpable hides there (proc_pid(5)).
    """
    if _processes is not None:
        return _processes.pids(uid)
    return {pid for pid in listed() if _real_uid(pid) == uid}


def suspects(uid: int) -> set[int]:
    """Who may be a process of this user as of now, told as fast as can be."""
    if _processes is not None:
        return _processes.pids(uid)
    found = set()
    with os.scandir("/proc") as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            try:
                # Who is not dumpable belongs to root there (proc_pid(5)).
                is_other = entry.stat(follow_symlinks=False).st_uid not in (uid, 0)
            except OSError:
                is_other = False  # it has vanished already
            if not is_other:
                found.add(int(entry.name))
    return found


def children(pid: int) -> set[int] | None:
    """The direct children of a process as of now; None where no list of them can be had.

    While the list is read one may fall out that ends, and another be passed over for it
    (proc_pid_task(5)): so what counts is what two looks in a row have found.
    """
    if _processes is not None:
        return None
    found = _listed_children(pid)
    for _ in range(_LOOKS_MAX):
        before, found = found, _listed_children(pid)
        if found is None or found == before:
            return found
    return None


def read(pid: int, path: str = "") -> Process | None:
    """One process, or None when it is gone.

    Args:
        pid: its id.
        path: of another file that is to be read for it, in the form of proc_pid_stat(5).
    """
    if _processes is not None:
        found = _processes.read(pid)
        # Its state is that of all its threads already.
        return found and Process(pid, found.ppid, found.pgid, found.state, 1, found.start_time)
    try:
        fd = os.open(path or f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(fd, 1024)
    except OSError:
        return None
    finally:
        os.close(fd)
    # The command's name may hold spaces and brackets: the fields start behind its last bracket.
    field = line[line.rfind(b")") + 2 :].split(None, 20)
    if len(field) < 20:
        return None
    return Process(pid, int(field[1]), int(field[2]), field[0][0], int(field[17]), int(field[19]))


def threads(process: Process) -> list[Process]:
    """Each of its threads."""
    folder = f"/proc/{process.pid}/task"
    try:
        found = [read(int(name), f"{folder}/{name}/stat") for name in os.listdir(folder)]
    except OSError:
        return []
    return [t for t in found if t is not None]


def status(pid: int, name: bytes) -> bytes:
    """A line of proc_pid_status(5) behind its name; nothing when the process is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as lines:
            for line in lines:
                if line.startswith(name):
                    return line[len(name) :].strip()
    except OSError:
        pass
    return b""


def sleeps_in(pid: int) -> bytes:
    """The kernel's function that it sleeps in; "0" where we may not know."""
    try:
        with open(f"/proc/{pid}/wchan", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _listed_children(pid: int) -> set[int] | None:
    """Those of each of its threads; none of who is gone."""
    folder = f"/proc/{pid}/task"
    try:
        threads = os.listdir(folder)
    except OSError:
        return set()
    found: set[int] = set()
    for thread in threads:
        try:
            with open(f"{folder}/{thread}/children", "rb", buffering=0) as file:
                found.update(map(int, file.readall().split()))
        except FileNotFoundError:
            if os.path.exists(f"{folder}/{thread}"):
                return None  # a kernel without CONFIG_PROC_CHILDREN
        except OSError:
            continue  # it has ended meanwhile
    return found


def _real_uid(pid: int) -> int | None:
    ids = status(pid, b"Uid:").split()
    return int(ids[0]) if ids else None
