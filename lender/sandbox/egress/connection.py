"""One connection of a sandbox's to its proxy: asked, judged, dialled, passed on, ended."""

import errno
import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from lender.sandbox.egress.addresses import Address
from lender.sandbox.egress.counters import Counters
from lender.sandbox.egress.pipe import PIECE_BYTES, Pipe
from lender.sandbox.egress.policy import Policy, RefusedError
from lender.sandbox.egress.requests import (
    HEAD_BYTES_MAX,
    HEAD_END,
    BadRequestError,
    Request,
    parse,
)

HEAD_S: Final = 10.0
"""To say what is wanted."""
DIAL_S: Final = 10.0
"""For one address to answer."""
LOOK_UP_S: Final = 30.0
IDLE_S: Final = 300.0
"""Without a byte in either direction."""
LAST_WORD_S: Final = 2.0
"""For a client to read why it is refused."""
LEAVE_S: Final = 10.0
"""For a server to acknowledge the last of what it was sent."""

# What the kernel goes on with while this process stands still, or is gone, is bounded: what it
# takes in for us (doubled: socket(7)), what it has not sent yet, and nothing at all once the
# process is dead, because closing such a socket drops what is in it and tells the server so.
_RECEIVE_BYTES = 128 << 10
_UNSENT_BYTES = 16 << 10
_TCP_NOTSENT_LOWAT = 25  # tcp.h
_DROP, _KEEP = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)  # struct linger, socket(7)

_UNREAD_BYTES_MAX = 1 << 20
_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    504: "Gateway Timeout",
}
_IN_PROGRESS = frozenset({0, errno.EINPROGRESS})


class Watched(NamedTuple):
    """A socket, and what of it is waited for."""

    sock: socket.socket
    reads: bool
    writes: bool


