"""An account that nothing but one lenderd uses, as the boundary of all that it runs.

Where a process can leave its tree (macOS has no PID namespaces and no subreapers: who forks twice
is launchd's child) its uid still tells whose it is. What runs under the account and hangs below
nobody of it is a stray; sweeps (`tree`) take strays along with whatever they stop or kill. And one
kill(2) of everybody reaches all of a uid at once, whatever forks meanwhile: the last means.

Standard library only: `lender pause` and `lender revoke` use it without the daemon.
"""

import contextlib
import os

# The module `signal` around it takes a millisecond of each `lender pause`.
from _signal import SIGKILL  # type: ignore[import-not-found]  # the C part has no stubs
from collections.abc import Collection, Mapping
from typing import NamedTuple

from lender.sandbox.processes import table
from lender.sandbox.processes.table import Process, Root

_INIT = 1
_GONE = b"ZXx"


class Account(NamedTuple):
    """The account of one lenderd.

    Attributes:
        uid: of lenderd, its launcher, and all that they start.
        spared: lenderd and its launcher. What hangs below them belongs to them.
    """

    uid: int
    spared: tuple[Root, ...]


def strays(account: Account, processes: Mapping[int, Process]) -> list[Process]:
    """Those of an account that hang below neither lenderd nor somebody else's process.

    Who acts for the owner under this account (`sudo lender revoke`) hangs below a terminal or a
    service of another user, and can't be imitated: nobody chooses a parent.

    Args:
        account: whose.
        processes: all that could be seen just now, by id.
    """
    listed = table.listed_of(account.uid) & processes.keys()
    ours = {pid for pid in listed if not _is_gone(processes[pid])}
    spared = {r.pid for r in account.spared if r.pid in ours and processes[r.pid].root == r}
    spared.add(os.getpid())
    tops = {pid: _top(pid, ours, processes, spared) for pid in ours}
    return [processes[pid] for pid, top in tops.items() if top is not None and _is_left(top)]


def is_gone(pid: int) -> bool:
    """Whether there is no process of this id, not even a dead one that nobody has waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def end_everything() -> None:
    """SIGKILL to every process of this process's user but itself; not for root.

    kill(2): one call for all, so that nobody forks away from it.

    Raises:
        PermissionError: this is root.
    """
    if 0 in (os.getuid(), os.geteuid()):
        raise PermissionError("root would end the whole machine")
    with contextlib.suppress(ProcessLookupError, PermissionError):  # there is nobody else
        os.kill(-1, SIGKILL)


def end_everything_of(uid: int, gid: int) -> None:
    """The same for another user, by a process that becomes them first; for root.

    Raises:
        ValueError: that is root.
        PermissionError: this is not root.
        OSError: no process could be made.
    """
    if uid == 0 or gid == 0:
        raise ValueError("root would end the whole machine")
    if os.geteuid() != 0:
        raise PermissionError("only root can become somebody else")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            end_everything()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise OSError(f"what runs as uid {uid} could not be ended")


def _is_gone(process: Process) -> bool:
    """Dead, and waiting for init to take note; a dead leader may leave threads behind."""
    return process.state in _GONE and process.threads == 1


def _top(
    pid: int, ours: Collection[int], processes: Mapping[int, Process], spared: Collection[int]
) -> Process | None:
    """Its highest ancestor of the same account; None where somebody spared comes before."""
    seen = set[int]()
    while pid not in seen:
        if pid in spared:
            return None
        seen.add(pid)
        process = processes[pid]
        if process.ppid not in ours:
            return process
        pid = process.ppid
    # Ids went round while we looked: what has no top is nobody's.
    return processes[pid]._replace(ppid=_INIT)


def _is_left(top: Process) -> bool:
    """Whether its parent has died: then it is init's, or will be at once."""
    return top.ppid <= _INIT or is_gone(top.ppid)
