"""What the processes of one sandbox use right now, read through its own /proc.

A process sandbox has a PID namespace, and its init's view of /proc lists its processes only: far
cheaper than a search through the host's. Being hostile, they may vanish under our eyes; what can't
be read counts as nothing, and the hard limits remain.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


# What the kernel calls anonymous memory that processes share.
_SHARED = " /dev/zero (deleted)"
# A file without content takes an inode and a directory entry (linux/shmem_fs.h, linux/dcache.h).
_FILE_BYTES = 1024


class Usage(NamedTuple):
    """Of all processes of a sandbox together, its init left out.

    Attributes:
        memory_bytes: resident private memory; forks that share pages count them twice.
        processes: processes, without their threads.
        bound_bytes: they can't hold more memory than this.
    """

    memory_bytes: int
    processes: int
    bound_bytes: int = 0

    def with_files(self, files_bytes: int) -> "Usage":
        """Return it with files that lie in memory counted as memory."""
        return self._replace(
            memory_bytes=self.memory_bytes + files_bytes,
            bound_bytes=self.bound_bytes + files_bytes,
        )


def measure(init_pid: int) -> Usage:
    """A cheap estimate that may count shared pages more than once."""
    memory_bytes = count = bound_bytes = 0
    for folder in processes(init_pid):
        try:
            size, resident, shared, _, _, data, _ = map(int, (folder / "statm").read_text().split())
        except (OSError, ValueError):
            continue
        memory_bytes += (resident - shared) * _PAGE_BYTES
        # Behind what is shared there may be pages that this process has not touched itself.
        bound_bytes += (resident - shared + max(0, size - data)) * _PAGE_BYTES
        count += 1
    return Usage(memory_bytes, count, bound_bytes)


def proportional_bytes(init_pid: int) -> int:
    """The exact sum, each private page divided among its forks (proc(5), smaps_rollup).

    Anonymous memory that is shared counts by its extent, once: nobody tells who has touched it.
    What a program maps of files is not its memory; see `files_bytes`.
    """
    total_bytes, shared = 0, dict[str, int]()
    for folder in processes(init_pid):
        try:
            rollup, maps = (folder / "smaps_rollup").read_text(), (folder / "maps").read_text()
        except OSError:
            continue
        for line in rollup.splitlines():
            if line.startswith("Pss_Anon:"):
                total_bytes += int(line.split()[1]) * 1024
        for line in maps.splitlines():
            if line.endswith(_SHARED):
                span, _, offset, _, inode, *_ = line.split()
                start, end = span.split("-")
                extent_bytes = int(offset, 16) + int(end, 16) - int(start, 16)
                shared[inode] = max(shared.get(inode, 0), extent_bytes)
    return total_bytes + sum(shared.values())


def files_bytes(init_pid: int, folders: Iterable[str]) -> int:
    """What the files in file systems that are memory take of it.

    Args:
        init_pid: the sandbox's init, once its mounts are made.
        folders: where they are mounted, relative to its root.
    """
    total_bytes = 0
    for folder in folders:
        try:
            found = os.statvfs(f"/proc/{init_pid}/root/{folder}")
        except OSError:
            continue
        total_bytes += (found.f_blocks - found.f_bfree) * found.f_frsize
        total_bytes += (found.f_files - found.f_ffree) * _FILE_BYTES
    return total_bytes


def unnamed_bytes(init_pid: int, device: int, file_bytes_max: int) -> int:
    """Disk space of files that lost their name and that processes hold, open or mapped.

    Args:
        init_pid: the sandbox's init.
        device: files of this one only (stat(2), st_dev).
        file_bytes_max: no file is larger. Nobody tells how large one is that is mapped and open
            nowhere: it counts as much as it may be.
    """
    opened, mapped = dict[int, int](), set[int]()
    for folder in processes(init_pid):
        try:
            fds, maps = os.listdir(folder / "fd"), (folder / "maps").read_text()  # noqa: PTH208
        except OSError:
            continue
        for fd in fds:
            try:
                found = os.stat(f"{folder}/fd/{fd}")  # noqa: PTH116 - hundreds of them
            except OSError:
                continue
            if found.st_nlink == 0 and found.st_dev == device and stat.S_ISREG(found.st_mode):
                opened[found.st_ino] = found.st_blocks * 512
        for line in maps.splitlines():
            if line.endswith(" (deleted)"):
                _span, _access, _offset, numbers, inode, *_ = line.split()
                major, minor = numbers.split(":")
                if os.makedev(int(major, 16), int(minor, 16)) == device:
                    mapped.add(int(inode))
    return sum(opened.values()) + file_bytes_max * len(mapped - opened.keys())


def cpu_s(init_pid: int) -> float:
    """Processor time of all processes and of all that they have waited for.

    To be asked right before a kill: what dies with its init is never added up by anyone.
    """
    ticks = 0
    for folder in [Path(f"/proc/{init_pid}"), *processes(init_pid)]:
        try:
            line = (folder / "stat").read_bytes()
        except OSError:
            continue
        ticks += sum(int(field) for field in line[line.rfind(b")") + 2 :].split()[11:15])
    return ticks / _TICKS_PER_S


def processes(init_pid: int) -> list[Path]:
    """The folders of a sandbox's processes in its own /proc, its init left out."""
    folder = Path(f"/proc/{init_pid}/root/proc")
    try:
        # Until bubblewrap has changed its root, this is the host's own /proc.
        if folder.stat().st_dev == Path("/proc").stat().st_dev:
            return []
        content = list(folder.iterdir())
    except OSError:
        return []
    return [entry for entry in content if entry.name.isdigit() and entry.name != "1"]
