"""Take a task's output from its pipes: bounded, whatever the task writes."""

import os
from collections.abc import Callable

from lender.sandbox.plan import STDERR_TAIL_BYTES

_CHUNK_BYTES = 1 << 16


class Capture:
    """What a task wrote: the value up to its limit, the tail of standard error.

    Args:
        output_bytes_max: of the value.
        on_stderr: told what comes on standard error, all of it.

    Attributes:
        over: the task wrote more to standard output than it may.
    """

    def __init__(
        self, output_bytes_max: int, on_stderr: Callable[[bytes], None] = lambda _piece: None
    ) -> None:
        self._output_bytes_max = output_bytes_max
        self._on_stderr = on_stderr
        self._value = bytearray()
        self._stderr = bytearray()
        self.over = False

    @property
    def value(self) -> bytes:
        """Standard output, cut at the limit."""
        return bytes(self._value)

    @property
    def stderr_tail(self) -> bytes:
        """The last 8 KiB of standard error."""
        return bytes(self._stderr)

    def take_stdout(self, fd: int) -> bool:
        """Read what a non-blocking pipe holds; False at its end."""
        while (piece := _read(fd)) is not None:
            if not piece:
                return False
            room = self._output_bytes_max - len(self._value)
            self.over = self.over or len(piece) > room
            self._value += piece[:room]
        return True

    def take_stderr(self, fd: int) -> bool:
        """Read what a non-blocking pipe holds; False at its end."""
        while (piece := _read(fd)) is not None:
            if not piece:
                return False
            self._on_stderr(piece)
            self._stderr += piece
            del self._stderr[:-STDERR_TAIL_BYTES]
        return True


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return None
