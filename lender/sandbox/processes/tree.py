"""Freeze, thaw and kill whole process trees, and prove it from the kernel's own state.

Standard library only and nothing else of this project: `lender pause` and `lender revoke` use it
with the daemon stopped, hung or gone. A tree is found by parent ids over /proc; it stays connected
because every process sandbox has a PID namespace whose init adopts what double-forks. macOS has
neither: there `libproc` tells of processes, and a sandbox can't fork (see `seatbelt`).
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING or sys.platform == "darwin":
    from lender.sandbox.processes import libproc

_SIGSTOP_BIT = 1 << (signal.SIGSTOP - 1)
_STILL = b"TtZXx"
_GONE = b"ZXx"
# Who waits for the end of its vfork sleeps in one of these, by the kernel's version.
_WAITS_FOR_VFORK = (b"kernel_clone", b"wait_for_vfork_done", b"_do_fork")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Between two looks at processes that were told to stop or die: they need a moment to do it.
_LOOK_AGAIN_S = 0.0002
# Longest wait in one sweep, and longest try to hold a tree still before it is killed.
_SWEEP_S = 0.05
_STOP_BEFORE_KILL_S = 0.1
# Where processes are read from; None is /proc.
_processes: "libproc.Processes | None" = libproc.load() if sys.platform == "darwin" else None


class NotSupportedError(Exception):
    """This system shows no process states; stop the sandboxes through the daemon instead."""


class Root(NamedTuple):
    """One process, told apart from a later one with the same id.

    Attributes:
        pid: process id as seen by the reader's PID namespace.
        start_time: clock ticks after boot, field 22 of proc_pid_stat(5); on macOS microseconds
            since the epoch.
    """

    pid: int
    start_time: int


class StopReport(NamedTuple):
    """What a sweep did, and what it could not do.

    Attributes:
        verified: every process of the trees was seen stopped (freeze), gone (kill) or running
            again (thaw).
        processes: how many processes of the trees the sweep met.
        remaining: process ids that were not in the wanted state when the bound was reached.
        duration_s: from the call to the last check.
    """

    verified: bool
    processes: int
    remaining: tuple[int, ...]
    duration_s: float


def identify(pid: int) -> Root:
    """The identity of a process that runs now.

    Raises:
        ProcessLookupError: there is none.
    """
    process = _read(pid)
    if process is None:
        raise ProcessLookupError(f"no process {pid}")
    return process.root


def alive(root: Root) -> bool:
    """Whether this very process still exists and is no zombie."""
    process = _read(root.pid)
    return process is not None and process.root == root and not _is_gone(process)


def stopped(root: Root) -> bool:
    """Whether this very process stands still by the kernel's own state."""
    process = _read(root.pid)
    return process is not None and process.root == root and _is_still(process)


def members(roots: Iterable[Root]) -> tuple[Root, ...]:
    """The processes of the trees as of now, zombies left out."""
    return tuple(p.root for p in _Sweep(roots).look() if not _is_gone(p))


def children(pid: int) -> set[Root]:
    """The direct children of a process as of now."""
    return {p.root for p in _Sweep((identify(pid),)).look() if p.ppid == pid}


def children_outside(inside: set[int]) -> set[Root]:
    """The living children of these processes that are none of them."""
    table = _read_all(inside)
    return {p.root for p in table.values() if p.ppid in inside and not _is_gone(p)}


def wait_until_gone(pids: Iterable[int], known_at: float, deadline: float) -> list[int]:
    """Wait for the end of processes that are dying; return who was not gone at the deadline.

    Args:
        pids: process ids.
        known_at: when they were seen, seconds since boot (CLOCK_BOOTTIME); what started later
            under one of these ids is somebody else.
        deadline: on the monotonic clock.
    """
    latest = known_at * _TICKS_PER_S
    # Of hundreds few are left by now: one list is far cheaper than to ask for each.
    left = _listed().intersection(pids)
    dying = [p for p in map(_read, left) if p is not None and p.start_time <= latest]
    for process in dying:
        while not _now(process, _is_gone) and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN_S)
    return [p.pid for p in dying if not _now(p, _is_gone)]


def freeze(roots: Iterable[Root], timeout_s: float = 2.0) -> StopReport:
    """Stop every process of the trees; return once the kernel shows all of them stopped.

    Members may wake each other (SIGCONT) and fork: the sweep repeats until two looks in a row, the
    second in reverse order, find the same processes, all stopped.
    """
    started, sweep = time.monotonic(), _Sweep(roots)
    running = _stop_all(sweep, started + timeout_s)
    return _report(started, sweep, running)


