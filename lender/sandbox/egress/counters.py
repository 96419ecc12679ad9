"""What a sandbox's proxies have moved and refused, and how much more they may move: in a file.

By it lenderd and the proxies tell each other, with nobody in between, and it outlives both. It is
read and written by plain calls: a mapped page that a full disk can't take back would be the end of
who touches it (mmap(2), SIGBUS), where a call fails with a reason.
"""

import os
import struct
import sys
from pathlib import Path
from typing import Final, NamedTuple

UNBOUNDED: Final = (1 << 63) - 1
"""May be moved where there is no bound."""

_MOVED = struct.Struct("=QQQ")
_ALLOWED = struct.Struct("=Q")
_ALL = struct.Struct("=QQQQ")
_BELIEVED_MAX: Final = 1 << 60
"""More than any line moves: a proxy that its guest has taken over says what it likes."""


class Moved(NamedTuple):
    """What went through proxies so far.

    Attributes:
        in_bytes: from servers.
        out_bytes: to servers.
        refused: what was asked for and is not for the sandbox.
    """

    in_bytes: int = 0
    out_bytes: int = 0
    refused: int = 0


class Counters:
    """The counts of one sandbox; of its proxies there is one at a time.

    Args:
        handle: of the file, which is closed with this.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @classmethod
    def make(cls, path: Path) -> "Counters":
        """Make the file: nothing was moved, and nothing may be before `allow` says so.

        Raises:
            OSError: it can't be made.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        made = cls(os.open(path, flags, 0o600))
        made._count(Moved())
        made.allow(0)
        return made

    @classmethod
    def at(cls, path: Path | None) -> "Counters":
        """Open the file; without one, count where nobody else looks, and without a bound.

        Raises:
            OSError: it can't be opened.
        """
        if path is not None:
            return cls(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))
        if sys.platform != "linux":
            raise NotImplementedError("Linux only")
        made = cls(os.memfd_create("counters", os.MFD_CLOEXEC))
        made.allow(UNBOUNDED)
        return made

    def fileno(self) -> int:
        """Its descriptor, for who keeps no others."""
        return self._handle

    def add(self, *, in_bytes: int = 0, out_bytes: int = 0, refused: int = 0) -> None:
        """Count more.

        Raises:
            OSError: it can't be counted.
        """
        if in_bytes or out_bytes or refused:
            now = self.read()
            more = (now.in_bytes + in_bytes, now.out_bytes + out_bytes, now.refused + refused)
            self._count(Moved(*more))

    def read(self) -> Moved:
        """What was counted so far."""
        said = os.pread(self._handle, _MOVED.size, 0)
        numbers = _MOVED.unpack(said) if len(said) == _MOVED.size else ()
        return Moved(*(min(one, _BELIEVED_MAX) for one in numbers))

    def allow(self, moved_bytes: int) -> None:
        """Say how much may be moved in all, from the beginning on, both ways together.

        Raises:
            OSError: it can't be said: what was allowed before holds.
        """
        os.pwrite(self._handle, _ALLOWED.pack(moved_bytes), _MOVED.size)

    def left(self) -> int:
        """How much more may be moved now, 0 or more."""
        said = os.pread(self._handle, _ALL.size, 0)
        if len(said) < _ALL.size:
            return 0
        in_bytes, out_bytes, _, allowed = _ALL.unpack(said)
        left: int = allowed - in_bytes - out_bytes
        return max(0, left)

    def close(self) -> None:
        """Let go of the file, which stays."""
        os.close(self._handle)

    def _count(self, moved: Moved) -> None:
        os.pwrite(self._handle, _MOVED.pack(*moved), 0)
