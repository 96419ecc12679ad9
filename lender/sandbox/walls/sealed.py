"""A process that runs a stranger's work itself, by an engine, takes system calls from itself.

Whoever breaks out of the engine finds none that start a program or a process, make a socket, or
lead deep into the kernel (`seccomp`): also where there is no Landlock.
"""

import errno
import functools
import sys

from lender.sandbox.walls import confine, seccomp


@functools.cache
def program() -> bytes | None:
    """The filter, made once; None where we have none for this processor."""
    return seccomp.program(seals=True)


def seal() -> bool:
    """Enter the filter, for good, with this thread and those that it starts from then on.

    Returns False where there is none: another system or processor, or a kernel without filters.

    Raises:
        OSError: privileges could still be gained (see `confine.never_gain_privileges`).
    """
    code = program() if sys.platform == "linux" else None
    if code is None:
        return False
    try:
        confine.filter_calls(code)
    except OSError as error:
        if error.errno == errno.EINVAL:  # the kernel was built without
            return False
        raise
    return True
