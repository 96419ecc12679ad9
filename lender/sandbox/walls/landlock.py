"""Landlock (landlock(7)): a process gives up rights for itself and all that it ever starts.

Here: no signal and no abstract unix socket leads out of the domain (ABI 6, Linux 6.12). As it
handles no file access it leaves mount(2) alone, so what makes a sandbox works in it
(security/landlock/fs.c, hook_sb_mount). Nobody outside is bound by it: our own freeze and kill
reach in. Where `enter` holds, its domain does the same and keeps the files too, and this one is
left out: every domain around one that handles files forbids to move a file into another folder
unless it allows for it itself, and to do so it would have to handle files.

TCP is left to the network namespace. Landlock knows ports but no addresses: to refuse all of them
would take the loopback from the processes of a task among themselves, and an attempt that is
refused before it reaches the network is not counted any more.
"""

import ctypes
import os
import platform
import struct
import sys

# The same on every processor (include/uapi/asm-generic/unistd.h) but in other tables than these.
_MACHINES = frozenset({"x86_64", "aarch64"})
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_GET_VERSION = 1
_SCOPE_ABSTRACT_UNIX_SOCKET, _SCOPE_SIGNAL = 1 << 0, 1 << 1
_SCOPES_SINCE_ABI = 6

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The version of Landlock that the kernel speaks; 0 where it has none, or it is off."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return 0
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _GET_VERSION)))


def scoped() -> int | None:
    """A ruleset that keeps signals and abstract unix sockets inside; None where there is no such.

    Returns a descriptor that an exec closes; one ruleset serves any number of processes.

    Raises:
        OSError: no descriptor.
    """
    if abi() < _SCOPES_SINCE_ABI:
        return None
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped.
    attributes = struct.pack("=QQQ", 0, 0, _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL)
    size = ctypes.c_size_t(len(attributes))
    return _checked(_libc.syscall(_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")


def restrict(ruleset: int) -> None:
    """Enter the ruleset's domain, for good.

    Raises:
        OSError: privileges could still be gained (see `confine.never_gain_privileges`), or there
            are 16 domains around us already.
    """
    _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
