"""Take a task's declared outputs out of its scratch folder without being led astray.

Only while no process of the sandbox runs: after its death, or between two tasks. Each part of a
name is opened below the one before and never through a link (the portable form of openat2(2) with
RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS); what is no plain file of its own is refused.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK the open of a FIFO would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class OutputRefusedError(Exception):
    """An output is missing, or is not what may leave the sandbox.

    Attributes:
        name: as declared.
        missing: there is nothing of this name.
    """

    def __init__(self, name: str, reason: str, *, missing: bool = False) -> None:
        super().__init__(f"output {name}: {reason}")
        self.name = name
        self.missing = missing


class Collected(NamedTuple):
    """An output ready to be read.

    Attributes:
        name: as declared.
        fd: open for reading; the caller's to close.
        size_bytes: read no more than this.
    """

    name: str
    fd: int
    size_bytes: int


def collect(scratch: Path, names: Iterable[str], max_bytes: int) -> list[Collected]:
    """Open the declared outputs; all of them or none.

    Args:
        scratch: the sandbox's working folder.
        names: relative to it.
        max_bytes: of all outputs together.

    Raises:
        OutputRefusedError: one is missing, a link, a folder or a device, or too much.
    """
    collected: list[Collected] = []
    left_bytes, device = max_bytes, scratch.stat().st_dev
    try:
        for name in names:
            fd = _open_below(scratch, name)
            found = os.fstat(fd)
            collected.append(Collected(name, fd, found.st_size))
            _check(name, found, device, left_bytes)
            left_bytes -= found.st_size
    except OutputRefusedError:
        for one in collected:
            os.close(one.fd)
        raise
    return collected


def _check(name: str, found: os.stat_result, device: int, left_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OutputRefusedError(name, "no regular file")
    if found.st_nlink != 1:
        raise OutputRefusedError(name, "has a second name elsewhere")
    if found.st_dev != device:
        raise OutputRefusedError(name, "lies on another file system")
    if found.st_size > left_bytes:
        raise OutputRefusedError(name, "too large, all outputs together")


def _open_below(scratch: Path, name: str) -> int:
    path = PurePosixPath(name)
    if "\0" in name or path.is_absolute() or ".." in path.parts or not path.parts:
        raise OutputRefusedError(name, "leads out of the working folder")
    folder = os.open(scratch, _FOLDER)
    try:
        for part in path.parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(path.parts[-1], _FILE, dir_fd=folder)
    except FileNotFoundError as error:
        raise OutputRefusedError(name, "was not written", missing=True) from error
    except OSError as error:
        raise OutputRefusedError(name, f"can't be opened ({error.strerror})") from error
    except UnicodeEncodeError as error:
        raise OutputRefusedError(name, "is no name of a file") from error
    finally:
        os.close(folder)
