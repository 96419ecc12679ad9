"""Makes this process take itself for one on a Mac, as far as Linux can play one.

What only Linux has is taken away, what only macOS has is added: over /proc, which nobody else in
the process can read any more. `python mac_stand_in.py MODULE ...` runs a module like that, and as
`sys.executable` of such a process it hands the part on to what that starts.

sandbox-exec is `stand_in_sandbox_exec`, which reads the profile and keeps to as much of it as
Landlock can; so a trial that says that walls stand has seen some.
"""

import builtins
import ctypes
import fcntl
import functools
import os
import platform
import runpy
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).resolve().parent
SANDBOX_EXEC = HERE / "stand_in_sandbox_exec"
LIBPROC = "/usr/lib/libproc.dylib"
_LINUX_ONLY: dict[Any, tuple[str, ...]] = {
    os: (
        *("getresuid", "getresgid", "setresuid", "setresgid", "memfd_create", "pidfd_open"),
        *("O_PATH", "O_TMPFILE", "fdatasync", "sched_setscheduler", "sched_getaffinity"),
        *("SCHED_IDLE", "posix_fadvise", "posix_fallocate", "getrandom", "unshare", "setns"),
        *("eventfd", "splice", "copy_file_range", "listxattr", "setxattr", "getxattr", "pipe2"),
    ),
    socket: (
        *("SO_PEERCRED", "SO_PASSCRED", "SCM_CREDENTIALS", "SOCK_CLOEXEC", "SOCK_NONBLOCK"),
        *("AF_VSOCK", "AF_ALG", "AF_NETLINK"),
    ),
    time: ("CLOCK_BOOTTIME",),
    signal: ("pidfd_send_signal",),
}
_READABLE = ("/dev/fd", "/proc/self/fd")  # one folder by its two names


def become_mac() -> None:
    """From here on; before anything of lender's is imported."""
    for module, names in _LINUX_ONLY.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = "darwin"
    platform.system = lambda: "Darwin"
    fcntl.F_FULLFSYNC = 51  # type: ignore[attr-defined] # a Mac's: here nothing has it
    time.CLOCK_UPTIME_RAW = time.CLOCK_MONOTONIC  # type: ignore[attr-defined] # a Mac's
    os.PRIO_DARWIN_BG = 0x1000  # type: ignore[attr-defined] # a Mac's
    setpriority = os.setpriority
    os.setpriority = lambda which, who, nice: None if which == 4 else setpriority(which, who, nice)
    from libproc_stand_in import LinuxLibproc  # its imports need the real system  # noqa: PLC0415

    real = ctypes.CDLL
    library = _Loaded(LinuxLibproc())

    def load(name: str | None, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - as CDLL does
        if name == LIBPROC:
            return library
        found = real(name, *rest, **more)
        return _WithMacCalls(found) if name is None else found

    ctypes.CDLL = load  # type: ignore[assignment,misc] # it is called like one
    builtins.__import__ = _import
    socket.socket.getsockopt = _getsockopt  # type: ignore[method-assign] # LOCAL_PEERCRED
    socket.socket.setsockopt = _setsockopt  # type: ignore[method-assign] # there it can be set
    # Where the sandboxes' user can read it, as on a Mac: the tests' own may lie in root's folder.
    if Path(f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}/os.py").exists():
        sys.base_prefix = "/usr"
    sys.executable = str(HERE / "mac_python")
    from lender.sandbox.walls import seatbelt  # noqa: PLC0415 - as a Mac has it

    seatbelt.SANDBOX_EXEC = str(SANDBOX_EXEC)  # type: ignore[misc] # stands in
    sys.addaudithook(_no_proc)
    os.stat = _stat  # type: ignore[assignment] # as far as ours call it


_real_stat = os.stat
_real_import, _real_setsockopt = builtins.__import__, socket.socket.setsockopt
_real_getsockopt = socket.socket.getsockopt


def _import(name: str, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - as the import system does
    """What is not ours is that of the real system."""
    if name.partition(".")[0] == "lender" or (len(rest) > 3 and rest[3]):
        return _real_import(name, *rest, **more)
    shown, sys.platform = sys.platform, "linux"
    try:
        return _real_import(name, *rest, **more)
    finally:
        sys.platform = shown


def _setsockopt(self: socket.socket, level: int, option: int, *value: Any) -> None:  # noqa: ANN401
    if option != socket.SO_SNDLOWAT:
        _real_setsockopt(self, level, option, *value)


def _getsockopt(self: socket.socket, level: int, option: int, *size: int) -> Any:  # noqa: ANN401
    if level != 0:
        return _real_getsockopt(self, level, option, *size)
    pid, uid, _gid = struct.unpack("=iII", _real_getsockopt(self, socket.SOL_SOCKET, 17, 12))
    return struct.pack("=IIh66x", 0, uid, 1) if option == 1 else pid


class _Loaded:
    """A library whose calls may be given types."""

    def __init__(self, library: object) -> None:
        for name in ("proc_listpids", "proc_pidinfo", "proc_pid_rusage"):
            setattr(self, name, functools.partial(getattr(library, name)))


class _WithMacCalls:
    """The C library, and what it has on a Mac besides."""

    def __init__(self, real: ctypes.CDLL) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any call
        if name in {"prctl", "syscall"}:
            raise AttributeError(f"{name} is Linux's")
        return getattr(self._real, name)

    @staticmethod
    def mach_timebase_info(buffer: Any) -> int:  # noqa: ANN401 - a buffer of ctypes
        buffer.raw = (1).to_bytes(4, sys.byteorder) * 2
        return 0

    @staticmethod
    def sysctlbyname(_name: bytes, buffer: Any, _size: Any, _new: None, _length: int) -> int:  # noqa: ANN401
        buffer.value = b"AAAAAAAA-0000-0000-0000-000000000000"
        return 0


def _stat(path: Any, *rest: Any, **more: Any) -> os.stat_result:  # noqa: ANN401 - as os.stat does
    if not isinstance(path, int):
        _no_proc("open", (os.fsdecode(path),))
    return _real_stat(path, *rest, **more)


def _no_proc(event: str, arguments: tuple[Any, ...]) -> None:
    """Have /proc and /sys look as they do on a Mac, for our own modules."""
    if event not in {"open", "os.listdir", "os.scandir"} or not isinstance(arguments[0], str):
        return
    path = arguments[0]
    if not path.startswith(("/proc", "/sys/")) or path.startswith(_READABLE):
        return
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if "/site-packages/" in file or file.endswith("libproc_stand_in.py"):
            return
        if "/lender/" in file:
            break
        frame = frame.f_back
    raise FileNotFoundError(2, "no such file on a Mac", path)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.modules["mac_stand_in"] = sys.modules["__main__"]
    become_mac()
    words = sys.argv[1:]
    while words and words[0] in {"-I", "-S", "-B"}:
        words.pop(0)
    if words[:1] == ["-m"]:
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        assert words[:1] == ["-c"], words
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<mac>", "exec"), {"__name__": "__main__"})
