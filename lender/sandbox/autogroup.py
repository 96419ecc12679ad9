"""The weight of a session on the processor (sched(7), "The autogroup feature").

A sandbox runs in its launcher's session, which has the least weight there is. On a machine whose
owner keeps it busy that is next to nothing, and a process needs a moment of processor time to
stop or to die: a hundred of them took seconds. So the session is given an ordinary share for that
moment. Without privileges the kernel allows ten changes a second on the whole machine; the
launcher looks again and again that its session yields.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_YIELDS = "19"
_ORDINARY = "0"


def sessions(pids: Iterable[int]) -> set[int]:
    """The sessions that these processes belong to, our own left out, by their leaders' ids.

    Ask before anything is killed: the leader, a launcher, outlives its sandboxes.
    """
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(os.getsid(pid))
    return found - {os.getsid(0), 0}


def hurry(leaders: Iterable[int]) -> None:
    """Give these sessions an ordinary share."""
    _set(leaders, _ORDINARY)


def yield_again(leaders: Iterable[int]) -> None:
    """Take it back, as far as the kernel allows a change right now."""
    _set(leaders, _YIELDS)


def yields() -> bool:
    """Whether this process's own session has the least weight, or the kernel has no autogroups."""
    try:
        return Path("/proc/self/autogroup").read_text().split()[-1] == _YIELDS
    except OSError:
        return True


def _set(leaders: Iterable[int], nice: str) -> None:
    for pid in leaders:
        with contextlib.suppress(OSError):
            path = Path(f"/proc/{pid}/autogroup")
            if path.read_text().split()[-1] != nice:
                path.write_text(nice)
