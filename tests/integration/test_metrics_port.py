"""The port of the metrics under attack: it answers who asks properly, and its loop goes on."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from lender.service import metrics_http
from lender.service.metrics_http import Address, MetricsServer

BOUND_S = 20.0
GOOD = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Port:
    """A server that counts how often its page is made."""

    def __init__(self) -> None:
        self.made = 0
        self.ready = False
        self.server = MetricsServer(Address("127.0.0.1", 0), self._page, lambda: self.ready)
        self.listener = self.server.listen()
        self.port: int = self.listener.getsockname()[1]

    async def _page(self) -> str:
        self.made += 1
        return "# EOF\n"

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, request: bytes = GOOD) -> bytes:
        reader, writer = await self.open()
        try:
            writer.write(request)
            async with asyncio.timeout(BOUND_S):
                return await reader.read()
        finally:
            writer.close()


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    one = Port()
    running = asyncio.create_task(one.server.run(one.listener))
    yield one
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_requests_are_answered_by_what_they_are(port: Port) -> None:
    answer = await port.ask()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n# EOF\n")
    assert b"openmetrics-text; version=1.0.0" in answer
    head = await port.ask(GOOD.replace(b"GET", b"HEAD"))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.endswith(b"\r\n\r\n")
    assert b"405 " in (await port.ask(GOOD.replace(b"GET", b"POST")))[:16]
    assert b"421 " in (await port.ask(GOOD.replace(b"127.0.0.1", b"evil.example")))[:16]
    too_long = GOOD[:-2] + b"X: " + b"x" * metrics_http.HEAD_BYTES_MAX
    assert b"431 " in (await port.ask(too_long))[:16]


async def test_who_asks_whether_it_is_ready_is_told_as_it_is_now(port: Port) -> None:
    asked = GOOD.replace(b"/metrics", b"/ready")
    assert (await port.ask(asked)).startswith(b"HTTP/1.1 503 ")
    port.ready = True
    assert (await port.ask(asked)).startswith(b"HTTP/1.1 200 ")
    assert not port.made


async def test_clients_that_dawdle_hold_up_nobody_for_long(port: Port) -> None:
    """More than there is room for say half a request, or read no answer."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(3 * metrics_http.CONNECTIONS_MAX):
            slow = stack.enter_context(socket.socket())
            slow.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                slow.connect(("127.0.0.1", port.port))
            await asyncio.sleep(0)
            with contextlib.suppress(OSError):
                slow.send(GOOD[: -1 - number % 2])
        assert (await port.ask()).startswith(b"HTTP/1.1 200 ")


async def test_a_flood_takes_little_of_the_loop(port: Port) -> None:
    """However many come, few are answered in a second, and the page is made once in it."""
    began = asyncio.get_running_loop().time()

    async def flood() -> int:
        answered = 0
        while asyncio.get_running_loop().time() < began + 1.0:
            with contextlib.suppress(OSError):
                answered += (await port.ask()).startswith(b"HTTP/1.1 200 ")
        return answered

    answered = sum(await asyncio.gather(*(flood() for _ in range(16))))
    took_s = asyncio.get_running_loop().time() - began
    assert 0 < answered <= took_s / metrics_http.PAUSE_S + 1
    assert port.made <= took_s / metrics_http.PAGE_S + 1


async def test_an_address_that_is_taken_is_told(port: Port) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsServer(Address("127.0.0.1", port.port), port._page).listen()
