"""The processes inside an interpreter's sandbox, as the kernel shows them: measured and swept.

Everything is looked up once, when the interpreter comes up, and held open: a short task must not
pay for searches through /proc.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lender.sandbox.files import scratch
from lender.sandbox.meters.network_attempts import NetworkCounters
from lender.sandbox.runtimes.residents import Used

_FILE = os.O_RDONLY | os.O_CLOEXEC
_FOLDER = _FILE | os.O_DIRECTORY
_TEMPORARY = ("tmp", "dev/shm")
_STAT_BYTES = 4096
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/<pid>/stat behind the name (proc(5)).
_STATE, _PARENT, _CHILDREN_USER, _CHILDREN_SYSTEM, _THREADS, _RESIDENT = 0, 1, 13, 14, 17, 21
_SWEEPS_MAX = 50
_SWEEP_S = 0.001
# Reading them all takes longer than a short task: so often, or once a task was longer.
_LOOK_S = 0.02
# Of the folder with an entry for each thread.
_ONE_THREAD = 3
_LONG_S = 0.001


class Inhabitants:
    """The interpreter, the sandbox's init above it, and whatever a task started beside it.

    See `Residents` for what is not said here.

    Args:
        pid: the interpreter's, out here; nothing of the job's has run yet.
        folder: the working folder.
        inputs: names of what bubblewrap has made in there to mount the inputs on.
        refused: how often its proxy has refused it.

    Raises:
        OSError: it is dead already.
    """

    def __init__(
        self,
        pid: int,
        folder: Path,
        inputs: Iterable[str],
        refused: Callable[[], int] = lambda: 0,
    ) -> None:
        self._refused = refused
        with contextlib.ExitStack() as opened:
            self._stat = _open(opened, f"/proc/{pid}/stat", _FILE)
            init = int(_fields(self._stat)[_PARENT])
            self._init_stat = _open(opened, f"/proc/{init}/stat", _FILE)
            self._proc = _open(opened, f"/proc/{init}/root/proc", _FOLDER)
            # By the folder that is held open: a process id may be another's by the time it is used.
            root = f"/proc/self/fd/{self._proc}/.."
            self._temporary = [
                _Temporary(f"{root}/{name}", _open(opened, f"{root}/{name}", _FOLDER))
                for name in _TEMPORARY
            ]
            self._family = _Family(opened, pid, init)
            self._own = frozenset({"1", _pid_inside(pid)})
            self._network = NetworkCounters(init)
            opened.callback(self._network.close)
            self._opened = opened.pop_all()
        # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), include/linux/posix-timers_types.h: exact,
        # and a fifth of the cost of a file.
        self._clock = (~pid << 3) | 2
        self._used = Used(0.0, 0, 0)
        self._looked_at = 0.0
        self._mounts = {place: _inode(place) for place in (f"{folder}/{name}" for name in inputs)}

    def close(self) -> None:
        """See `Residents`."""
        self._opened.close()

    def sweep(self) -> bool:
        """See `Residents`."""
        if self._family.is_alone():
            return True
        for _ in range(_SWEEPS_MAX):
            names = os.listdir(self._proc)  # noqa: PTH208 - a descriptor
            if not self._own.issubset(names):
                return False
            # The interpreter itself waits for its dead children, before the next task.
            left = [n for n in names if n.isdigit() and n not in self._own and self._lives(n)]
            if not left:
                return True
            for name in left:
                self._kill(name)
            time.sleep(_SWEEP_S)
        return False

    def clear_temporary(self) -> None:
        """Empty /tmp and /dev/shm."""
        for folder in self._temporary:
            if not folder.is_empty() and os.listdir(folder.path):  # noqa: PTH208 - fast
                scratch.wipe(Path(folder.path))

    def has_inputs(self) -> bool:
        """Whether each is still mounted where it was: a task may have moved its folder."""
        return all(_inode(place) == inode for place, inode in self._mounts.items())

    def used(self, duration_s: float) -> Used:
        """See `Residents`."""
        now = time.monotonic()
        if duration_s >= _LONG_S or now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            own, init = _fields(self._stat), _fields(self._init_stat)
            fields = (_CHILDREN_USER, _CHILDREN_SYSTEM)
            ticks = sum(int(one[f]) for one in (own, init) for f in fields)
            memory_bytes = int(own[_RESIDENT]) * _PAGE_BYTES
            attempts = self._network.attempts_blocked()
            attempts = None if attempts is None else attempts + self._refused()
            self._used = Used(ticks / _TICKS_PER_S, memory_bytes, attempts)
        cpu_s, memory_bytes, attempts = self._used
        return Used(time.clock_gettime(self._clock) + cpu_s, memory_bytes, attempts)

    def count(self) -> int:
        """Processes and threads, init left out."""
        names = os.listdir(self._proc)  # noqa: PTH208 - a descriptor
        return sum(map(str.isdigit, names)) - len(self._own) + int(_fields(self._stat)[_THREADS])

    def _lives(self, name: str) -> bool:
        try:
            file = os.open(f"{name}/stat", _FILE, dir_fd=self._proc)
        except OSError:
            return False
        try:
            return _fields(file)[_STATE] != b"Z"
        except OSError:
            return False
        finally:
            os.close(file)

    def _kill(self, name: str) -> None:
        if sys.platform != "linux":
            raise NotImplementedError("Linux only")
        with contextlib.suppress(OSError):
            # A folder of any /proc serves as a descriptor of the process, whose id we don't know
            # out here (pidfd_send_signal(2)).
            handle = os.open(name, _FOLDER, dir_fd=self._proc)
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


class _Family:
    """Whether the interpreter has company: a look at three files instead of at all of /proc.

    The kernel lists the children of each thread (proc(5), children). Who is inside is the
    interpreter, or a descendant of its, and whose parent dies becomes a child of the init, or of
    the interpreter. A kernel without these files tells nothing.
    """

    def __init__(self, opened: contextlib.ExitStack, pid: int, init: int) -> None:
        self._only = f"{pid} ".encode()
        self._files: tuple[int, int, int] | None = None
        with contextlib.suppress(OSError):
            self._files = (
                _open(opened, f"/proc/{pid}/task", _FOLDER),
                _open(opened, f"/proc/{pid}/task/{pid}/children", _FILE),
                _open(opened, f"/proc/{init}/task/{init}/children", _FILE),
            )

    def is_alone(self) -> bool:
        """Whether it certainly has none; a dead child that it has not waited for is some."""
        if self._files is None:
            return False
        threads, own, orphans = self._files
        try:
            # In this order: whoever loses its parent meanwhile is met as the init's.
            return (
                os.fstat(threads).st_nlink == _ONE_THREAD
                and not os.pread(own, 1, 0)
                and os.pread(orphans, _STAT_BYTES, 0) == self._only
            )
        except OSError:
            return False


class _Temporary:
    """A folder for temporary files, which is a file system of its own in memory.

    Args:
        path: where it is.
        folder: the same, held open while nothing is in it.
    """

    def __init__(self, path: str, folder: int) -> None:
        self.path = path
        self._folder = folder
        self._empty = self._count()

    def is_empty(self) -> bool:
        """Whether it has as many files as at first, with a name or without."""
        return self._empty > 0 and self._count() == self._empty

    def _count(self) -> int:
        found = os.fstatvfs(self._folder)
        return found.f_files - found.f_ffree


def _open(stack: contextlib.ExitStack, path: str, flags: int) -> int:
    fd = os.open(path, flags)
    stack.callback(os.close, fd)
    return fd


def _fields(file: int) -> list[bytes]:
    line = os.pread(file, _STAT_BYTES, 0)
    return line[line.rfind(b")") + 2 :].split()


def _inode(path: str) -> int:
    return os.lstat(path).st_ino


def _pid_inside(pid: int) -> str:
    """The last of its ids is that of the innermost namespace."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return line.split()[-1]
    raise OSError(f"no NSpid of {pid}")