class Connection:
    """The connection of one client.

    Args:
        client: its socket, non-blocking.
        policy: judges it.
        counters: told what it moves.
        look_up: has the addresses of a host found, and `found` or `not_found` called.
        now: seconds of a monotonic clock.

    Attributes:
        over: nothing is left of it.
        refused: it asked for what is not for it.
        deadline: when it has waited for too long.
    """

    def __init__(
        self,
        client: socket.socket,
        policy: Policy,
        counters: Counters,
        look_up: Callable[["Connection", str], None],
        now: float,
    ) -> None:
        self._client = client
        self._policy = policy
        self._counters = counters
        self._look_up = look_up
        self._server: socket.socket | None = None
        self._head = bytearray()
        self._request: Request | None = None
        self._left: list[Address] = []
        self._pipes: tuple[Pipe, Pipe] | None = None
        self._last_word: memoryview | None = None
        self._unread_bytes = _UNREAD_BYTES_MAX
        self._leave_by: float | None = None
        self.over = self.refused = False
        self.deadline = now + HEAD_S

    @property
    def _waits_for_addresses(self) -> bool:
        return not (self._request is None or self._server or self._last_word or self.over)

    def watched(self) -> Sequence[Watched]:
        """What is waited for now."""
        if self._leave_by is not None:
            return ()
        if self._pipes is not None and self._server is not None:
            out, back = self._pipes
            return (
                Watched(self._client, out.wants_to_read, back.wants_to_write),
                Watched(self._server, back.wants_to_read, out.wants_to_write),
            )
        if self._server is not None:
            return (Watched(self._server, reads=False, writes=True),)
        if self._last_word is not None:
            return (Watched(self._client, reads=True, writes=bool(self._last_word)),)
        if self._request is None:
            return (Watched(self._client, reads=True, writes=False),)
        return ()

    def go_on(self, sock: socket.socket, now: float, *, reads: bool, writes: bool) -> None:
        """Take up that something of a socket can be read or written."""
        try:
            if self._pipes is not None:
                self._pass_on(sock, now, reads=reads, writes=writes)
            elif sock is self._server:
                self._dialled(now)
            elif self._last_word is not None:
                self._say_last_word()
            else:
                self._hear(now)
        except OSError:
            self.close()

    def late(self, now: float) -> None:
        """Take up that the deadline has come."""
        if self._server is not None and self._pipes is None:
            self._try_next(now)
        elif self._waits_for_addresses:
            self._answer(504, "the name was not found in time", now)
        elif self._request is None and self._last_word is None:
            self._answer(408, "nothing was asked", now)
        elif self._leave_by is not None and now < self._leave_by:
            self._leave(now)
        else:
            self.close()

    def found(self, addresses: list[Address], now: float) -> None:
        """Dial these, one after another: exactly what was judged."""
        if self._waits_for_addresses:
            self._left = addresses
            self._try_next(now)

    def not_found(self, status: int, reason: str, now: float) -> None:
        """Tell the client that there is nobody to dial."""
        if self._waits_for_addresses:
            self._answer(status, reason, now)

    def close(self) -> None:
        """End it; what a server has not acknowledged yet is dropped."""
        self.over = True
        self._client.close()
        if self._server is not None:
            if _unacknowledged_bytes(self._server) == 0:
                self._server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _KEEP)
            self._server.close()

    def _leave(self, now: float) -> None:
        """End it once the server has all; it says so by itself."""
        assert self._server is not None, "it was dialled"
        if _unacknowledged_bytes(self._server) == 0:
            self.close()
            return
        if self._leave_by is None:
            self._leave_by = now + LEAVE_S
        self.deadline = now

    def _hear(self, now: float) -> None:
        try:
            piece = self._client.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        self._head += piece
        end = self._head.find(HEAD_END)
        if end < 0 or end + len(HEAD_END) > HEAD_BYTES_MAX:
            if len(self._head) > HEAD_BYTES_MAX:
                self._answer(431, f"more than {HEAD_BYTES_MAX} bytes of head", now)
            elif not piece:
                self.close()
            return
        head = bytes(self._head[: end + len(HEAD_END)])
        del self._head[: end + len(HEAD_END)]
        try:
            request = parse(head)
            self._policy.check(request.host, request.port)
        except BadRequestError as error:
            self._answer(error.status, str(error), now)
        except RefusedError as error:
            self._answer(403, str(error), now)
        else:
            self._request = request
            self.deadline = now + LOOK_UP_S
            self._look_up(self, request.host)

    def _try_next(self, now: float) -> None:
        assert self._request is not None, "nobody is dialled unasked"
        if self._server is not None:
            self._server.close()
            self._server = None
        while self._left:
            address = self._left.pop(0)
            family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
            try:
                server = socket.socket(family)
            except OSError:
                continue
            server.setblocking(False)
            _bound(server)
            if server.connect_ex((str(address), self._request.port)) in _IN_PROGRESS:
                self._server, self.deadline = server, now + DIAL_S
                return
            server.close()
        self._answer(502, f"{self._request.host} does not answer", now)

    def _dialled(self, now: float) -> None:
        assert self._server is not None, "it can be written to"
        assert self._request is not None, "it was dialled"
        if self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._try_next(now)
            return
        for sock in (self._client, self._server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = self._request.opening + bytes(self._head)
        self._head.clear()
        self._pipes = (
            Pipe(self._client, self._server, opening, self._counters, inward=False),
            Pipe(self._server, self._client, self._request.answer, self._counters, inward=True),
        )
        self.deadline = now + IDLE_S

    def _pass_on(self, sock: socket.socket, now: float, *, reads: bool, writes: bool) -> None:
        assert self._pipes is not None, "it is open"
        out, back = self._pipes
        here, there = (out, back) if sock is self._client else (back, out)
        if reads and here.wants_to_read:
            here.read()
        if writes:
            there.write()
        self.deadline = now + IDLE_S
        if out.ended and back.ended:
            self._leave(now)

    def _answer(self, status: int, reason: str, now: float) -> None:
        """Say why not, and that this is all."""
        self.refused = self.refused or status == 403
        body = f"lender: {reason}\n".encode()
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._last_word = memoryview(head.encode() + body)
        self.deadline = now + LAST_WORD_S

    def _say_last_word(self) -> None:
        """Said, it waits for the client to hang up: what is unread would take the answer along."""
        assert self._last_word is not None, "it has one"
        try:
            if self._last_word:
                self._last_word = self._last_word[self._client.send(self._last_word) :]
                if not self._last_word:
                    self._client.shutdown(socket.SHUT_WR)
            piece = self._client.recv(PIECE_BYTES)
            self._unread_bytes -= len(piece)
            if not piece or self._unread_bytes < 0:
                self.close()
        except BlockingIOError:
            return


def _bound(server: socket.socket) -> None:
    """Before it is dialled: see above."""
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    server.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP)


def _unacknowledged_bytes(server: socket.socket) -> int:
    """What it was sent and may lack yet (tcp(7), SIOCOUTQ); that nothing more comes is no byte."""
    (count,) = struct.unpack("i", fcntl.ioctl(server, termios.TIOCOUTQ, bytes(4)))
    return max(0, int(count) - 1)
