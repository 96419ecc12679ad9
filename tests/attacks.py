"""What an attack is: one attempt in the words of each runtime, and what came of it.

Attacks on what runs as a process of the kernel are Python after a prelude: `attempt(name, call,
*arguments)` makes a call and says whether it was got or refused. Attacks on wasm are a Guest, which
says the same of WASI calls. A runtime is added by a line in NEEDS and one in PROGRAMS.
"""

import contextlib
import json
import pickle
import shutil
from collections.abc import Callable
from typing import NamedTuple, get_args

import pytest
from sandboxes import module, needs_bubblewrap

from lender.sandbox.plan import Runtime, TaskOutcome

# The interpreter that a process sandbox sees, too.
PYTHON = shutil.which("python3", path="/usr/bin:/bin")
_GUEST_DATA, _GUEST_RESULTS = 256, 65536
_SHOWN_BYTES_MAX = 2000

_PRELUDE = """
import ctypes, errno, json, os, platform, resource, select, signal, socket, stat, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
T = json.loads(@TARGETS@)

def say(*words):
    print(json.dumps(words), flush=True)

def attempt(name, call, *arguments):
    try:
        found = call(*arguments)
    except (OSError, ValueError, MemoryError) as error:
        number = getattr(error, "errno", None)
        say("refused", name, errno.errorcode.get(number, str(error)))
    else:
        say("got", name, repr(found)[:200])

def report(name, found):
    # What is to be found nowhere.
    say("got" if found else "refused", name, repr(found)[:200])

def kernel(x86, arm, *arguments):
    # A system call by its number on x86_64 and on arm64.
    number = x86 if platform.machine() == "x86_64" else arm
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result

def opened(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))

def read(path):
    with open(path, "rb") as file:
        return file.read(1 << 16)

def stranger(pid):
    # A number of the owner's may be that of another process in here: which is the guest's to harm.
    try:
        begun = int(read(f"/proc/{abs(pid)}/stat").rsplit(b")", 1)[1].split()[19])
    except OSError:
        return True
    return begun == T["begun"].get(str(abs(pid)))
"""

needs_python = pytest.mark.skipif(PYTHON is None, reason="no python3 in /usr/bin")
needs_crun = pytest.mark.skipif(shutil.which("crun") is None, reason="crun is not installed")
# What an attack on a runtime needs of the machine.
NEEDS: dict[str, tuple[pytest.MarkDecorator, ...]] = {
    "wasm": (),
    "process": (needs_bubblewrap, needs_python),
    "python": (needs_bubblewrap,),
    "oci": (needs_crun, needs_python),
}


def tried_in(*runtimes: str) -> pytest.MarkDecorator:
    """Try an attack in each of these runtimes, as far as this lender knows them."""
    known = [name for name in runtimes if name in get_args(Runtime)]
    return pytest.mark.parametrize(
        "runtime", [pytest.param(name, marks=NEEDS[name]) for name in known]
    )


class Guest:
    """The text of a WASI command that makes attempts, and writes the error number of each."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._data = ""
        self._body = ""

    def text(self, words: str) -> str:
        """Two arguments: where these words lie, and how many bytes they are."""
        at = _GUEST_DATA + len(self._data)
        self._data += words
        return f"(i32.const {at}) (i32.const {len(words)})"

    def do(self, call: str) -> None:
        """A call whose answer doesn't matter."""
        self._body += f"(drop {call})"

    def attempt(self, name: str, call: str) -> None:
        """A call that comes to 0 where it was allowed."""
        place = _GUEST_RESULTS + len(self.names)
        self.names.append(name)
        self._body += f"(i32.store8 (i32.const {place}) {call})"

    def then(self, text: str) -> None:
        """Anything else."""
        self._body += text

    def open(self, path: str, flags: int = 0, rights: int = 2) -> str:
        """Open a path below the working folder; its descriptor then lies at 28."""
        return f"(call $open {self.text(path)} (i32.const {flags}) (i64.const {rights}))"

    def module(self) -> bytes:
        """The module."""
        say = (
            f"(drop (call $write (i32.const 1) (i32.const {_GUEST_RESULTS})"
            f" (i32.const {len(self.names)})))"
        )
        return module(self._body + say, self._data)


