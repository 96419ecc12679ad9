"""What single processes and whole process trees have used: `proc_pid_stat(5)`, psutil elsewhere.

About 40 µs for each process of a tree, however many others the machine runs: the kernel lists the
children of a thread (CONFIG_PROC_CHILDREN), so nobody else's processes are looked at. Being
hostile, they may vanish under our eyes; what can't be read counts as nothing.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from lender.sensors import kernel_file

_HAS_CHILDREN_LISTS = Path(f"/proc/self/task/{os.getpid()}/children").exists()
_IS_LINUX = sys.platform.startswith("linux")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Process(NamedTuple):
    """What a process has used up to now.

    Attributes:
        pid: process id.
        started_at: tells it apart from a later one with the same id; no unit.
        own_s: CPU time of its own threads.
        waited_s: CPU time of children that died and that it has waited for, theirs included.
        memory_bytes: resident private memory; forks that share pages count them twice.
        delayed_s: time that its threads could have run and had to wait for a CPU; only of a tree.
    """

    pid: int
    started_at: float
    own_s: float
    waited_s: float
    memory_bytes: int
    delayed_s: float = 0.0


def tree(root: int) -> list[Process]:
    """A process and all its descendants, as of now."""
    if not _HAS_CHILDREN_LISTS:
        return [p for p in map(_ask_psutil, _descendants(root)) if p is not None]
    found: dict[int, Process] = {}
    queue = [root]
    while queue:
        pid = queue.pop()
        if pid in found:
            continue
        process, threads = _parse(pid)
        if process is not None:
            names = _threads(pid, threads)
            found[pid] = process._replace(delayed_s=sum(map(_delayed_s, names)))
            for name in names:
                queue.extend(map(int, (kernel_file.read(f"{name}/children") or b"").split()))
    return list(found.values())


def members(pids: Iterable[int]) -> list[Process]:
    """These processes, their children left out."""
    return [p for p in map(_read if _IS_LINUX else _ask_psutil, pids) if p is not None]


def _read(pid: int) -> Process | None:
    return _parse(pid)[0]


def _parse(pid: int) -> tuple[Process | None, int]:
    """A process and how many threads it has."""
    line = kernel_file.line(f"/proc/{pid}/stat")
    # The command's name may hold spaces and brackets: the fields start behind its last bracket.
    fields = line[line.rfind(b")") + 2 :].split(None, 20)
    try:
        own, own_kernel, waited, waited_kernel = map(int, fields[11:15])
        threads, started_at = int(fields[17]), float(fields[19])
    except (ValueError, IndexError):
        return None, 0
    return (
        Process(
            pid,
            started_at,
            (own + own_kernel) / _TICKS_PER_S,
            (waited + waited_kernel) / _TICKS_PER_S,
            private_bytes(pid),
        ),
        threads,
    )


def private_bytes(pid: int) -> int:
    """Resident memory that is neither a file's nor shared (proc_pid_statm(5)); Linux only."""
    fields = kernel_file.line(f"/proc/{pid}/statm").split(None, 3)
    try:
        return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES
    except (ValueError, IndexError):
        return 0


def _threads(pid: int, count: int) -> list[str]:
    """The folders of a process's threads."""
    folder = f"/proc/{pid}/task"
    if count == 1:
        return [f"{folder}/{pid}"]
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]  # noqa: PTH208 - Path objects double the cost
    except OSError:
        return []


def _delayed_s(thread: str) -> float:
    """The second number of schedstat (Documentation/scheduler/sched-stats.rst)."""
    fields = kernel_file.line(f"{thread}/schedstat").split()
    try:
        return int(fields[1]) / 1e9
    except (ValueError, IndexError):
        return 0.0


def _descendants(root: int) -> list[int]:
    try:
        return [root, *(p.pid for p in psutil.Process(root).children(recursive=True))]
    except psutil.Error:
        return []


def _ask_psutil(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        times, memory = process.cpu_times(), process.memory_info()
        started_at = process.create_time()
    except psutil.Error:
        return None
    # macOS tells no waited-for time: what died between two readings is lost there.
    waited_s = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    own_s = times.user + times.system
    return Process(pid, started_at, own_s, waited_s, int(memory.rss))
