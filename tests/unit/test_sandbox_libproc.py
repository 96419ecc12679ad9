"""The macOS side of freeze and kill, over a libproc that answers from this machine's /proc.

The records are laid out by ctypes, as XNU's bsd/sys/proc_info.h declares them.
"""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lender.sandbox.processes import libproc, tree

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the stand-in for libproc reads /proc"
)
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
        threads = [stat_of(int(one.name), pid) for one in Path(f"/proc/{pid}/task").iterdir()]
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
        if stat_of(pid) is None:
            return -1
        usage = Usage(resident=1, phys_footprint=12345, start=7)
        ctypes.memmove(buffer, ctypes.byref(usage), ctypes.sizeof(usage))  # type: ignore[arg-type]
        return 0


def stat_of(pid: int, process: int | None = None) -> list[str] | None:
    try:
        text = Path(f"/proc/{process or pid}/task/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> LinuxLibproc:
    found = LinuxLibproc()
    monkeypatch.setattr(tree, "_processes", libproc.Processes(found, os.geteuid))
    return found


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tree.Root]:
    """A process with a child, both ignoring what can be ignored."""
    code = (
        "import os, signal, threading, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork()\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        f"open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w')\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < deadline, "they start"
            time.sleep(0.01)
        yield tree.identify(process.pid)
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def states(tmp_path: Path) -> list[str]:
    found = [stat_of(int(one.name)) for one in tmp_path.iterdir()]
    return ["gone" if one is None or one[0] in "ZX" else one[0] for one in found]


def test_a_tree_is_frozen_thawed_and_killed(
    library: LinuxLibproc, family: tree.Root, tmp_path: Path
) -> None:
    assert tree.alive(family)
    assert len(tree.members([family])) == 2
    report = tree.freeze([family])
    assert (report.verified, report.processes) == (True, 2)
    assert states(tmp_path) == ["T", "T"]
    assert tree.stopped(family)
    assert tree.thaw([family]).verified
    assert "T" not in states(tmp_path)
    report = tree.kill([family])
    assert (report.verified, report.processes) == (True, 2)
    assert states(tmp_path) == ["gone", "gone"]
    assert not tree.alive(family)
    wanted = (4, os.geteuid()) if os.geteuid() else (1, 0)
    assert set(library.listed) == {wanted}


def test_a_stopped_process_with_a_thread_on_the_processor_is_not_called_still(
    library: LinuxLibproc, family: tree.Root
) -> None:
    assert tree.freeze([family]).verified
    library.still_running.add(family.pid)
    report = tree.freeze([family], timeout_s=0.05)
    assert (report.verified, report.remaining) == (False, (family.pid,))


def test_a_later_process_with_the_same_id_is_somebody_else(
    library: LinuxLibproc, family: tree.Root
) -> None:
    assert library is not None
    later = tree.Root(family.pid, family.start_time + 1)
    assert not tree.alive(later)
    assert tree.kill([later]).processes == 0
    assert tree.alive(family)


def test_processes_that_start_while_they_are_listed_are_listed(library: LinuxLibproc) -> None:
    library.late_pids = 500
    assert os.getpid() in libproc.Processes(library, os.geteuid).pids()


def test_a_list_that_is_refused_is_no_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    library = LinuxLibproc()
    monkeypatch.setattr(library, "proc_listpids", lambda *_: 0)
    with pytest.raises(OSError, match="lists no processes"):
        libproc.Processes(library, os.geteuid).pids()


def test_the_footprint_is_the_kernels_own_measure() -> None:
    processes = libproc.Processes(LinuxLibproc(), os.geteuid)
    assert processes.footprint_bytes(os.getpid()) == 12345
    assert processes.footprint_bytes(2**22 + 1) == 0


def test_elsewhere_it_does_nothing() -> None:
    assert tree._processes is None
    with pytest.raises(OSError, match="libproc"):
        libproc.load()