class Tried(NamedTuple):
    """What came of an attack.

    Attributes:
        got: attempts that the attacker would call a success -> what they gave.
        refused: the other ones -> the error.
        ended: the attack came to its own end: nothing ended it before.
        outcome: of the task; None outside of a sandbox.
    """

    got: dict[str, str]
    refused: dict[str, str]
    ended: bool
    outcome: TaskOutcome | None = None

    @property
    def limit(self) -> str | None:
        """The limit that ended it."""
        return None if self.outcome is None else self.outcome.limit

    @property
    def failed(self) -> bool:
        """Every attempt was made, and none came to anything."""
        return self.ended and bool(self.refused) and not self.got

    @property
    def told(self) -> str:
        """All of it for a person, an attempt in a line of its own."""
        lines = [f"got {name}: {what}" for name, what in self.got.items()]
        lines += [f"refused {name}: {why}" for name, why in self.refused.items()]
        lines.append("it came to its own end" if self.ended else "it did not come to its own end")
        return "\n".join(lines if self.outcome is None else [*lines, told(self.outcome)])


def told(outcome: TaskOutcome) -> str:
    """How a task ended, for a person: also all that it said on standard error."""
    said = outcome.stderr_tail.decode(errors="backslashreplace")
    rest = outcome._replace(value=outcome.value[:_SHOWN_BYTES_MAX], stderr_tail=b"")
    return f"{rest}\nstandard error:\n{said}"


def source(code: str, targets: dict[str, object]) -> str:
    """A whole attack in Python; `targets` is what it knows as T."""
    prelude = _PRELUDE.replace("@TARGETS@", repr(json.dumps(targets)))
    return f"{prelude}\n{code}\nsay('ended')\n"


def interpreter(program: str) -> tuple[str, ...]:
    """The command line of a Python program."""
    return ("python3", "-I", "-S", "-c", program)


class _Function:
    """Pickles as a function of a task's index that runs a program and returns what it prints.

    Plain pickle, so that nothing need be installed where it is loaded.
    """

    def __init__(self, program: str) -> None:
        self._program = program

    def __reduce__(self) -> tuple[object, tuple[str]]:
        code = _CALL.replace("@PROGRAM@", repr(self._program))
        return eval, (f"(lambda names: (exec({code!r}, names), names['attack'])[1])({{}})",)


_CALL = """
def attack(task):
    import contextlib, io
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(@PROGRAM@, {"__name__": "__main__"})
    return said.getvalue()
"""


def function(program: str) -> bytes:
    """A python job that runs a program."""
    return pickle.dumps(_Function(program))


def read_words(text: str, outcome: TaskOutcome | None = None) -> Tried:
    """What an attack in Python said, whatever else it wrote."""
    found: dict[str, dict[str, str]] = {"got": {}, "refused": {}}
    ended = False
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError, LookupError):
            word, *rest = json.loads(line)
            ended = ended or word == "ended"
            if word in found:
                found[word][rest[0]] = rest[1]
    return Tried(found["got"], found["refused"], ended, outcome)


def read_numbers(guest: Guest, outcome: TaskOutcome) -> Tried:
    """What a guest said."""
    results = list(zip(guest.names, outcome.value, strict=False))
    got = {name: "0" for name, number in results if number == 0}
    refused = {name: f"WASI error {number}" for name, number in results if number != 0}
    return Tried(got, refused, len(results) == len(guest.names), outcome)


def read_value(outcome: TaskOutcome) -> str:
    """What a python job returned, where it returned: a text is told as JSON behind a letter."""
    return str(json.loads(outcome.value[1:])) if outcome.value.startswith(b"j") else ""


# How an attack's source is run -> the changed fields of a plan, its program as bytes.
PROGRAMS: dict[str, Callable[[str], dict[str, object]]] = {
    "process": lambda program: {"argv": interpreter(program)},
    # Without an image it shows the host's /usr, as the process runtime does.
    "oci": lambda program: {"argv": interpreter(program)},
    "python": lambda program: {"program": function(program), "argv": ()},
}
