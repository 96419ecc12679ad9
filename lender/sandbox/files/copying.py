"""Bytes from a stream into an open file: all of them, or it says so."""

import os
from typing import Final, Protocol

PIECE_BYTES_MAX: Final = 1 << 17


class Readable(Protocol):
    """A source of bytes."""

    def read(self, size: int, /) -> bytes:
        """Some bytes, at most so many; none at the end."""
        ...


def copy(source: Readable, file: int, size_bytes: int) -> bool:
    """Copy exactly so many bytes; False where the source ends before.

    Raises:
        OSError: they can't be read, or not be written.
    """
    while size_bytes:
        piece = source.read(min(size_bytes, PIECE_BYTES_MAX))
        if not piece:
            return False
        size_bytes -= len(piece)
        write(file, piece)
    return True


def write(file: int, data: bytes) -> None:
    """Put all bytes into a file, however few the kernel takes at a time.

    Raises:
        OSError: it can't be written.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
