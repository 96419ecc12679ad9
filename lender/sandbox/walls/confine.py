"""What a process gives up about itself: privileges, priority, descriptors, core dumps.

Thin calls of prctl(2) and friends. Standard library only: it runs in the launcher and its forks.
"""

import ctypes
import fcntl
import os
import resource
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lender.sandbox.processes import autogroup

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_FDS_MAX = 1 << 20

CHANGED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM)
"""What Python ignores, and a runner handles."""

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Get a signal when the parent dies, also when it died just now.

    The kernel forgets this at a change of uid: call it afterwards (prctl(2), PR_SET_PDEATHSIG).
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent died: the tree stays connected."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def never_gain_privileges() -> None:
    """No exec from here on gains anything by a set-user-id bit or file capabilities."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def become(uid: int, gid: int) -> None:
    """Drop from root to an ordinary user, for good.

    Raises:
        ValueError: asked to become root.
        PermissionError: not root.
    """
    if uid == 0 or gid == 0:
        raise ValueError("a sandbox never runs as root")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # The change of uid hid /proc/self from ourselves.
    _prctl(_PR_SET_DUMPABLE, 1)


def yield_to_owner() -> None:
    """Run only when nothing else wants to: for this process and its own.

    Where the session as a whole has the least weight that is enough (see `autogroup`); elsewhere
    SCHED_IDLE and nice 19.
    """
    if not autogroup.weighs():
        yield_by_itself()


def yield_by_itself() -> None:
    """The same where no session has a weight: SCHED_IDLE and nice 19."""
    os.nice(19)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def yield_session_to_owner() -> bool:
    """Give this session's autogroup the least weight (sched(7)); nice counts only inside of it.

    Returns False where the kernel has no autogroups, or allows no change right now (10 a second).
    """
    try:
        Path("/proc/self/autogroup").write_text("19")
    except OSError:
        return False
    return True


def limit_core_dumps() -> None:
    """No core file, and no piped handler either: that one still runs at 0, but not at 1."""
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def limit_file_size(size_bytes: int) -> None:
    """Writes beyond it fail with EFBIG; Python ignores SIGXFSZ."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def default_signals() -> None:
    """Before an exec: what is ignored would stay so."""
    for number in CHANGED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def keep_as(fds: Sequence[int]) -> None:
    """Before an exec: the first of these becomes descriptor 0, and so on; all others close."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, len(fds)) for fd in fds]
    for place, fd in enumerate(high):
        os.dup2(fd, place)
    keep_only(range(len(fds)))


def keep_only(fds: Iterable[int]) -> None:
    """Close every descriptor but these."""
    start = 0
    for fd in sorted(fds):
        if start < fd:  # Python 3.11 takes the empty range (0, 0) for all
            os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, _FDS_MAX)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux" and _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
