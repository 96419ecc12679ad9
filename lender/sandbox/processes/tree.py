"""Freeze, thaw and kill whole process trees, and prove it from the kernel's own state.

Standard library only and nothing else of this project: `lender pause` and `lender revoke` use it
with the daemon stopped, hung or gone. A tree is found by parent ids (`table`); it stays connected
because every process sandbox on Linux has a PID namespace whose init adopts what double-forks.
macOS has none: there a sandbox can't fork (see `seatbelt`), or it has an account of its own, and
what left its tree is found by that (`enclose`).
"""

import contextlib
import os
import time
from _signal import (  # type: ignore[import-not-found]  # see `account`
    SIGCONT,
    SIGKILL,
    SIGSTOP,
)
from collections.abc import Callable, Iterable
from typing import NamedTuple

from lender.sandbox.processes import account, table
from lender.sandbox.processes.account import Account
from lender.sandbox.processes.table import Process, Root

__all__ = ["Root", "StopReport"]

_SIGSTOP_BIT: int = 1 << (SIGSTOP - 1)
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
# Of more processes than these, all of /proc is read sooner than the list of each.
_LISTS_MAX = 16
# Whose strays are swept along; None: there is no account of our own.
_account: Account | None = None


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


def enclose(ours: Account | None) -> None:
    """From now on every sweep of this process and its forks takes the strays of `ours` along."""
    global _account  # noqa: PLW0603 - a fact of this process, like its uid
    _account = ours


def is_enclosed() -> bool:
    """Whether what leaves its tree is found all the same."""
    return _account is not None


def identify(pid: int) -> Root:
    """The identity of a process that runs now.

    Raises:
        ProcessLookupError: there is none.
    """
    process = table.read(pid)
    if process is None:
        raise ProcessLookupError(f"no process {pid}")
    return process.root


def alive(root: Root) -> bool:
    """Whether this very process still exists and is no zombie."""
    process = table.read(root.pid)
    return process is not None and process.root == root and not _is_gone(process)


def stopped(root: Root) -> bool:
    """Whether this very process stands still by the kernel's own state."""
    process = table.read(root.pid)
    return process is not None and process.root == root and _is_still(process)


def members(roots: Iterable[Root]) -> tuple[Root, ...]:
    """The processes of the trees as of now, zombies left out."""
    return tuple(p.root for p in _Sweep(roots).look() if not _is_gone(p))


def children(pid: int) -> set[Root]:
    """The direct children of a process as of now."""
    return {p.root for p in _Sweep((identify(pid),)).look() if p.ppid == pid}


def children_outside(inside: set[int]) -> set[Root]:
    """The living children of these processes that are none of them."""
    others = _listed_outside(inside)
    found = _read_all(inside).values() if others is None else filter(None, map(table.read, others))
    return {p.root for p in found if p.ppid in inside and not _is_gone(p)}


def _listed_outside(inside: set[int]) -> set[int] | None:
    """Their children but these, by the lists of each; None where all of /proc is sooner read."""
    if len(inside) > _LISTS_MAX:
        return None
    found: set[int] = set()
    for pid in inside:
        listed = table.children(pid)
        if listed is None:
            return None
        found |= listed
    return found - inside


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
    left = table.listed().intersection(pids)
    dying = [p for p in map(table.read, left) if p is not None and p.start_time <= latest]
    for process in dying:
        while not _now(process, _is_gone) and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN_S)
    return [p.pid for p in dying if not _now(p, _is_gone)]


def freeze(roots: Iterable[Root], timeout_s: float = 2.0) -> StopReport:
    """Stop every process of the trees; return once the kernel shows all of them stopped.

    Members may wake each other (SIGCONT) and fork: the sweep repeats until two looks in a row, the
    second in reverse order, find the same processes, all stopped.
    """
    started, sweep = time.monotonic(), _Sweep(roots, _account)
    running = _stop_all(sweep, started + timeout_s)
    return _report(started, sweep, running)


def thaw(roots: Iterable[Root], timeout_s: float = 2.0) -> StopReport:
    """Let every process of the trees go on."""
    started, sweep = time.monotonic(), _Sweep(roots, _account)
    while True:
        asleep = [p for p in sweep.look() if _is_told_to_stop(p)]
        # Also to those that a busy machine has let us find only when the time is over.
        _signal(asleep, SIGCONT)
        if not asleep or time.monotonic() > started + timeout_s:
            return _report(started, sweep, asleep)
        _wait_for(lambda p: not _is_told_to_stop(p), asleep, started + timeout_s)


def kill(roots: Iterable[Root], timeout_s: float = 5.0) -> StopReport:
    """Kill the trees; return once none of their processes is left (zombies count as gone).

    Inside a PID namespace the death of its init kills whatever we did not see. Outside of one the
    tree is stopped first: nobody forks between our look and the death of its parent. What was met
    once stays wanted even after its parent died and it moved to another one.
    """
    started, sweep = time.monotonic(), _Sweep(roots, _account)
    deadline = started + timeout_s
    while True:
        left = [p for p in sweep.look() if not _is_gone(p)]
        if time.monotonic() > deadline:
            _signal(left, SIGKILL)
            return _report(started, sweep, left)
        if not left and not sweep.is_blurred:
            return _report(started, sweep, left)
        if len(left) > 1 and not _is_contained(left):
            _stop_all(sweep, min(deadline, time.monotonic() + _STOP_BEFORE_KILL_S))
            left = sweep.look()
        _signal(left, SIGKILL)
        _wait_for(_is_gone, left, deadline)


