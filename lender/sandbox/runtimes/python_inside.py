"""What runs inside the sandbox of a python job: one interpreter for a lease, a call for each task.

Started as `python -I -S -B` with a socket as standard input and, where not all is in its usual
place (macOS), the places as words behind it, see `Places`. First it says HELLO there and loads the
program. Then it is asked for some tasks at once, and calls the function for one after the other.
Answers go where its standard output went, and OVER to the socket when nothing of what was asked
for will be begun any more, and the rest of it is forgotten:

- behind a task that failed, whose value is large, or of which something is to be seen (`_Traces`):
  who supervises cleans up before the next one. Any other's answer is CLEAN.
- BURST_S after it was asked. What begins begins before, with all answers ahead of it handed over:
  so who looks later knows which task it looks at, or that there is none.

Asked for no task, it loads the program of another job, NEXT in the working folder, and answers as
for the first. What it is asked with are the variables that are that job's own, a JSON object.

The standard library and the packages that the owner allows are all that there is in here.

A task finds its working folder, environment, current folder, standard streams, timers and SIGTERM
as the first one did. What the function leaves in memory (modules, globals, threads) stays: all
tasks are of one job, or of jobs that share an interpreter by their submitter's word. SIGTERM raises
SystemExit in the function, so that `finally` is run.
"""

# The interpreter may be an older one than the lender's own: annotations are not evaluated.
from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import signal
import struct
import sys
import time
from itertools import repeat

try:
    # What `signal` does around it takes ten times as long.
    from _signal import signal as _set_handler  # type: ignore[import-not-found] # CPython's own
except ImportError:
    _set_handler = signal.signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

FOLDER = "/run/lender"
PROGRAM = f"{FOLDER}/program"
PACKAGES = f"{FOLDER}/packages"
INSIDE = f"{FOLDER}/inside.py"
PREFIX = f"{FOLDER}/python"
LIBRARIES = f"{PREFIX}/lib"
NEXT = ".lender-program"

# What is said on the socket from inside.
HELLO, OVER = b"\0", b"\1"
# Kinds of an answer. The value is behind CLEAN and DONE, the exception in words behind the others.
CLEAN, DONE, RAISED, MISSING, NO_MEMORY, NO_SPACE = range(6)
VALUES = (CLEAN, DONE)
# An answer: its kind, the length of what follows, and nanoseconds since it was asked for (of the
# monotonic clock, which is the same outside).
ANSWER = struct.Struct("!BIQ")
TEXT_BYTES_MAX = 2000
# A request: when it was made (seconds of that clock), and of how many tasks; four bytes for each.
REQUEST = struct.Struct("!dH")
REQUEST_TASKS_MAX = 256
_REQUEST_BYTES_MAX = 1 << 16
# As many of them, with a header each, as fit into a pipe that nobody reads meanwhile.
BURST_VALUE_BYTES_MAX = 512
BURST_S = 0.001

_WORK = "/work"
_TEMPORARY = ("/tmp", "/dev/shm")  # noqa: S108 - the sandbox's own
# Of this PID namespace (proc(5)): counts processes and threads alike.
_LAST_PID = "/proc/sys/kernel/ns_last_pid"
_LAST_PID_BYTES = 32
# No kernel's clock for files is coarser.
_TICK_NS = 100_000_000
_MAIN_FILE = "__init__.py"
_PLAIN = frozenset({type(None), bool, int, float, str})
_LARGE_BITS = 4096
_SMALL = range(-(1 << 62), 1 << 62)  # far fewer digits than what Python writes at most
_TOO_LARGE = 27  # EFBIG: a file would exceed its limit
_json = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class Places:
    """Where things are in here.

    Args:
        words: of the command line: the working folder, the file with the program, and for each
            package or module that may be imported its name, `=`, and where it lies. None of them:
            all is where bubblewrap has put it.
    """

    def __init__(self, words: list[str]) -> None:
        self.work, self.program = words[:2] if words else (_WORK, PROGRAM)
        self._packages = dict(word.split("=", 1) for word in words[2:])

    def open_packages(self) -> None:
        """Have them found by `import`: by name, for what lies beside them is not to be read."""
        if self._packages:
            sys.meta_path.append(self)  # type: ignore[arg-type] # a finder has no base class
        else:
            sys.path.append(PACKAGES)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> object:
        """What the import system asks of its finders (importlib.abc.MetaPathFinder)."""
        place = self._packages.get(name)
        if place is None:
            return None
        import importlib.util  # noqa: PLC0415 - where it is needed

        if not os.path.isdir(place):  # noqa: PTH112 - pathlib is one more import
            return importlib.util.spec_from_file_location(name, place)
        main_file = f"{place}/{_MAIN_FILE}"
        return importlib.util.spec_from_file_location(
            name, main_file, submodule_search_locations=[place]
        )


