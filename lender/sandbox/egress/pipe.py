"""Bytes from one socket to another, one direction of a connection: bounded, never blocking."""

import socket
from typing import Final

PIECE_BYTES: Final = 64 << 10


class Pipe:
    """What is read from `source` and not yet taken by `sink`.

    Attributes:
        moved_bytes: taken by `sink` so far.
        ended: the source has no more, and the sink was told so.
    """

    def __init__(self, source: socket.socket, sink: socket.socket, first: bytes) -> None:
        self._source = source
        self._sink = sink
        self._held = memoryview(first)
        self._at_end = False
        self.moved_bytes = 0
        self.ended = False

    @property
    def wants_to_read(self) -> bool:
        """Whether there is room for what the source has."""
        return not self._held and not self._at_end

    @property
    def wants_to_write(self) -> bool:
        """Whether there is something for the sink."""
        return bool(self._held)

    def read(self) -> None:
        """Take what the source has, and pass on at once what the sink takes.

        Raises:
            OSError: one of both is broken.
        """
        try:
            piece = self._source.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        self._held = memoryview(piece)
        self._at_end = not piece
        self.write()

    def write(self) -> None:
        """Give the sink what it takes; its end, once that is all.

        Raises:
            OSError: the sink is broken.
        """
        try:
            if self._held:
                sent = self._sink.send(self._held)
                self._held = self._held[sent:]
                self.moved_bytes += sent
        except BlockingIOError:
            return
        if self._at_end and not self._held and not self.ended:
            self.ended = True
            self._sink.shutdown(socket.SHUT_WR)
