"""The last step into a process sandbox: the limits and Landlock's rules for files, set inside.

`enter.c` is our own program for it, and for the first step outside; `make walls` builds it in
place, as who builds a wheel does. Where it is not built, or this kernel has no Landlock, it is
prlimit(1) with the same limits, and the mount namespace is the only wall around the files.
"""

import functools
import os
import resource
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from lender.sandbox.plan import WORK_FOLDER
from lender.sandbox.walls import confine, landlock

# Below /dev, which bubblewrap makes in every sandbox, whatever its root is.
PLACE: Final = "/dev/lender-enter"
# How it ends where it failed before there was a command.
FAILED: Final = 125
# What it hears as one piece (pipe(7), PIPE_BUF), behind the byte that bubblewrap waits for.
HEARD_BYTES_MAX: Final = 4095
# Option of enter.c, path inside.
RULES: Final = (
    ("-n", "/"),
    ("-x", "/usr"),
    ("-r", "/etc"),
    ("-r", "/proc"),
    ("-d", "/dev"),
    # Standard input is this very file, opened outside; /dev/stdin opens it again.
    ("-d", "/dev/null"),
    ("-w", "/dev/shm"),  # noqa: S108 - inside
    ("-w", "/tmp"),  # noqa: S108 - inside
    ("-w", WORK_FOLDER),
)
_PROGRAM = Path(__file__).with_name("enter")
_SOURCE = _PROGRAM.with_suffix(".c")


def find() -> str | None:
    """Our program, where it is built and was seen to hold; looked for once.

    None for root, who runs no sandbox: what counts is whether their user can reach it.
    """
    return None if confine.holds_root() else _checked(str(_PROGRAM))


def how_to_build() -> str | None:
    """The command that builds our program; None where it is there, or would be of no use."""
    if _PROGRAM.exists() or landlock.abi() < landlock.FILES_SINCE_ABI:
        return None
    return f"cc -O2 -o {_PROGRAM} {_SOURCE}"


def options() -> list[str]:
    """The words for bubblewrap that bring it in."""
    program = find()
    return [] if program is None else ["--ro-bind", program, PLACE]


def outside(program: str, argv: Iterable[str], fds: int, *, idle: bool) -> list[str]:
    """The command line that starts another one outside, as a child of this process.

    It dies with us, and has the first descriptors only.

    Args:
        program: ours; see `find`.
        argv: the other's, with a path first.
        fds: how many descriptors.
        idle: it runs only when nothing else wants to.
    """
    words = [program, "-o", str(os.getpid()), str(fds)]
    return [*words, *(["-i"] if idle else []), "--", *argv]


def command(
    argv: Iterable[str],
    limits: Mapping[str, int],
    rules: Iterable[tuple[str, str]] = RULES,
) -> list[str]:
    """The command line behind bwrap's options.

    Args:
        argv: the job's own.
        limits: by prlimit(1)'s names.
        rules: which files it may use; see `RULES`. Without our program there are none.
    """
    if find() is None:
        words = [f"--{name}={value}" for name, value in limits.items()]
        return ["/usr/bin/prlimit", *words, "--", *argv]
    numbers = {getattr(resource, f"RLIMIT_{name.upper()}"): v for name, v in limits.items()}
    words = [word for number, value in numbers.items() for word in ("-l", f"{number}={value}")]
    return [PLACE, *words, *(word for rule in rules for word in rule), "--", *argv]


def waiting(fd: int) -> list[str]:
    """The command line behind bwrap's options of who hears its words later, see `words`.

    Args:
        fd: the reading end of a pipe.
    """
    return [PLACE, "-f", str(fd)]


def words(
    argv: Iterable[str],
    env: Mapping[str, str],
    limits: Mapping[str, int],
    rules: Iterable[tuple[str, str]] = RULES,
) -> bytes:
    """What it is told then, as one piece of `HEARD_BYTES_MAX` at most; see `command`.

    Raises:
        ValueError: a zero byte would end one word and begin another.
    """
    variables = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
    told = [*variables, *command(argv, limits, rules)[1:]]
    if any("\0" in word for word in told):
        raise ValueError("a zero byte in an argument or in the environment")
    return b"".join(os.fsencode(word) + b"\0" for word in told)


@functools.cache
def _checked(program: str) -> str | None:
    try:
        pid = os.posix_spawn(program, [program, "-c"], {})
    except OSError:
        return None
    _, status = os.waitpid(pid, 0)
    return program if status == 0 else None
