"""cgroup v2: all processes of one lease, frozen or killed by a single write.

A leaf is the folder of one lease's cgroup. Nobody leaves it by forking, by a new session or by a
new namespace, and only the machine's own users could move a process out of it. Standard library
only: `lender pause` and `lender revoke` use it with the daemon stopped, hung or gone. `subtree`
makes the leaves, `controllers` limits them. Source: the kernel's
Documentation/admin-guide/cgroup-v2.rst (cgroup.freeze, cgroup.kill, cgroup.events, cpu.weight).
"""

import contextlib
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `mount` and `of` load it: the owner's verbs start sooner without
    from pathlib import Path

Folder = str | os.PathLike[str]

JOBS = "jobs"
DAEMON = "daemon"
"""Where lenderd itself stands once its cgroup hands out controllers (see `subtree`)."""
# Events are signalled by poll() at most every 12 to 16 ms; reading them again is faster.
_LOOK_AGAIN_S = 0.0002
_LOOK_AGAIN_S_MAX = 0.002
_PIECE_BYTES = 1 << 16
_BOOTTIME = 7  # CLOCK_BOOTTIME (linux/time.h): where there are cgroups


def since_boot_s() -> float:
    """The clock by which the kernel dates the start of a process (proc_pid_stat(5))."""
    return time.clock_gettime(_BOOTTIME)


def mount() -> "Path | None":
    """Where the cgroup v2 hierarchy is mounted (proc_pid_mountinfo(5)); None if nowhere."""
    from pathlib import Path  # noqa: PLC0415 - see above

    top = _mounted_at()
    return None if top is None else Path(top)


def _mounted_at() -> str | None:
    try:
        lines = read("/proc/self/mountinfo").splitlines()
    except OSError:
        return None
    for line in lines:
        about, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return about.split()[4]
    return None


def places(process: int | None = None) -> dict[str, str]:
    """Where a process stands, by default this one: controller -> path (proc_pid_cgroup(5)).

    cgroup v2 has the empty name; the others are of v1.

    Raises:
        OSError: there is no such process, or the kernel has no cgroups.
    """
    found = {}
    for line in read(f"/proc/{process or 'self'}/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), place))
    return found


def of(process: int | None = None) -> "Path | None":
    """The cgroup v2 folder of a process, by default of this one.

    None where there is none, or where its place is hidden from us.
    """
    top = mount()
    try:
        place = places(process).get("")
    except OSError:
        return None
    if place is None or top is None or "/.." in place:
        return None
    return top / place.removeprefix("/")


def name_for(state: Folder) -> str:
    """The subtree's name: one of its own for each state folder of this machine.

    Raises:
        OSError: there is no such folder.
    """
    status = os.stat(state)
    return f"lender-{status.st_dev:x}-{status.st_ino:x}"


def is_leaf_of(leaf: str, state: Folder) -> bool:
    """Whether `leaf` names a lease's cgroup of this state folder, and can name nothing else."""
    top, parts = _mounted_at(), leaf.split("/")
    return (
        top is not None
        and leaf.startswith(f"{top}/")
        and not {"", ".", ".."}.intersection(parts[1:])
        and parts[-3:-1] == [name_for(state), JOBS]
    )


def order(leaf: Folder, file: str, value: str) -> bool:
    """Write to one of the leaf's files; False when there is no such leaf, or it is not ours."""
    try:
        fd = os.open(f"{leaf}/{file}", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, value.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def wait_until(leaf: Folder, event: str, deadline: float) -> bool:
    """Wait until cgroup.events says so (`frozen 1`, `populated 0`); False at the deadline.

    A leaf that was removed had no processes: it counts as whatever is asked.
    """
    try:
        fd = os.open(f"{leaf}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        pause_s = _LOOK_AGAIN_S
        while event.encode() not in os.pread(fd, 256, 0):
            if time.monotonic() > deadline:
                return False
            time.sleep(pause_s)
            # What takes longer has hundreds of processes, whose end our looks would hold up.
            pause_s = min(_LOOK_AGAIN_S_MAX, pause_s * 1.5)
    except OSError:
        return True  # removed under our eyes
    finally:
        os.close(fd)
    return True


def wants_frozen(leaf: Folder) -> bool:
    """Whether somebody ordered the leaf to stand still."""
    try:
        return read(f"{leaf}/cgroup.freeze").strip() == "1"
    except OSError:
        return False


def pids(leaf: Folder) -> set[int]:
    """The leaf's processes as of now; none where there is no leaf."""
    try:
        return {int(line) for line in read(f"{leaf}/cgroup.procs").split()}
    except OSError:
        return set()


def cpu_s(leaf: Folder) -> float:
    """CPU time of all that ever ran in the leaf, seconds; 0 where it can't be read."""
    try:
        first = read(f"{leaf}/cpu.stat").split(maxsplit=2)
        return int(first[1]) / 1e6 if first[0] == "usage_usec" else 0.0
    except (OSError, ValueError, IndexError):
        return 0.0


def yield_to_owner(folder: Folder) -> bool:
    """Give what stands below one percent beside each of its neighbours; False if not ours.

    It counts where folders stand side by side only: how much the common parent gets is up to the
    parent's own weight. Not cpu.idle, a third of that: before kernel 6.6 whoever has run waits for
    his next turn by the weight that he had, raised or not. To be stopped or to die that would be a
    second with cpu.idle; with this it is 0.3 s.
    """
    return order(folder, "cpu.weight", "1")


def hurry(folder: Folder) -> None:
    """Give it an ordinary weight, to stop or to die: see `autogroup`."""
    order(folder, "cpu.weight", "100")


def remove(leaf: Folder) -> None:
    """Remove an empty leaf; one that is gone or still populated is left alone."""
    with contextlib.suppress(OSError):
        os.rmdir(leaf)


def read(path: str) -> str:
    """Return the text of one of the kernel's files.

    Raises:
        OSError: it can't be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(handle, _PIECE_BYTES):
            pieces.append(piece)
    finally:
        os.close(handle)
    return b"".join(pieces).decode()