def main() -> None:
    """Load the program, then call it for one task after another until nobody asks any more."""
    places = Places(sys.argv[1:])
    del sys.argv[1:]
    channel, value = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    # Whatever is printed, by C code and by children too, goes where standard error goes.
    os.dup2(2, 1)
    os.close(null)
    try:
        _Inside(channel, value, places).serve()
    except BaseException:  # noqa: BLE001 - SIGTERM while no function ran, or a fault of ours
        sys.excepthook(*sys.exc_info())
    # Threads that a function left would keep a plain return waiting.
    os._exit(1)


class _Traces:
    """What a task may leave outside of this interpreter's memory, by one cheap look at each thing.

    For tasks that mean no harm: whoever minds looks from outside.

    Args:
        work: the working folder.
    """

    def __init__(self, work: str) -> None:
        self._last_pid = self._stderr = -1
        self._folders: list[_Folder] = []
        self._last = b""
        self._said_bytes = bytearray(4)
        # Where one of them is missing nothing is known, and each task is cleaned up behind.
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # noqa: PLC0415 - not everywhere
            import termios  # noqa: PLC0415 - not everywhere

            self._ioctl, self._fionread = fcntl.ioctl, termios.FIONREAD
            self._folders = [_Folder(place) for place in (work, *_TEMPORARY)]
            self._stderr = os.dup(2)
            self._last_pid = os.open(_LAST_PID, os.O_RDONLY)

    def note(self) -> None:
        """What is here now is not of the tasks that follow."""
        with contextlib.suppress(OSError):
            self._last = os.pread(self._last_pid, _LAST_PID_BYTES, 0)

    def are_new(self) -> bool:
        """Whether anything has come since, or might have: a process, a thread, a file, output."""
        try:
            if os.pread(self._last_pid, _LAST_PID_BYTES, 0) != self._last:
                return True
            self._ioctl(self._stderr, self._fionread, self._said_bytes)
            if any(self._said_bytes):
                return True
            for folder in self._folders:
                if not folder.is_as_it_was():
                    return True
        except OSError:
            return True
        return False