def thaw(roots: Iterable[Root], timeout_s: float = 2.0) -> StopReport:
    """Let every process of the trees go on."""
    started, sweep = time.monotonic(), _Sweep(roots)
    while True:
        asleep = [p for p in sweep.look() if _is_told_to_stop(p)]
        if not asleep or time.monotonic() > started + timeout_s:
            return _report(started, sweep, asleep)
        _signal(asleep, signal.SIGCONT)
        _wait_for(lambda p: not _is_told_to_stop(p), asleep, started + timeout_s)


def kill(roots: Iterable[Root], timeout_s: float = 5.0) -> StopReport:
    """Kill the trees; return once none of their processes is left (zombies count as gone).

    Inside a PID namespace the death of its init kills whatever we did not see. Outside of one the
    tree is stopped first: nobody forks between our look and the death of its parent. What was met
    once stays wanted even after its parent died and it moved to another one.
    """
    started, sweep = time.monotonic(), _Sweep(roots)
    deadline = started + timeout_s
    while True:
        left = [p for p in sweep.look() if not _is_gone(p)]
        if not left or time.monotonic() > deadline:
            return _report(started, sweep, left)
        if len(left) > 1 and not _is_contained(left):
            _stop_all(sweep, min(deadline, time.monotonic() + _STOP_BEFORE_KILL_S))
            left = sweep.look()
        _signal(left, signal.SIGKILL)
        _wait_for(_is_gone, left, deadline)


class _Process(NamedTuple):
    pid: int
    ppid: int
    pgid: int
    state: int
    threads: int
    start_time: int

    @property
    def root(self) -> Root:
        return Root(self.pid, self.start_time)


class _Sweep:
    """Repeated looks at the same trees, each cheaper than reading all of /proc.

    Attributes:
        met: every process of the trees seen so far; those are roots for the next look.
    """

    def __init__(self, roots: Iterable[Root]) -> None:
        if _processes is None and not sys.platform.startswith("linux"):
            raise NotSupportedError("only Linux and macOS show process states")
        self.roots = tuple(roots)
        self.met: set[Root] = set()
        self._strangers: set[int] = set()

    def look(self) -> list[_Process]:
        """The roots that are still the same processes and all their descendants."""
        wanted = {*self.roots, *self.met}
        if not any(map(alive, wanted)):
            return []
        table = _read_all(self._strangers)
        children: dict[int, list[_Process]] = {}
        for process in table.values():
            children.setdefault(process.ppid, []).append(process)
        found = _descend([table[r.pid] for r in wanted if _is(table.get(r.pid), r)], children, {})
        # Who hangs below the machine's init and not below a root never moves into a tree.
        self._strangers.update(_descend(children.get(0, []), children, found))
        self.met.update(p.root for p in found.values())
        return list(found.values())


def _read_all(without: set[int]) -> dict[int, _Process]:
    """All processes of this machine but these."""
    table = {}
    for pid in _listed().difference(without):
        process = _read(pid)
        if process is not None:
            table[pid] = process
    return table


def _listed() -> set[int]:
    if _processes is not None:
        return _processes.pids()
    # Path objects double the cost of a sweep.
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208


def _descend(
    start: list[_Process], children: dict[int, list[_Process]], without: dict[int, _Process]
) -> dict[int, _Process]:
    found: dict[int, _Process] = {}
    queue = list(start)
    while queue:
        process = queue.pop()
        if process.pid not in found and process.pid not in without:
            found[process.pid] = process
            queue.extend(children.get(process.pid, ()))
    return found


def _stop_all(sweep: _Sweep, deadline: float) -> list[_Process]:
    """Send SIGSTOP until all stand still; return who was not seen to at the deadline.

    A look lists all processes and then reads their states: who forks in between and then stops
    has a child in no list. So only a look at processes that stood still before it counts.
    """
    stood = False
    while True:
        known = len(sweep.met)
        processes = sweep.look()
        running = [p for p in processes if not _is_still(p)]
        stood = stood and not running and known == len(sweep.met)
        if stood and all(map(_stands, reversed(processes))):
            return []
        if time.monotonic() > deadline:
            return running or processes
        _signal(running, signal.SIGSTOP)
        stood = _wait_for(_is_still, running, deadline)


def _stands(process: _Process) -> bool:
    return _now(process, _is_still)


def _now(process: _Process, wanted: Callable[[_Process], bool]) -> bool:
    """Whether a process now has the wanted state, or is gone."""
    now = _read(process.pid)
    return not _is(now, process.root) or now is None or wanted(now)


