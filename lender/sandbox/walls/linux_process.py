"""What a process can give up about itself on Linux: the port of `confine`.

Thin calls of prctl(2) and friends. Standard library only.
"""

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

OPEN_FDS: Final = "/proc/self/fd"

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_INSTRUCTION_BYTES = 8
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_FDS_MAX = 1 << 20
# proc_pid_oom_score_adj(5).
_FIRST_TO_GO = "1000"

_libc = ctypes.CDLL(None, use_errno=True)


def ask_for_signal_on_parents_death(number: int) -> None:
    """Forgotten by the kernel at a change of uid (prctl(2), PR_SET_PDEATHSIG)."""
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent died: the tree stays connected."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def never_gain_privileges() -> None:
    """No exec from here on gains anything by a set-user-id bit or file capabilities."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def show_itself_again() -> None:
    """A change of uid hid /proc/self from ourselves."""
    _prctl(_PR_SET_DUMPABLE, 1)


def holds_root() -> bool:
    """Whether this process is root, or could become it again."""
    return sys.platform == "linux" and 0 in os.getresuid()


def run_last() -> None:
    """Run only when nothing else wants to: SCHED_IDLE and nice 19."""
    os.nice(19)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def go_first() -> None:
    """Where the machine runs out of memory this process is ended, not a program of the owner's."""
    Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)


class _Program(ctypes.Structure):
    """struct sock_fprog, linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_calls(program: bytes) -> None:
    """Put a filter in front of all system calls of this process (seccomp(2))."""
    count = len(program) // _INSTRUCTION_BYTES
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(count, program)))


def close_all_but(fds: Iterable[int]) -> None:
    """Close every descriptor but these."""
    start = 0
    for fd in sorted(fds):
        if start < fd:  # Python 3.11 takes the empty range (0, 0) for all
            os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, _FDS_MAX)


def _prctl(option: int, value: int, argument: object = 0) -> None:
    if _libc.prctl(option, value, argument, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
