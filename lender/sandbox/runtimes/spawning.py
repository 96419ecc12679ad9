"""Start the program that makes a task's walls: forked, confined, with pipes, then exec'd.

What is started has these descriptors and no others:

    0 what it reads  1, 2 output  3 its own word to us  4 ours to it  5, 6... memory files

and one more behind them where the program behind the walls is to hear the rest of our word.
"""

import contextlib
import fcntl
import functools
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, NoReturn

from lender.sandbox.processes import autogroup
from lender.sandbox.walls import confine, enter, landlock

STATUS_FD: Final = 3
HOLD_FD: Final = 4
FILES_FD: Final = 5


class Spawned(NamedTuple):
    """A started program: its process and our ends of its pipes, which are non-blocking.

    Attributes:
        pid: also its process group.
        handle: can be read once it has ended (pidfd_open(2)).
        stdout: what it writes.
        stderr: what it writes there.
        status: what it writes to descriptor 3.
        hold: what it reads from descriptor 4.
    """

    pid: int
    handle: int
    stdout: int
    stderr: int
    status: int
    hold: int


def spawn(
    program: str,
    argv: list[str],
    env: Mapping[str, str],
    files: Sequence[bytes],
    domain: int | None,
    give_up: Callable[[], None] | None = None,
    stdin: int | None = None,
    *,
    heard_inside: bool = False,
) -> Spawned:
    """Start a program that dies with us.

    Where nothing is to be done in Python before it begins, our own program goes ahead of it: a
    fork of this interpreter costs more than all that they do.

    Args:
        program: its path.
        argv: its arguments, its name first.
        env: its whole environment.
        files: what it can read from descriptors 5 and on.
        domain: a Landlock ruleset that it enters; see `landlock`.
        give_up: called in the child right before the exec.
        stdin: a descriptor for it to read from, the caller's to close; None for nothing to read.
        heard_inside: what descriptor 4 reads can be read from the last one, too.

    Raises:
        OSError: no process, or no descriptor.
        ValueError: an argument holds a zero byte.
    """
    if any("\0" in word for word in argv):
        raise ValueError("a zero byte in an argument")
    _session_yields()  # once for all of this process's forks
    parent = os.getpid()
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        own: list[int] = []
        held, hold = os.pipe()
        ours.callback(os.close, hold)
        given = [
            _given(theirs, os.open(os.devnull, os.O_RDONLY)) if stdin is None else stdin,
            *(_pipe_end(theirs, ours, own) for _ in range(3)),
            _given(theirs, held),
            *(_given(theirs, _memory_file(content)) for content in files),
            *([held] if heard_inside else []),
        ]
        ahead = enter.find() if domain is None and give_up is None else None
        if ahead is not None:
            words = enter.outside(
                ahead, [program, *argv[1:]], len(given), idle=not _session_yields()
            )
            pid = _spawn_ahead(words, env, given)
        else:
            pid = os.fork()
            if pid == 0:
                _become(program, argv, env, given, domain, give_up, parent)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # the child does it too: whoever comes first
        if sys.platform != "linux":
            raise NotImplementedError("Linux only")
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            raise
        ours.pop_all()
    stdout, stderr, status = own
    return Spawned(pid, handle, stdout, stderr, status, hold)


def _spawn_ahead(words: list[str], env: Mapping[str, str], fds: list[int]) -> int:
    """Start it by vfork, in a group of its own, with these descriptors as 0, 1, 2..."""
    with contextlib.ExitStack() as stack:
        # Out of the way of the numbers that they are to have.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(fds)) for fd in fds]
        for fd in high:
            stack.callback(os.close, fd)
        return os.posix_spawn(
            words[0],
            words,
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, place) for place, fd in enumerate(high)],
            setpgroup=0,
            setsigdef=confine.CHANGED_SIGNALS,
        )


def _become(
    program: str,
    argv: list[str],
    env: Mapping[str, str],
    fds: list[int],
    domain: int | None,
    give_up: Callable[[], None] | None,
    parent: int,
) -> NoReturn:
    """The forked child: give up what is ours, then exec. Never returns."""
    try:
        os.setpgid(0, 0)
        confine.die_with_parent(parent, signal.SIGKILL)
        if not _session_yields():
            confine.yield_by_itself()
        confine.default_signals()
        confine.keep_as(fds if domain is None else [*fds, domain])
        if domain is not None:
            landlock.restrict(len(fds))
            os.close(len(fds))
        if give_up is not None:
            give_up()
        os.execve(program, [*argv], env)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"{program}: {error.strerror}".encode())
    finally:
        os._exit(1)


@functools.cache
def _session_yields() -> bool:
    return autogroup.weighs()


def _given(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _pipe_end(theirs: contextlib.ExitStack, ours: contextlib.ExitStack, own: list[int]) -> int:
    """The writing end of a new pipe; its reading end, non-blocking, is added to `own`."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    ours.callback(os.close, reader)
    own.append(reader)
    return _given(theirs, writer)


def _memory_file(content: bytes) -> int:
    if sys.platform != "linux":
        raise NotImplementedError("Linux only")
    fd = os.memfd_create("sandbox")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
