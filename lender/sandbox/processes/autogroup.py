"""The weight of a session on the processor (sched(7), "The autogroup feature").

A sandbox runs in its launcher's session, which has the least weight there is. On a machine whose
owner keeps it busy that is next to nothing, and a process needs a moment of processor time to
stop or to die: a hundred of them took seconds. So the session is given an ordinary share for that
moment. Without privileges the kernel allows ten changes a second on the whole machine; the
launcher looks again and again that its session yields.

Inside of such a session everything has the usual priority. With SCHED_IDLE or nice 19 on top, the
last of many that were to die were left without the processor for seconds (measured: 500 that fork
without end, beside an owner's load on every core, 5 s instead of 0.1), and one of them may hold a
lock of the kernel's that the owner's next program waits for.
"""

import contextlib
import os
from collections.abc import Iterable

from lender.sandbox.processes import cgroup

_YIELDS = "19"
_ORDINARY = "0"
_FIRST_CGROUP_NAMESPACE = 0xEFFFFFFB  # its inode, PROC_CGROUP_INIT_INO of the kernel's proc_ns.h


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
        return cgroup.read("/proc/self/autogroup").split()[-1] == _YIELDS
    except OSError:
        return True


def weighs() -> bool:
    """Whether the kernel weighs this process by its session (sched(7)).

    It does so only for what stands in the topmost cgroup of the cpu controller: below of it the
    cgroup's own weight counts.
    """
    try:
        enabled = cgroup.read("/proc/sys/kernel/sched_autogroup_enabled").strip() == "1"
        topmost = os.stat("/proc/self/ns/cgroup").st_ino == _FIRST_CGROUP_NAMESPACE
        return enabled and topmost and _is_in_topmost_cgroup()
    except OSError:
        return False


def _is_in_topmost_cgroup() -> bool:
    places = cgroup.places()
    if "cpu" in places:  # cgroup v1
        return places["cpu"] == "/"
    top = cgroup.mount()
    if top is None or places.get("") == "/":
        return True
    return "cpu" not in cgroup.read(f"{top}/cgroup.subtree_control").split()


def _set(leaders: Iterable[int], nice: str) -> None:
    for pid in leaders:
        with contextlib.suppress(OSError):
            path = f"/proc/{pid}/autogroup"
            if cgroup.read(path).split()[-1] != nice:
                with open(path, "w") as file:
                    file.write(nice)
