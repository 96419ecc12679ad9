"""Take a task's output from its pipes: bounded, whatever the task writes."""

import contextlib
import os
from collections.abc import Callable, Iterator

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

    def take(self) -> tuple[bytes, bytes]:
        """Value and end of standard error of one task, to begin anew for the next."""
        taken = self.value, self.stderr_tail
        self._value.clear()
        self._stderr.clear()
        self.over = False
        return taken

    def take_stdout(self, fd: int, *, is_still: bool = False) -> bool:
        """Read what a non-blocking pipe holds; False at its end.

        Args:
            fd: the pipe.
            is_still: nobody writes to it meanwhile, so that a short piece is the last.
        """
        for piece in _pieces(fd, is_still=is_still):
            if not piece:
                return False
            room = self._output_bytes_max - len(self._value)
            self.over = self.over or len(piece) > room
            self._value += piece[:room]
        return True

    def take_stderr(self, fd: int, *, is_still: bool = False) -> bool:
        """See `take_stdout`."""
        for piece in _pieces(fd, is_still=is_still):
            if not piece:
                return False
            self._on_stderr(piece)
            self._stderr += piece
            del self._stderr[:-STDERR_TAIL_BYTES]
        return True


def _pieces(fd: int, *, is_still: bool) -> Iterator[bytes]:
    """What a pipe holds; b"" at its end."""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(fd, _CHUNK_BYTES):
            yield piece
            if is_still and len(piece) < _CHUNK_BYTES:
                return
        yield piece
