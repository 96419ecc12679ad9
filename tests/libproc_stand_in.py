"""libproc(3) as libsyscall's libproc.c lets it answer, over this machine's /proc.

The records are laid out by ctypes, as XNU's bsd/sys/proc_info.h declares them.
"""

import ctypes
import os
import sys
from pathlib import Path

TICKS_PER_S, PAGE_BYTES = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
U32, I32, U64 = ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint64


class BsdInfo(ctypes.Structure):
    _fields_ = [
        *((name, U32) for name in ("flags", "status", "xstatus", "pid", "ppid", "uid", "gid")),
        *((name, U32) for name in ("ruid", "rgid", "svuid", "svgid", "rfu_1")),
        *(("comm", ctypes.c_char * 16), ("name", ctypes.c_char * 32)),
        *((name, U32) for name in ("nfiles", "pgid", "pjobc", "tdev", "tpgid")),
        *(("nice", I32), ("start_tvsec", U64), ("start_tvusec", U64)),
    ]


class TaskInfo(ctypes.Structure):
    _fields_ = [
        *((name, U64) for name in ("virtual_size", "resident_size", "total_user", "total_system")),
        *((name, U64) for name in ("threads_user", "threads_system")),
        *(
            (name, I32)
            for name in ("policy", "faults", "pageins", "cow_faults", "sent", "received")
        ),
        *((name, I32) for name in ("syscalls_mach", "syscalls_unix", "csw", "threadnum")),
        *((name, I32) for name in ("numrunning", "priority")),
    ]


class AllInfo(ctypes.Structure):
    _fields_ = [("pbsd", BsdInfo), ("ptinfo", TaskInfo)]


class Usage(ctypes.Structure):
    _fields_ = [
        ("uuid", ctypes.c_uint8 * 16),
        *((name, U64) for name in ("user", "system", "idle", "interrupt", "pageins", "wired")),
        *((name, U64) for name in ("resident", "phys_footprint", "start", "exit")),
    ]


class LinuxLibproc:
    """libproc(3) as libsyscall's libproc.c lets it answer."""

    def __init__(self) -> None:
        self.listed: list[tuple[int, int]] = []
        self.late_pids = 0
        self.still_running: set[int] = set()

    def proc_listpids(self, kind: int, about: int, buffer: object, size: int) -> int:
        self.listed.append((kind, about))
        pids = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
        if kind == 4:
            pids = [pid for pid in pids if effective_uid(pid) == about]
        if buffer is None:
            return 4 * len(pids)
        assert isinstance(buffer, ctypes.Array)
        assert len(buffer) == size
        data = b"".join(pid.to_bytes(4, sys.byteorder) for pid in [*pids, 0])
        data += bytes(4 * self.late_pids)  # who came between the two calls
        ctypes.memmove(buffer, data, min(size, len(data)))
        return min(size, len(data))

    def proc_pidinfo(self, pid: int, flavour: int, argument: int, buffer: object, size: int) -> int:
        assert (flavour, argument, size) == (2, 0, ctypes.sizeof(AllInfo))
        fields = stat_of(pid)
        if fields is None or fields[0] in "ZX":
            return 0
        try:
            threads = [stat_of(int(one.name), pid) for one in Path(f"/proc/{pid}/task").iterdir()]
        except OSError:  # it has ended since
            return 0
        still = all(one is None or one[0] in "TtZX" for one in threads)
        info = AllInfo()
        info.pbsd.status = 4 if fields[0] in "Tt" else 3
        info.pbsd.pid, info.pbsd.ppid, info.pbsd.pgid = pid, int(fields[1]), int(fields[2])
        info.pbsd.start_tvsec, info.pbsd.start_tvusec = divmod(int(fields[19]) * 10_000, 10**6)
        info.ptinfo.numrunning = 0 if still and pid not in self.still_running else 1
        ctypes.memmove(buffer, ctypes.byref(info), size)  # type: ignore[arg-type] # an array
        return size

    def proc_pid_rusage(self, pid: int, flavour: int, buffer: object) -> int:
        assert flavour == 0
        fields = stat_of(pid)
        if fields is None:
            return -1
        user, system, resident = int(fields[11]), int(fields[12]), int(fields[21])
        usage = Usage(
            user=user * 10**9 // TICKS_PER_S,
            system=system * 10**9 // TICKS_PER_S,
            resident=1,
            phys_footprint=resident * PAGE_BYTES,
            start=7,
        )
        ctypes.memmove(buffer, ctypes.byref(usage), ctypes.sizeof(usage))  # type: ignore[arg-type]
        return 0


def effective_uid(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[2]) for line in lines if line.startswith("Uid:"))


def stat_of(pid: int, process: int | None = None) -> list[str] | None:
    try:
        text = Path(f"/proc/{process or pid}/task/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()