class _Folder:
    """Whether a folder has the names in it that it had at first, and its permissions."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._mode = os.stat(self._fd).st_mode  # noqa: PTH116 - a descriptor
        self._names = self._listed()
        self._looked_ns = -1

    def is_as_it_was(self) -> bool:
        """One look at its time, where that tells; else at all names."""
        found = os.stat(self._fd)  # noqa: PTH116 - a descriptor
        if found.st_ctime_ns == self._looked_ns:
            return True
        if found.st_mode != self._mode or self._listed() != self._names:
            return False
        # Of what has changed just now the next change may have the same time.
        is_past = time.time_ns() - found.st_ctime_ns > _TICK_NS
        self._looked_ns = found.st_ctime_ns if is_past else -1
        return True

    def _listed(self) -> list[str]:
        return sorted(os.listdir(self._fd))  # noqa: PTH208 - a descriptor


class _Inside:
    def __init__(self, channel: int, answers: int, places: Places) -> None:
        self._places = places
        self._channel = channel
        self._answers = answers
        self._pid = os.getpid()
        # Python itself adds it where no locale is set.
        os.environ.pop("LC_CTYPE", None)
        # Put in front of the job's own for this interpreter alone.
        libraries = os.environ.pop("LD_LIBRARY_PATH", "").removeprefix(LIBRARIES).removeprefix(":")
        if libraries:
            os.environ["LD_LIBRARY_PATH"] = libraries
        self._environ = os.environ
        self._environment = dict(os.environ)
        self._encoded = dict(_encoded())
        self._streams = sys.stdin, sys.stdout, sys.stderr
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr] # a real file
        self._flush_c = _c_flush()
        self._traces = _Traces(places.work)

    def serve(self) -> None:
        """Answer one request after another."""
        _write(self._channel, HELLO)
        signal.signal(signal.SIGTERM, _end)
        asked_at = time.monotonic()
        self._places.open_packages()
        function: Any = self._load(asked_at)
        while True:
            _write(self._channel, OVER)
            # Ahead of the next task: what came before it has its answer already.
            self._restore()
            request = os.read(self._channel, _REQUEST_BYTES_MAX)
            if not request:
                return
            asked_at, count = REQUEST.unpack_from(request)
            told = request[REQUEST.size :]
            if count:
                self._run(function, asked_at, struct.unpack(f"!{count}I", told))
            else:
                function = None  # it is not to be held beside the one that comes
                function = self._load_another(asked_at, told)

    def _load(self, asked_at: float) -> Callable[[int], object]:
        """The job's callable."""
        function: Any = None
        kind, content = DONE, b""
        try:
            with open(self._places.program, "rb") as file:  # noqa: PTH123 - pathlib is one more import
                function = pickle.load(file)  # noqa: S301 - the job's own, in its own sandbox
            if not callable(function):
                raise TypeError(f"the program is a {type(function).__name__}, no callable")  # noqa: TRY301 - told like any other
        except BaseException as error:  # noqa: BLE001 - whatever the program raises is told
            kind, content = self._explain(error)
        self._leave_if_forked()
        self._flush()
        self._answer(asked_at, kind, content)
        return function  # type: ignore[no-any-return] # nobody asks for a call of what is none

    def _load_another(self, asked_at: float, variables: bytes) -> Callable[[int], object]:
        """That of another job."""
        self._environment.pop("LENDER_TASK", None)
        self._environment.update(json.loads(variables))
        self._encoded = {os.fsencode(k): os.fsencode(v) for k, v in self._environment.items()}
        self._restore()
        self._places.program = f"{self._places.work}/{NEXT}"
        return self._load(asked_at)

    def _run(
        self, function: Callable[[int], object], asked_at: float, tasks: tuple[int, ...]
    ) -> None:
        """Call it for one task after the other, as far as nobody has to look between them."""
        # Those of the task before were killed after its answer; they count until they are reaped.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if len(tasks) == 1:
            self._answer(asked_at, *self._call(function, tasks[0]))
            return
        self._traces.note()
        until = asked_at + BURST_S
        for task in tasks:
            kind, content = self._call(function, task)
            is_small = kind == DONE and len(content) <= BURST_VALUE_BYTES_MAX
            if is_small and not self._traces.are_new():
                kind = CLEAN
            self._answer(asked_at, kind, content)
            # Behind the answer: see above.
            if kind != CLEAN or time.monotonic() > until:
                return
            self._restore()

    def _call(self, function: Callable[[int], object], task: int) -> tuple[int, bytes]:
        """Kind and content of its answer."""
        index = self._environment["LENDER_TASK"] = os.environ["LENDER_TASK"] = str(task)
        self._encoded[b"LENDER_TASK"] = index.encode()
        kind = DONE
        try:
            content = encode(function(task))
        except BaseException as error:  # noqa: BLE001 - whatever the function raises is told
            kind, content = self._explain(error)
        # What the function held is freed by now: the next task may be measured from here on.
        self._leave_if_forked()
        self._flush()
        return kind, content

    def _restore(self) -> None:
        """What a task may expect, whatever the one before has changed."""
        os.chdir(self._places.work)
        os.umask(0o022)
        os.environ = self._environ  # noqa: B003 - a task may have put another in its place
        if _encoded() != self._encoded:
            os.environ.clear()
            os.environ.update(self._environment)
        sys.stdin, sys.stdout, sys.stderr = self._streams
        signal.setitimer(signal.ITIMER_REAL, 0)
        _set_handler(signal.SIGTERM, _end)

    def _explain(self, error: BaseException) -> tuple[int, bytes]:
        """Kind and words of an exception; its traceback goes to standard error."""
        self._leave_if_forked()
        self._flush()
        kind = RAISED
        if isinstance(error, MemoryError):
            kind = NO_MEMORY
        elif isinstance(error, ImportError):
            kind = MISSING
        elif isinstance(error, OSError) and error.errno == _TOO_LARGE:
            kind = NO_SPACE
        text = type(error).__name__
        with contextlib.suppress(BaseException):  # also its own words may fail
            text = f"{text}: {error}".removesuffix(": ")
            import traceback  # noqa: PLC0415 - 5 ms that a task without a fault need not pay

            # Our own frame is of no interest.
            told = traceback.TracebackException.from_exception(error)
            del told.stack[:1]
            _write(2, "".join(told.format()).encode("utf-8", "backslashreplace"))
        return kind, text.encode("utf-8", "replace")[:TEXT_BYTES_MAX]

    def _answer(self, asked_at: float, kind: int, content: bytes) -> None:
        took_ns = max(0, int((time.monotonic() - asked_at) * 1e9))
        _write(self._answers, ANSWER.pack(kind, len(content), took_ns) + content)

    def _leave_if_forked(self) -> None:
        """A child that the function forked and did not end must not answer as well."""
        if os.getpid() != self._pid:
            os._exit(0)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            try:  # noqa: SIM105 - a third of its cost
                stream.flush()
            except Exception:  # noqa: BLE001, S110 - it may be the function's own
                pass
        self._flush_c(None)


