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


def hurry(pids: Iterable[int]) -> None:
    """Give the sessions of these processes an ordinary share."""
    _set(pids, _ORDINARY)


def yield_again(pids: Iterable[int]) -> None:
    """Take it back, as far as the kernel allows a change right now."""
    _set(pids, _YIELDS)


def yields() -> bool:
    """Whether this process's own session has the least weight, or the kernel has no autogroups."""
    try:
        return Path("/proc/self/autogroup").read_text().split()[-1] == _YIELDS
    except OSError:
        return True


def _set(pids: Iterable[int], nice: str) -> None:
    sessions = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            sessions.add((os.getsid(pid), pid))
    for pid in {session: pid for session, pid in sessions if session != os.getsid(0)}.values():
        with contextlib.suppress(OSError):
            path = Path(f"/proc/{pid}/autogroup")
            if path.read_text().split()[-1] != nice:
                path.write_text(nice)
