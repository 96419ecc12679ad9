"""What a process gives up about itself: privileges, priority, descriptors, core dumps.

Standard library only: it runs in the launcher and its forks. What differs from one system to the
other is in `linux_process` and `mac_process`.
"""

import contextlib
import fcntl
import os
import resource
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lender.sandbox.processes import autogroup

if sys.platform == "darwin":
    from lender.sandbox.walls import mac_process as system
else:
    from lender.sandbox.walls import linux_process as system

CHANGED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM)
"""What Python ignores, and a runner handles."""
OPEN_FDS = system.OPEN_FDS
"""Lists the descriptors of the process that opens it."""


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Get a signal when the parent dies, also when it died just now.

    To be called after a change of uid. On macOS only the latter: there the processes look for
    their parent while they work (`is_orphan`).
    """
    system.ask_for_signal_on_parents_death(number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def is_orphan(parent: int) -> bool:
    """Whether the parent has died since."""
    return os.getppid() != parent


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent died, where a process can."""
    system.adopt_orphans()


def never_gain_privileges() -> None:
    """No exec from here on gains anything by a set-user-id bit or file capabilities."""
    system.never_gain_privileges()


def become(uid: int, gid: int) -> None:
    """Drop from root to an ordinary user, for good.

    Raises:
        ValueError: asked to become root.
        PermissionError: not root, or root can still be had.
    """
    if uid == 0 or gid == 0:
        raise ValueError("a sandbox never runs as root")
    os.setgroups([])
    # Of root these set the real and the saved id, too (setuid(2)).
    os.setgid(gid)
    os.setuid(uid)
    if system.holds_root():
        raise PermissionError("root was not given up")
    system.show_itself_again()


def holds_root() -> bool:
    """Whether this process is root, or could become it again."""
    return system.holds_root()


def yield_to_owner() -> None:
    """Run only when nothing else wants to: for this process and its own.

    Where the session as a whole has the least weight that is enough (see `autogroup`); elsewhere
    the process itself does.
    """
    if not autogroup.weighs():
        yield_by_itself()


def yield_by_itself() -> None:
    """The same where no session has a weight."""
    system.run_last()


def yield_session_to_owner() -> bool:
    """Give this session's autogroup the least weight (sched(7)); nice counts only inside of it.

    Returns False where the kernel has no autogroups, or allows no change right now (10 a second).
    """
    try:
        Path("/proc/self/autogroup").write_text("19")
    except OSError:
        return False
    return True


def go_first() -> None:
    """Where the machine runs out of memory this process is ended, not a program of the owner's."""
    with contextlib.suppress(OSError):
        system.go_first()


def filter_calls(program: bytes) -> None:
    """Give up the system calls that a filter takes away, see `seccomp`; for good.

    Raises:
        OSError: the kernel takes no filter.
    """
    system.filter_calls(program)


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
    system.close_all_but(fds)
