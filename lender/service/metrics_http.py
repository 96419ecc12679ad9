"""Serves a page of metrics over HTTP, at no more than a bounded cost to the loop that it runs on.

What listens here may be reached by every program of the machine, and by every page that its
browser shows. So: one small request a connection, few connections at a time and a second, short
waits, and a `Host` that no web page can bring about (a name that is pointed at this machine after
the page was loaded: DNS rebinding).
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import NamedTuple

from lender.service.metrics import CONTENT_TYPE

logger = logging.getLogger(__name__)

HEAD_BYTES_MAX = 8192
CONNECTIONS_MAX = 8
"""At a time; others wait to be accepted, in a queue of the kernel's that is as long."""
PAUSE_S = 0.02
"""Between two connections: 50 a second, however many come."""
WITHIN_S = 2.0
"""For all of a connection."""
PAGE_S = 1.0
"""A page is made anew after as long."""
PATH = "/metrics"
READY_PATH = "/ready"


class Address(NamedTuple):
    """Where metrics are served: from a setting such as `127.0.0.1:9464`."""

    host: str
    port: int

    @classmethod
    def of(cls, setting: str) -> "Address":
        """Read a setting that was checked (`ListenAddress`)."""
        host, _, port = setting.rpartition(":")
        return cls(host, int(port))


class MetricsServer:
    """Answers `GET /metrics`, `GET /ready` where there is such a thing, and nothing else."""

    def __init__(
        self,
        address: Address,
        page: Callable[[], Awaitable[str]],
        is_ready: Callable[[], bool] | None = None,
    ) -> None:
        """Prepare.

        Args:
            address: to listen at.
            page: makes the page; called at most once in `PAGE_S`, never twice at a time.
            is_ready: tells whether the program can do its work. None: nobody is told.
        """
        self._address = address
        self._page = page
        self._is_ready = is_ready
        self._paths = (PATH,) if is_ready is None else (PATH, READY_PATH)
        self._made: tuple[float, bytes] | None = None
        self._making = asyncio.Lock()
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)
        self._answering: set[asyncio.Task[None]] = set()

    def listen(self) -> socket.socket:
        """Take the address.

        Raises:
            OSError: it is taken, or not one of this machine.
        """
        family = socket.AF_INET6 if ":" in self._address.host else socket.AF_INET
        listener = socket.create_server(self._address, family=family, backlog=CONNECTIONS_MAX)
        listener.setblocking(False)
        logger.info("metrics: http://%s:%d%s", *listener.getsockname()[:2], PATH)
        return listener

    async def run(self, listener: socket.socket) -> None:
        """Serve for ever; closes the listener in the end."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._room.acquire()
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:  # too many open files; who connected is gone
                    logger.info("metrics: %s", error)
                    self._room.release()
                else:
                    task = asyncio.create_task(self._answer(connection))
                    self._answering.add(task)
                    task.add_done_callback(self._end)
                await asyncio.sleep(PAUSE_S)
        finally:
            listener.close()
            for task in list(self._answering):
                task.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("metrics: no page: %s", error)

    async def _answer(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                head = await _read_head(connection)
                status = judge(head, self._address.host, self._paths)
                body = b""
                if status is HTTPStatus.OK:
                    status, body = await self._told(head)
                answer = _answer_head(status, len(body))
                if not head.startswith(b"HEAD "):
                    answer += body
                await loop.sock_sendall(connection, answer)
                connection.shutdown(socket.SHUT_WR)
                while await loop.sock_recv(connection, HEAD_BYTES_MAX):
                    pass  # closed with something unread, our answer would be lost with it

    async def _told(self, head: bytes) -> tuple[HTTPStatus, bytes]:
        if self._is_ready is None or _target(head.decode("latin-1")) == PATH:
            return HTTPStatus.OK, await self._body()
        return (HTTPStatus.OK if self._is_ready() else HTTPStatus.SERVICE_UNAVAILABLE), b""

    async def _body(self) -> bytes:
        async with self._making:
            now = asyncio.get_running_loop().time()
            if self._made is None or now >= self._made[0] + PAGE_S:
                self._made = now, (await self._page()).encode()
            return self._made[1]


def judge(head: bytes, own_name: str, paths: Collection[str] = (PATH,)) -> HTTPStatus:
    """Return what a request is answered with.

    Args:
        head: the request to the end of its headers; without that end, it was too long or cut off.
        own_name: a name that we may be called by, beside all addresses and `localhost`.
        paths: what may be asked for.
    """
    if b"\r\n\r\n" not in head:
        too_long = len(head) >= HEAD_BYTES_MAX
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if too_long else HTTPStatus.BAD_REQUEST
    first, *fields = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return HTTPStatus.BAD_REQUEST
    method = words[0]
    hosts = [one.partition(":")[2].strip() for one in fields if one.lower().startswith("host:")]
    if len(hosts) != 1:
        return HTTPStatus.BAD_REQUEST
    if not _is_ours(hosts[0], own_name):
        return HTTPStatus.MISDIRECTED_REQUEST
    if _target(first) not in paths:
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.OK if method in ("GET", "HEAD") else HTTPStatus.METHOD_NOT_ALLOWED


def _target(head: str) -> str:
    """Return what a request of three words in its first line asks for."""
    return head.split(" ", 2)[1].partition("?")[0]


async def _read_head(connection: socket.socket) -> bytes:
    loop, head = asyncio.get_running_loop(), b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX:
        more = await loop.sock_recv(connection, HEAD_BYTES_MAX - len(head))
        if not more:
            break
        head += more
    return head


def _is_ours(host: str, own_name: str) -> bool:
    """Tell whether a `Host` is an address, or a name that nobody else can point at us."""
    bracketed = host.startswith("[")
    name = host[1:].partition("]")[0] if bracketed else host.partition(":")[0]
    if name.lower() in ("localhost", own_name.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _answer_head(status: HTTPStatus, length: int) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {length}",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join((*lines, "", "")).encode()
