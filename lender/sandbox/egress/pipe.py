"""Bytes from one socket to another, one direction of a connection: bounded, never blocking."""

import socket
from typing import Final

from lender.sandbox.egress.counters import Counters

PIECE_BYTES: Final = 64 << 10


class Pipe:
    """What is read from `source` and not yet taken by `sink`.

    What is to go over the line and may not any more stays where it is until more is allowed.

    Args:
        source: where it comes from.
        sink: where it goes.
        first: what the sink is to have before that.
        counters: told what goes over the line, and asked how much more may.
        inward: it comes from the line; otherwise it goes there.

    Attributes:
        ended: the source has no more, and the sink was told so.
    """

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        first: bytes,
        counters: Counters,
        *,
        inward: bool,
    ) -> None:
        self._source = source
        self._sink = sink
        self._held = memoryview(first)
        self._at_end = False
        self._counters = counters
        self._inward = inward
        self.ended = False

    @property
    def wants_to_read(self) -> bool:
        """Whether there is room for what the source has."""
        has_room = not self._held and not self._at_end
        return has_room and (not self._inward or self._counters.left() > 0)

    @property
    def wants_to_write(self) -> bool:
        """Whether there is something for the sink."""
        return bool(self._held) and (self._inward or self._counters.left() > 0)

    def read(self) -> None:
        """Take what the source has, and pass on at once what the sink takes.

        Raises:
            OSError: one of both is broken.
        """
        room_bytes = min(PIECE_BYTES, self._counters.left()) if self._inward else PIECE_BYTES
        if not room_bytes:
            return
        try:
            piece = self._source.recv(room_bytes)
        except BlockingIOError:
            return
        if self._inward:
            self._counters.add(in_bytes=len(piece))
        self._held = memoryview(piece)
        self._at_end = not piece
        self.write()

    def write(self) -> None:
        """Give the sink what it takes; its end, once that is all.

        Raises:
            OSError: the sink is broken.
        """
        try:
            if self.wants_to_write:
                most_bytes = len(self._held) if self._inward else self._counters.left()
                sent = self._sink.send(self._held[:most_bytes])
                self._held = self._held[sent:]
                if not self._inward:
                    self._counters.add(out_bytes=sent)
        except BlockingIOError:
            return
        if self._at_end and not self._held and not self.ended:
            self.ended = True
            self._sink.shutdown(socket.SHUT_WR)
