"""A process that runs a stranger's work itself, by an engine, takes system calls from itself.

Whoever breaks out of the engine finds none that start a program or a process, make a socket, or
lead deep into the kernel (`seccomp`): also where there is no Landlock.
"""

import ctypes
import errno
import functools
import os

from lender.sandbox.walls import seccomp

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_INSTRUCTION_BYTES = 8

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


@functools.cache
def program() -> bytes | None:
    """The filter, made once; None where we have none for this processor."""
    return seccomp.program(seals=True)


def seal() -> bool:
    """Enter the filter, for good, with this thread and those that it starts from then on.

    Returns False where there is none: another processor, or a kernel without filters.

    Raises:
        OSError: privileges could still be gained (see `confine.never_gain_privileges`).
    """
    code = program()
    if code is None:
        return False
    given = _Program(len(code) // _INSTRUCTION_BYTES, code)
    if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(given), 0, 0) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EINVAL:  # the kernel was built without
        return False
    raise OSError(number, f"seccomp: {os.strerror(number)}")
