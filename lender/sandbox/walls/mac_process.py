"""What a process can give up about itself on macOS: the port of `confine`.

Written from documentation and not yet run on a Mac. Less than on Linux: nobody is told of a
parent's death (whoever needs that looks at getppid(2)), orphans are launchd's, and a set-user-id
program is kept away by the sandbox profile, not by the process.
"""

import contextlib
import os
from collections.abc import Iterable
from typing import Final

OPEN_FDS: Final = "/dev/fd"

# sys/resource.h; setpriority(2): least processor time, and disk and network throttled besides.
_PRIO_DARWIN_PROCESS, _PRIO_DARWIN_BG = 4, 0x1000


def ask_for_signal_on_parents_death(_number: int) -> None:
    """There is none."""


def adopt_orphans() -> None:
    """Nobody but launchd can."""


def never_gain_privileges() -> None:
    """Nothing of the kind; `seatbelt` lets no program run that would."""


def show_itself_again() -> None:
    """Nothing hides."""


def holds_root() -> bool:
    """Whether this process is root, or could become it again: the saved id is told by trying."""
    uid = os.geteuid()
    if 0 in (os.getuid(), uid):
        return True
    try:
        os.seteuid(0)
    except PermissionError:
        return False
    os.seteuid(uid)
    return True


def run_last() -> None:
    """Run in the background, as macOS means it, and only when nothing else wants to."""
    os.nice(19)
    # A release that knows it no longer leaves the nice value.
    with contextlib.suppress(OSError):
        os.setpriority(_PRIO_DARWIN_PROCESS, 0, _PRIO_DARWIN_BG)


def go_first() -> None:
    """Who goes when memory runs out is the kernel's own choice."""


def filter_calls(_program: bytes) -> None:
    """Nothing does that: what would be filtered is not started here."""
    raise NotImplementedError("Linux only")


def close_all_but(fds: Iterable[int]) -> None:
    """Close every descriptor but these: a call for each that is open, there is none for a range."""
    kept = frozenset(fds)
    for name in os.listdir(OPEN_FDS):  # noqa: PTH208 - after a fork
        with contextlib.suppress(OSError, ValueError):  # the list's own is closed by now
            if int(name) not in kept:
                os.close(int(name))
