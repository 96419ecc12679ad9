"""Keep a program that would begin a session in the one that it was started in.

A session has a share of the processor of its own (sched(7), autogroup): what begins one takes as
much as the owner's work. The filter of a task (`seccomp`) has setsid() succeed without effect; this
is the same for a container runtime, which calls it before it puts that filter on.
"""

import ctypes
import errno
import os
import platform
import struct

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _SUCCEED = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE = 0, 4
# Audit architecture and number of setsid(2).
_SETSID = {"x86_64": (0xC000003E, 112), "aarch64": (0xC00000B7, 157)}

_libc = ctypes.CDLL(None, use_errno=True)


def stay() -> None:
    """Have setsid(2) do nothing for this process and all that it starts, for good.

    Without effect on processors whose system calls we don't know.

    Raises:
        OSError: privileges could still be gained (see `confine.never_gain_privileges`).
    """
    known = _SETSID.get(platform.machine())
    if known is None:
        return
    architecture, number = known
    instructions = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, 3, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _SUCCEED),
        (_RETURN, 0, 0, _ALLOW),
    )
    program = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    content = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a length and a pointer, aligned as the machine has it.
    fprog = struct.pack("@HP", len(instructions), ctypes.addressof(content))
    if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, fprog, 0, 0) != 0:
        number = ctypes.get_errno() or errno.EINVAL
        raise OSError(number, f"seccomp: {os.strerror(number)}")