def _wait_for(
    wanted: Callable[[_Process], bool], processes: list[_Process], deadline: float
) -> bool:
    """Give processes a moment; who isn't done by then (woken by another) is for the next sweep.

    Returns:
        Whether each of them was seen to be done.
    """
    deadline = min(deadline, time.monotonic() + _SWEEP_S)
    for process in processes:
        while not _now(process, wanted):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_AGAIN_S)
    return True


def _signal(processes: list[_Process], number: signal.Signals) -> None:
    """Signal the groups that are led from inside the tree, and then each process.

    One call for a group stops it before its members can fork on: 3 ms against 139 for a hundred
    spinners. Ids were read just before; process ids are given out in a circle, so none of them
    belongs to a stranger already.
    """
    ids = {p.pid for p in processes}
    for group in {p.pgid for p in processes} & ids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    for pid in ids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _is(process: _Process | None, root: Root) -> bool:
    return process is not None and process.root == root


def _is_still(process: _Process) -> bool:
    """Stopped, traced or dead in each of its threads; a dead leader may leave threads behind."""
    if process.threads > 1:
        return all(_thread_is_still(t) for t in _threads(process))
    return _thread_is_still(process)


def _thread_is_still(thread: _Process) -> bool:
    return thread.state in _STILL or _is_about_to_stop(thread)


def _is_told_to_stop(process: _Process) -> bool:
    return process.state in b"T" or _will_stop(process)


def _is_about_to_stop(thread: _Process) -> bool:
    """Whether it sleeps, and stops before it runs any instruction of its own.

    A parent in vfork sleeps in state D until its child, stopped too, execs. Who sleeps elsewhere
    inside of a fork may have a child yet that nobody has told to stop.
    """
    return _will_stop(thread) and _sleeps_in(thread.pid).startswith(_WAITS_FOR_VFORK)


def _will_stop(thread: _Process) -> bool:
    """Whether it sleeps, and is to stop when it wakes."""
    pending = _status(thread.pid, b"ShdPnd:") if thread.state in b"D" else b""
    return int(pending or b"0", 16) & _SIGSTOP_BIT != 0


def _is_gone(process: _Process) -> bool:
    if process.threads > 1:
        return all(t.state in _GONE for t in _threads(process))
    return process.state in _GONE


def _is_contained(processes: list[_Process]) -> bool:
    """Whether all but the trees' own supervisors live in PID namespaces of their own.

    The NSpid line of proc_pid_status(5) has one id for each namespace. Below a process in an
    inner namespace everything is inside of it too, so few are read.
    """
    inside: set[int] = set()
    outside = 0
    depth = len(_status(os.getpid(), b"NSpid:").split())
    for process in sorted(processes, key=lambda p: p.start_time):
        if process.ppid in inside or len(_status(process.pid, b"NSpid:").split()) > depth:
            inside.add(process.pid)
        else:
            outside += 1
    return len(inside) > 0 and outside <= 2


def _threads(process: _Process) -> list[_Process]:
    folder = Path(f"/proc/{process.pid}/task")
    try:
        threads = [_read(int(entry.name), f"{entry}/stat") for entry in folder.iterdir()]
    except OSError:
        return []
    return [t for t in threads if t is not None]


def _read(pid: int, path: str = "") -> _Process | None:
    """One line of proc_pid_stat(5), or None when the process is gone."""
    if _processes is not None:
        found = _processes.read(pid)
        # Its state is that of all its threads already.
        return found and _Process(pid, found.ppid, found.pgid, found.state, 1, found.start_time)
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
    return _Process(pid, int(field[1]), int(field[2]), field[0][0], int(field[17]), int(field[19]))


def _status(pid: int, name: bytes) -> bytes:
    """A line of proc_pid_status(5) behind its name; nothing when the process is gone."""
    try:
        with Path(f"/proc/{pid}/status").open("rb") as status:
            for line in status:
                if line.startswith(name):
                    return line[len(name) :].strip()
    except OSError:
        pass
    return b""


def _sleeps_in(pid: int) -> bytes:
    """The kernel's function that it sleeps in; "0" where we may not know."""
    try:
        return Path(f"/proc/{pid}/wchan").read_bytes()
    except OSError:
        return b""


def _report(started: float, sweep: _Sweep, remaining: list[_Process]) -> StopReport:
    return StopReport(
        verified=not remaining,
        processes=len(sweep.met),
        remaining=tuple(p.pid for p in remaining),
        duration_s=time.monotonic() - started,
    )
