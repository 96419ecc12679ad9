"""The walls of the process runtime as bubblewrap's arguments (bwrap(1)). Pure but for looks.

Measured: bwrap is pid 1 of the sandbox and shows its own environment there, so it starts with an
empty one and reads its options from a descriptor; its root and /dev are writable until they are
mounted again, and so is /proc, where a task could raise its session's weight on the processor;
RLIMIT_NPROC is set inside, where it counts the sandbox only. --new-session is left
out on purpose: the launcher's session has no terminal that could be typed into, and a session of
its own would give each sandbox a full share of the processor beside the owner's (sched(7),
autogroup).
"""

import functools
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from lender.sandbox.plan import FILE_MARGIN_BYTES, WORK_FOLDER, Limits

MEMORY_FOLDERS: Final = ("tmp", "dev/shm")
"""Where file systems are that take their space from memory, relative to the root."""

HOST_VIEW: Final = (
    *("--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"),
    *("--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"),
    *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
    *("--ro-bind-try", "/etc/alternatives", "/etc/alternatives"),
)
"""The machine's own programs."""

CERTIFICATES: Final = tuple(
    word
    for place in ("/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted")
    for word in ("--ro-bind-try", place, place)
)
"""Whom this machine takes the word of on who a server is: for who has a network. No keys."""

# What no namespace contains: the names of all keys of the user, the owner's among them.
_HIDDEN = ("/proc/keys", "/proc/key-users")
_PATH = "/usr/bin:/bin"
_SEARCH = f"{_PATH}:/usr/local/bin:/run/current-system/sw/bin"
_TMP_BYTES_MAX = 256 << 20
_SHM_BYTES_MAX = 64 << 20
# An address space is mostly reserved and never touched: the watcher counts what is touched.
_ADDRESS_SPACE_FACTOR = 2
_ADDRESS_SPACE_BYTES_MIN = 256 << 20


def find() -> str | None:
    """Where bubblewrap is installed."""
    return shutil.which("bwrap", path=_SEARCH)


@functools.cache
def _hidden() -> tuple[str, ...]:
    """As far as this kernel has them."""
    return tuple(path for path in _HIDDEN if Path(path).exists())


def options(
    scratch: str,
    env: Mapping[str, str],
    inputs: Mapping[str, str],
    limits: Limits,
    fds: Mapping[str, int],
    more: Iterable[str] = (),
    view: Iterable[str] = HOST_VIEW,
) -> bytes:
    """What bwrap reads from its --args descriptor.

    Args:
        scratch: folder on the host that becomes /work.
        env: the whole environment of the command, less PATH and HOME.
        inputs: name below /work -> file on the host, bound read-only.
        limits: sizes of the memory file systems follow its memory.
        fds: bwrap options that take a descriptor, without their dashes.
        more: options behind the mounts, such as devices below /dev.
        view: options for the root that all others are mounted in.

    Raises:
        ValueError: a zero byte would end one argument and begin another.
    """
    shm_bytes, tmp_bytes = memory_sizes(limits.memory_bytes)
    words = [
        *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
        *("--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--hostname", "lender"),
        *("--clearenv", "--setenv", "PATH", _PATH, "--setenv", "HOME", WORK_FOLDER),
        *view,
        *("--proc", "/proc", "--dev", "/dev"),
        *(word for path in _hidden() for word in ("--ro-bind", os.devnull, path)),
        *("--size", str(shm_bytes), "--tmpfs", "/dev/shm"),  # noqa: S108 - inside
        *("--size", str(tmp_bytes), "--tmpfs", "/tmp"),  # noqa: S108 - inside
        *("--bind", scratch, WORK_FOLDER),
    ]
    for name, path in inputs.items():
        words += ["--ro-bind", path, f"{WORK_FOLDER}/{name}"]
    for name, value in env.items():
        words += ["--setenv", name, value]
    for option, fd in fds.items():
        words += [f"--{option}", str(fd)]
    words += [*more, "--chdir", WORK_FOLDER]
    words += [word for place in ("/proc", "/dev", "/") for word in ("--remount-ro", place)]
    if any("\0" in word for word in words):
        raise ValueError("a zero byte in a name or in the environment")
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def memory_sizes(memory_bytes: int) -> tuple[int, int]:
    """How large /dev/shm and /tmp are for a task that may have so much memory, in bytes."""
    return min(memory_bytes, _SHM_BYTES_MAX), min(memory_bytes, _TMP_BYTES_MAX)


def rootfs_view(root: str) -> list[str]:
    """Options for a tree as the root, which has the folders that others are mounted on."""
    return ["--ro-bind", root, "/"]


def resource_limits(limits: Limits, *, gpus: bool = False) -> dict[str, int]:
    """What setrlimit(2) is to hold a command to, inside, by prlimit(1)'s names.

    Core dumps have their limit from the launcher on, and nobody in there can set it (`seccomp`).

    Args:
        limits: of the task.
        gpus: it computes on GPUs, whose driver reserves more address space than there is memory.
    """
    found = {
        "nproc": limits.processes + 1,  # bwrap's own init counts
        "nofile": 256,
        "fsize": limits.scratch_bytes + FILE_MARGIN_BYTES,
        "memlock": 0,
        "msgqueue": 0,
        "sigpending": 128,
        "rtprio": 0,
        "nice": 0,
    }
    if not gpus:
        found["as"] = limits.memory_bytes * _ADDRESS_SPACE_FACTOR + _ADDRESS_SPACE_BYTES_MIN
    return found