class _Sweep:
    """Repeated looks at the same trees, each cheaper than reading all of /proc.

    Args:
        roots: of the trees.
        enclosed: whose strays count as roots, too.

    Attributes:
        met: every process of the trees seen so far; those are roots for the next look.
        is_blurred: somebody who may be a stray vanished during the last look: who forks and ends
            all the time is in no look. Only where strays are looked for.
    """

    def __init__(self, roots: Iterable[Root], enclosed: Account | None = None) -> None:
        self._enclosed = enclosed
        self.is_blurred = False
        self.roots = tuple(roots)
        self.met: set[Root] = set()
        self._strangers: set[int] = set()

    def look(self) -> list[Process]:
        """The roots that are still the same processes and all their descendants."""
        wanted = {*self.roots, *self.met}
        if self._enclosed is None and not any(map(alive, wanted)):
            return []
        suspects = table.suspects(self._enclosed.uid) if self._enclosed is not None else ()
        present = _read_all(self._strangers)
        children: dict[int, list[Process]] = {}
        for process in present.values():
            children.setdefault(process.ppid, []).append(process)
        tops = [present[r.pid] for r in wanted if _is(present.get(r.pid), r)]
        if self._enclosed is not None:
            tops += account.strays(self._enclosed, present)
        found = _descend(tops, children, {})
        self.is_blurred = any(map(account.is_gone, suspects))
        if self._enclosed is None:
            # Who hangs below the machine's init and not below a root never moves into a tree.
            self._strangers.update(_descend(children.get(0, []), children, found))
        self.met.update(p.root for p in found.values())
        return list(found.values())


def _read_all(without: set[int]) -> dict[int, Process]:
    """All processes of this machine but these."""
    found = {}
    for pid in table.listed().difference(without):
        process = table.read(pid)
        if process is not None:
            found[pid] = process
    return found


def _descend(
    start: list[Process], children: dict[int, list[Process]], without: dict[int, Process]
) -> dict[int, Process]:
    found: dict[int, Process] = {}
    queue = list(start)
    while queue:
        process = queue.pop()
        if process.pid not in found and process.pid not in without:
            found[process.pid] = process
            queue.extend(children.get(process.pid, ()))
    return found


def _stop_all(sweep: _Sweep, deadline: float) -> list[Process]:
    """Send SIGSTOP until all stand still; return who was not seen to at the deadline.

    A look lists all processes and then reads their states: who forks in between and then stops
    has a child in no list. So only a look at processes that stood still before it counts.
    """
    stood = False
    while True:
        known = len(sweep.met)
        processes = sweep.look()
        running = [p for p in processes if not _is_still(p)]
        stood = stood and not running and known == len(sweep.met) and not sweep.is_blurred
        if stood and all(map(_stands, reversed(processes))):
            return []
        if time.monotonic() > deadline:
            return running or processes
        _signal(running, SIGSTOP)
        stood = _wait_for(_is_still, running, deadline)


def _stands(process: Process) -> bool:
    return _now(process, _is_still)


def _now(process: Process, wanted: Callable[[Process], bool]) -> bool:
    """Whether a process now has the wanted state, or is gone."""
    now = table.read(process.pid)
    return not _is(now, process.root) or now is None or wanted(now)


def _wait_for(wanted: Callable[[Process], bool], processes: list[Process], deadline: float) -> bool:
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


def _signal(processes: list[Process], number: int) -> None:
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


def _is(process: Process | None, root: Root) -> bool:
    return process is not None and process.root == root


def _is_still(process: Process) -> bool:
    """Stopped, traced or dead in each of its threads; a dead leader may leave threads behind."""
    if process.threads > 1:
        return all(_thread_is_still(t) for t in table.threads(process))
    return _thread_is_still(process)


def _thread_is_still(thread: Process) -> bool:
    return thread.state in _STILL or _is_about_to_stop(thread)


def _is_told_to_stop(process: Process) -> bool:
    return process.state in b"T" or _will_stop(process)


def _is_about_to_stop(thread: Process) -> bool:
    """Whether it sleeps, and stops before it runs any instruction of its own.

    A parent in vfork sleeps in state D until its child, stopped too, execs. Who sleeps elsewhere
    inside of a fork may have a child yet that nobody has told to stop.
    """
    return _will_stop(thread) and table.sleeps_in(thread.pid).startswith(_WAITS_FOR_VFORK)


def _will_stop(thread: Process) -> bool:
    """Whether it sleeps, and is to stop when it wakes."""
    pending = table.status(thread.pid, b"ShdPnd:") if thread.state in b"D" else b""
    return int(pending or b"0", 16) & _SIGSTOP_BIT != 0


def _is_gone(process: Process) -> bool:
    if process.state not in _GONE or process.threads <= 1:
        return process.state in _GONE
    # Its first thread has ended; the others may go on.
    return all(t.state in _GONE for t in table.threads(process))


def _is_contained(processes: list[Process]) -> bool:
    """Whether all but the trees' own supervisors live in PID namespaces of their own.

    The NSpid line of proc_pid_status(5) has one id for each namespace. Below a process in an
    inner namespace everything is inside of it too, so few are read.
    """
    inside: set[int] = set()
    outside = 0
    depth = len(table.status(os.getpid(), b"NSpid:").split())
    for process in sorted(processes, key=lambda p: p.start_time):
        if process.ppid in inside or len(table.status(process.pid, b"NSpid:").split()) > depth:
            inside.add(process.pid)
        else:
            outside += 1
    return len(inside) > 0 and outside <= 2


def _report(started: float, sweep: _Sweep, remaining: list[Process]) -> StopReport:
    return StopReport(
        verified=not remaining and not sweep.is_blurred,
        processes=len(sweep.met),
        remaining=tuple(p.pid for p in remaining),
        duration_s=time.monotonic() - started,
    )
