"""Length-prefixed frames over a Unix stream socket: a header of named values, raw bytes behind it.

Daemon, launcher and sandboxes speak it. A frame may carry descriptors (SCM_RIGHTS, unix(7)); the
kernel keeps them at the frame's first byte, so they are counted in the prefix and taken in order.
"""

import array
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack

_PREFIX = struct.Struct("!IIB")
# More would be mapped and unmapped for each read (M_MMAP_THRESHOLD, mallopt(3)).
_CHUNK_BYTES = 1 << 16
# macOS gives a pair 8 KiB (net.local.stream.sendspace), and calls it ready for much less than what
# is told of a log at once, which is not to block. Linux has room for that (unix_writable).
_ROOM = 1 << 18
_READY_FROM = 3 << 15
HEADER_BYTES_MAX = 4 << 20
# Room is made for as many as a list announces before they come, and so for each list in a list.
_LIST_ENTRIES_MAX = 4096
FDS_MAX = 4


class FrameError(Exception):
    """The other side broke the protocol, or sent more than was agreed."""


class Frame(NamedTuple):
    """One message.

    Attributes:
        header: names and values, in MessagePack between the processes.
        body: raw bytes.
        fds: descriptors, owned by the receiver.
    """

    header: dict[str, Any]
    body: bytes = b""
    fds: tuple[int, ...] = ()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends. One that is ready to be written takes a log's piece whole.

    Raises:
        OSError: no descriptor.
    """
    ends = socket.socketpair()
    if sys.platform == "darwin":
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDLOWAT, _READY_FROM)
    return ends


def encode(frame: Frame) -> bytes:
    """The bytes of a frame; its descriptors travel beside them."""
    header: bytes = msgpack.packb(frame.header)
    return _PREFIX.pack(len(header), len(frame.body), len(frame.fds)) + header + frame.body


class Decoder:
    """Bytes and descriptors in, frames out."""

    def __init__(self, body_bytes_max: int, header_bytes_max: int = HEADER_BYTES_MAX) -> None:
        self._body_bytes_max = body_bytes_max
        self._header_bytes_max = header_bytes_max
        self._buffer = bytearray()
        self._fds: list[int] = []

    def feed(self, data: bytes, fds: Iterable[int] = ()) -> list[Frame]:
        """The frames that are complete now.

        Raises:
            FrameError: a length over its bound, or a header that is none.
        """
        self._buffer += data
        self._fds += fds
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if len(self._buffer) < _PREFIX.size:
            return None
        header_bytes, body_bytes, fd_count = _PREFIX.unpack_from(self._buffer)
        if header_bytes > self._header_bytes_max or body_bytes > self._body_bytes_max:
            raise FrameError(f"frame of {header_bytes} + {body_bytes} bytes")
        end = _PREFIX.size + header_bytes + body_bytes
        if len(self._buffer) < end:
            return None
        raw = bytes(self._buffer[_PREFIX.size : end])
        del self._buffer[:end]
        fds, self._fds = tuple(self._fds[:fd_count]), self._fds[fd_count:]
        try:
            header = msgpack.unpackb(raw[:header_bytes], max_array_len=_LIST_ENTRIES_MAX)
        except ValueError as error:
            raise FrameError("header can't be read") from error
        if not isinstance(header, dict) or len(fds) != fd_count:
            raise FrameError("header has no names, or descriptors are missing")
        return Frame(header, raw[header_bytes:], fds)


def send(sock: socket.socket, frame: Frame) -> None:
    """Send over a blocking socket.

    Raises:
        OSError: the other side is gone.
    """
    data = encode(frame)
    if frame.fds:
        rights = array.array("i", frame.fds)
        sent = sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        data = data[sent:]
    sock.sendall(data)


def read(sock: socket.socket, *, wait: bool = True) -> bytes:
    """What is there; b"" at the end of the stream. Descriptors that come along are dropped.

    For a peer that is not to be trusted: what it sent would otherwise stay open here.

    Raises:
        OSError: the other side is gone.
        BlockingIOError: a non-blocking socket, or one that is not to be waited for, has nothing.
    """
    return sock.recv(_CHUNK_BYTES, 0 if wait else socket.MSG_DONTWAIT)


def receive_one(sock: socket.socket) -> Frame | None:
    """The next frame and nothing behind it, from a peer that is trusted; None at the end.

    Raises:
        OSError: the other side is gone.
    """
    prefix = sock.recv(_PREFIX.size, socket.MSG_WAITALL)
    if len(prefix) < _PREFIX.size:
        return None
    header_bytes, body_bytes, _ = _PREFIX.unpack(prefix)
    rest = sock.recv(header_bytes + body_bytes, socket.MSG_WAITALL)
    decoder = Decoder(body_bytes)
    return next(iter(decoder.feed(prefix + rest)), None)


def receive(sock: socket.socket) -> tuple[bytes, Sequence[int]]:
    """What is there, with its descriptors; b"" at the end of the stream.

    Raises:
        OSError: the other side is gone.
        BlockingIOError: a non-blocking socket has nothing.
    """
    data, fds, _flags, _address = socket.recv_fds(sock, _CHUNK_BYTES, FDS_MAX)
    return data, fds
