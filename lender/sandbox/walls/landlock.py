"""Landlock (landlock(7)): a process gives up rights for itself and all that it ever starts.

Around what starts a sandbox in namespaces (`scoped`): no signal and no abstract unix socket leads
out of the domain (ABI 6, Linux 6.12). As it handles no file access it leaves mount(2) alone, so
what makes a sandbox works in it (security/landlock/fs.c, hook_sb_mount). Nobody outside is bound by
it: our own freeze and kill reach in. Where `enter` holds, its domain does the same and keeps the
files too, and this one is left out: every domain around one that handles files forbids to move a
file into another folder unless it allows for it itself, and to do so it would have to handle files.

Around a process that runs a stranger's work itself, in no namespace (`keep_to`, for wasm): the
same, its files (ABI 2, Linux 5.19), and TCP (ABI 4, Linux 6.7).

Elsewhere TCP is left to the network namespace. Landlock knows ports but no addresses: to refuse all
of them would take the loopback from the processes of a task among themselves, and an attempt that
is refused before it reaches the network is not counted any more.
"""

import ctypes
import errno
import functools
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

FILES_SINCE_ABI: Final = 2
"""The first version has every rename into another folder fail."""
SCOPES_SINCE_ABI: Final = 6

# The same on every processor (include/uapi/asm-generic/unistd.h) but in other tables than these.
_MACHINES = frozenset({"x86_64", "aarch64"})
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_VERSION, _PATH_BENEATH = 1, 1
# include/uapi/linux/landlock.h
_SCOPES = 1 << 0 | 1 << 1  # abstract unix sockets, signals
_TCP, _TCP_SINCE_ABI = 1 << 0 | 1 << 1, 4  # bind, connect
_ALL_OF_ABI_2 = (1 << 14) - 1
_TRUNCATE, _TRUNCATE_SINCE_ABI = 1 << 14, 3
_IOCTL_DEV, _IOCTL_DEV_SINCE_ABI = 1 << 15, 5
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE = 1 << 4 | 1 << 5
_MAKE = 1 << 7 | 1 << 8 | 1 << 12  # folders, files, links
_REFER = 1 << 13
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _REMOVE | _MAKE | _REFER
# What makes sense for something that is not a folder.
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE

_libc = ctypes.CDLL(None, use_errno=True)


@functools.cache
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
    return _ruleset(0, 0, _SCOPES) if abi() >= SCOPES_SINCE_ABI else None


def restrict(ruleset: int) -> None:
    """Enter the ruleset's domain, for good.

    Raises:
        OSError: privileges could still be gained (see `confine.never_gain_privileges`), or there
            are 16 domains around us already.
    """
    _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")


def keep_to(read: Iterable[Path], write: Iterable[Path], *, tcp: bool = False) -> None:
    """Give up all files but these, TCP, and to reach others by signals and abstract sockets.

    For the calling thread and those that it starts from then on. What is open stays open, and
    nothing can be executed. Called again it takes more away and gives nothing back. Without effect
    before `FILES_SINCE_ABI`; what a version doesn't know yet is left out.

    Args:
        read: files, and folders with all below them; one that is not there is left out.
        write: folders in which files, folders and links may be made, moved and removed, too.
        tcp: keep that.

    Raises:
        OSError: see `restrict`; or the kernel doesn't keep to it.
    """
    version = abi()
    if version < FILES_SINCE_ABI:
        return
    files = _ALL_OF_ABI_2
    files |= _TRUNCATE if version >= _TRUNCATE_SINCE_ABI else 0
    files |= _IOCTL_DEV if version >= _IOCTL_DEV_SINCE_ABI else 0
    refused = _TCP if version >= _TCP_SINCE_ABI and not tcp else 0
    ruleset = _ruleset(files, refused, _SCOPES if version >= SCOPES_SINCE_ABI else 0)
    try:
        for paths, rights in ((read, _READ), (write, _WRITE)):
            for path in paths:
                _allow(ruleset, path, rights & files)
        restrict(ruleset)
    finally:
        os.close(ruleset)
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except PermissionError:
        return
    raise OSError(errno.ENOTRECOVERABLE, "Landlock's rules don't hold")


def _ruleset(files: int, tcp: int, scopes: int) -> int:
    # struct landlock_ruleset_attr. Older kernels take what they don't know as long as it is 0.
    attributes = struct.pack("=QQQ", files, tcp, scopes)
    size = ctypes.c_size_t(len(attributes))
    return _checked(_libc.syscall(_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")


def _allow(ruleset: int, path: Path, rights: int) -> None:
    if sys.platform != "linux":
        raise NotImplementedError("Linux only")
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # whoever needs it will find the same
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, place)  # struct landlock_path_beneath_attr
        result = _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        _checked(result, f"landlock_add_rule {path}")
    finally:
        os.close(place)


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