def _encoded() -> dict[bytes, bytes]:
    """The environment, as it is kept where it can be had: to decode it takes far longer."""
    kept = getattr(os.environ, "_data", None)
    return kept if type(kept) is dict else dict(os.environb)


def encode(value: object) -> bytes:
    """A value as `lender.client.values.decode` reads it.

    A letter says how the rest is to be read. b: bytes. j: JSON, in which a list is a list, and an
    object of one entry stands for what JSON lacks: t a tuple, b bytes in base64, i a large int in
    hexadecimal, d a dict with strings as keys, m one with any keys, as pairs. p: a pickle, for all
    that has another type.
    """
    if type(value) is bytes:
        return b"b" + value
    if type(value) is int and value in _SMALL:
        return b"j%d" % value
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        try:
            return b"j" + _json.encode(_tagged(value, _PLAIN)).encode()
        except ValueError:  # Python writes no int of more than 4300 digits in decimal
            return b"j" + _json.encode(_tagged(value, _PLAIN - {int})).encode()
    # cloudpickle, where the program came by it: it takes what the program itself defines.
    pickler: Any = sys.modules.get("cloudpickle", pickle)
    return b"p" + bytes(pickler.dumps(value))


def _tagged(value: Any, plain: frozenset[type]) -> object:  # noqa: ANN401 - see decode
    kind = type(value)
    if kind in plain or (kind is int and value.bit_length() < _LARGE_BITS):
        return value
    if kind is list:
        # One look at all types is far cheaper than a call for each item.
        is_plain = plain.issuperset(map(type, value))
        return value if is_plain else [*map(_tagged, value, repeat(plain))]
    if kind is tuple:
        return {"t": _tagged([*value], plain)}
    if kind is bytes or kind is int:
        return {"b": base64.b64encode(value).decode()} if kind is bytes else {"i": hex(value)}
    if kind is not dict:
        raise TypeError(kind)
    if all(type(key) is str for key in value):
        return {"d": {key: _tagged(one, plain) for key, one in value.items()}}
    return {"m": [[_tagged(key, plain), _tagged(one, plain)] for key, one in value.items()]}


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit("asked to end")


def _c_flush() -> Callable[[None], object]:
    """The C library's fflush, where it can be reached: what C code printed would come late."""
    try:
        import ctypes  # noqa: PLC0415 - not everywhere

        return ctypes.CDLL(None).fflush
    except (ImportError, OSError, AttributeError):
        return lambda _: None


def _write(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


if __name__ == "__main__":
    main()
