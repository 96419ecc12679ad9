"""Processes as macOS shows them: what `tree` reads from /proc on Linux.

Written from documentation and not yet run on a Mac. Source: XNU's bsd/sys/proc_info.h (layouts,
flavours), bsd/sys/proc.h (states), bsd/sys/resource.h (rusage_info_v0), and
libsyscall/wrappers/libproc/libproc.c (what the calls return). Standard library only.

macOS shows each user its own processes and root all of them. Nothing of a sandbox is ever another
user's: a program that would change its uid can't be started in there.
"""

import ctypes
import os
import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol

_PATH = "/usr/lib/libproc.dylib"
_PROC_ALL_PIDS = 1
_PROC_UID_ONLY = 4
_PROC_PIDTASKALLINFO = 2
_RUSAGE_INFO_V0 = 0
_PID_BYTES = 4
# Processes that may start between the two calls that list them; the kernel's own slack is 20.
_SPARE_PIDS = 64

_BSD_INFO = struct.Struct("=12I16s32s5Ii2Q")
_STATUS, _PPID, _PGID, _START_S, _START_US = 1, 4, 15, 20, 21
_TASK_INFO = struct.Struct("=6Q12i")
_RUNNING_THREADS = 16
_ALL_INFO_BYTES = _BSD_INFO.size + _TASK_INFO.size
_RUSAGE = struct.Struct("=16s10Q")
_USER, _SYSTEM, _FOOTPRINT = 1, 2, 8
_TIMEBASE = struct.Struct("=2I")

_SSTOP = 4
# SIDL, SRUN, SSLEEP, SSTOP, SZOMB in the letters of proc_pid_stat(5).
_LETTERS = {1: b"R", 2: b"R", 3: b"S", _SSTOP: b"T", 5: b"Z"}


class Library(Protocol):
    """The calls of libproc(3) that are used here."""

    def proc_listpids(self, kind: int, about: int, buffer: object, size: int) -> int:
        """Fill the buffer with process ids; the bytes filled, or needed when there is none."""
        ...

    def proc_pidinfo(self, pid: int, flavour: int, argument: int, buffer: object, size: int) -> int:
        """Fill the buffer with a record of one process; the bytes filled, 0 on failure."""
        ...

    def proc_pid_rusage(self, pid: int, flavour: int, buffer: object) -> int:
        """Fill the buffer with what a process used; 0 on success."""
        ...


class Reading(NamedTuple):
    """One process.

    Attributes:
        ppid: of the parent; 1 once that has died, for macOS knows no subreapers.
        pgid: of its group.
        state: as in proc_pid_stat(5): T only once each of its threads stands.
        start_time: microseconds since the epoch, as the clock was when it was forked.
    """

    ppid: int
    pgid: int
    state: int
    start_time: int


class Processes:
    """The processes of this machine that this user may see.

    Args:
        library: libproc.
        uid: tells our own effective uid; lenderd's changes after its start.
        tick_ns: of the clock that processor time is counted by.
    """

    def __init__(self, library: Library, uid: Callable[[], int], tick_ns: float = 1.0) -> None:
        self._library = library
        self._uid = uid
        self._tick_ns = tick_ns

    def pids(self, uid: int | None = None) -> set[int]:
        """Their ids as of now.

        Args:
            uid: of one user's only, who has some; None: of all that this user may see.

        Raises:
            OSError: macOS does not list them; who took that for "none" would call them all dead.
        """
        whose = uid if uid is not None else self._uid() or None
        about = (_PROC_ALL_PIDS, 0) if whose is None else (_PROC_UID_ONLY, whose)
        size = self._library.proc_listpids(*about, None, 0)
        while True:
            size += _SPARE_PIDS * _PID_BYTES
            buffer = ctypes.create_string_buffer(size)
            filled = self._library.proc_listpids(*about, buffer, size)
            if filled < size:
                break
        if filled <= 0:  # not even ourselves
            raise OSError("libproc lists no processes")
        listed = struct.unpack(f"={filled // _PID_BYTES}i", buffer.raw[:filled])
        return {pid for pid in listed if pid > 0}

    def read(self, pid: int) -> Reading | None:
        """One of them; None when it is gone, a zombie, or another user's.

        A process that is stopped shows SSTOP before its last thread has left the processor, so its
        running threads are counted too (pti_numrunning).
        """
        buffer = ctypes.create_string_buffer(_ALL_INFO_BYTES)
        filled = self._library.proc_pidinfo(pid, _PROC_PIDTASKALLINFO, 0, buffer, _ALL_INFO_BYTES)
        if filled != _ALL_INFO_BYTES:
            return None
        info = _BSD_INFO.unpack_from(buffer)
        running = _TASK_INFO.unpack_from(buffer, _BSD_INFO.size)[_RUNNING_THREADS]
        status = info[_STATUS]
        letter = b"R" if status == _SSTOP and running else _LETTERS.get(status, b"R")
        start_time = info[_START_S] * 1_000_000 + info[_START_US]
        return Reading(info[_PPID], info[_PGID], letter[0], start_time)

    def footprint_bytes(self, pid: int) -> int:
        """What a process holds of memory, compressed and swapped pages included.

        The kernel's own measure (ri_phys_footprint): resident memory shrinks while a bomb is being
        compressed. 0 when the process is gone.
        """
        return self._used(pid)[_FOOTPRINT]

    def cpu_s(self, pid: int) -> float:
        """Processor time of a process, without its children; 0 when it is gone."""
        used = self._used(pid)
        return (used[_USER] + used[_SYSTEM]) * self._tick_ns / 1e9

    def _used(self, pid: int) -> tuple[int, ...]:
        buffer = ctypes.create_string_buffer(_RUSAGE.size)
        if self._library.proc_pid_rusage(pid, _RUSAGE_INFO_V0, buffer) != 0:
            return (0,) * (_FOOTPRINT + 1)
        return _RUSAGE.unpack_from(buffer)


def tick_ns(library: ctypes.CDLL) -> float:
    """How long a tick of mach_absolute_time is: 1 on Intel, about 42 on Apple silicon.

    Source: mach/mach_time.h, mach_timebase_info.
    """
    buffer = ctypes.create_string_buffer(_TIMEBASE.size)
    library.mach_timebase_info(buffer)
    numerator, denominator = _TIMEBASE.unpack(buffer.raw)
    return float(numerator / denominator)


def load() -> Processes:
    """Of this Mac.

    Raises:
        OSError: this is no Mac.
    """
    library = ctypes.CDLL(_PATH, use_errno=True)
    library.proc_pidinfo.argtypes = [
        *(ctypes.c_int, ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int)
    ]
    library.proc_listpids.argtypes = [
        *(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int)
    ]
    library.proc_pid_rusage.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    return Processes(library, os.geteuid, tick_ns(ctypes.CDLL(None)))
