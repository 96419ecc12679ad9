"""What runs inside the sandbox of a python job: one interpreter for a lease, a call for each task.

Started as `python -I -S -B` with a socket as standard input and, where not all is in its usual
place (macOS), the places as words behind it, see `Places`. First it says HELLO and loads the
program, which it answers; then it gets a task's index, four bytes, and answers when the call is
over. A small value is part of the answer; a larger one was then written to what was its standard
output. The standard library and the packages that the owner allows are all that there is in here.

LOAD in place of an index has it load the program of another job, NEXT in the working folder, and
answer as for the first. Behind it come two bytes of length and a JSON object: the variables that
are that job's own.

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
import sys
from itertools import repeat

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

# Kinds of an answer: its first byte. Two bytes with a length follow, and so many bytes: the value
# behind DONE, the exception in words behind the others.
HELLO, DONE, RAISED, MISSING, NO_MEMORY, NO_SPACE = range(6)
HEADER_BYTES = 3
CONTENT_BYTES_MAX = 2000
REQUEST_BYTES, LENGTH_BYTES = 4, 2
LOAD = 0xFFFFFFFF

_WORK = "/work"
_MAIN_FILE = "__init__.py"
_PLAIN = frozenset({type(None), bool, int, float, str})
_LARGE_BITS = 4096
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


class _Inside:
    def __init__(self, channel: int, value: int, places: Places) -> None:
        self._places = places
        self._channel = channel
        self._value = value
        self._pid = os.getpid()
        # Python itself adds it where no locale is set.
        os.environ.pop("LC_CTYPE", None)
        # Put in front of the job's own for this interpreter alone.
        libraries = os.environ.pop("LD_LIBRARY_PATH", "").removeprefix(LIBRARIES).removeprefix(":")
        if libraries:
            os.environ["LD_LIBRARY_PATH"] = libraries
        self._environment = dict(os.environ)
        self._streams = sys.stdin, sys.stdout, sys.stderr
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr] # a real file
        self._flush_c = _c_flush()

    def serve(self) -> None:
        """Answer one request after another."""
        self._answer(HELLO)
        signal.signal(signal.SIGTERM, _end)
        self._places.open_packages()
        function: Any = self._load()
        while True:
            # Ahead of the next task: what came before it has its answer already.
            self._restore()
            request = os.read(self._channel, REQUEST_BYTES)
            if len(request) != REQUEST_BYTES:
                return
            task = int.from_bytes(request, "big")
            if task == LOAD:
                function = None  # it is not to be held beside the one that comes
                function = self._load_another()
            else:
                self._call(function, task)

    def _load(self) -> Callable[[int], object]:
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
        self._answer(kind, content)
        return function  # type: ignore[no-any-return] # nobody asks for a call of what is none

    def _load_another(self) -> Callable[[int], object]:
        """That of another job."""
        size = int.from_bytes(os.read(self._channel, LENGTH_BYTES), "big")
        self._environment.pop("LENDER_TASK", None)
        self._environment.update(json.loads(os.read(self._channel, size)))
        self._restore()
        self._places.program = f"{self._places.work}/{NEXT}"
        return self._load()

    def _call(self, function: Callable[[int], object], task: int) -> None:
        # Those of the task before were killed after its answer; they count until they are reaped.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        self._environment["LENDER_TASK"] = os.environ["LENDER_TASK"] = str(task)
        kind = DONE
        try:
            content = encode(function(task))
        except BaseException as error:  # noqa: BLE001 - whatever the function raises is told
            kind, content = self._explain(error)
        # What the function held is freed by now: the next task may be measured from here on.
        self._answer(kind, content)

    def _restore(self) -> None:
        """What a task may expect, whatever the one before has changed."""
        os.chdir(self._places.work)
        os.umask(0o022)
        if dict(os.environ) != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        sys.stdin, sys.stdout, sys.stderr = self._streams
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, _end)

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
        return kind, text.encode("utf-8", "replace")[:CONTENT_BYTES_MAX]

    def _answer(self, kind: int, content: bytes = b"") -> None:
        self._leave_if_forked()
        self._flush()
        if len(content) > CONTENT_BYTES_MAX:
            _write(self._value, content)
            content = b""
        _write(self._channel, bytes([kind]) + len(content).to_bytes(2, "big") + content)

    def _leave_if_forked(self) -> None:
        """A child that the function forked and did not end must not answer as well."""
        if os.getpid() != self._pid:
            os._exit(0)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # it may be the function's own
                stream.flush()
        self._flush_c(None)


def encode(value: object) -> bytes:
    """A value as `lender.client.values.decode` reads it.

    A letter says how the rest is to be read. b: bytes. j: JSON, in which a list is a list, and an
    object of one entry stands for what JSON lacks: t a tuple, b bytes in base64, i a large int in
    hexadecimal, d a dict with strings as keys, m one with any keys, as pairs. p: a pickle, for all
    that has another type.
    """
    if type(value) is bytes:
        return b"b" + value
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
