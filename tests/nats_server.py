"""Fixtures: a real nats-server per test, and a connection to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lender.link.connection import Connection, connect
from lender.link.embedded import EmbeddedServer


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A fresh server with an empty store on a free port.

    `nats.url` to connect; `nats.kill()` and `await nats.start()` to crash it and bring it back
    on the same store and port.
    """
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def connection(nats: EmbeddedServer) -> AsyncIterator[Connection]:
    """A connection to `nats` without credentials."""
    opened = await connect(nats.url, name="test", timeout_s=10)
    yield opened
    await opened.close()


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait for a condition that no event announces; TimeoutError when it does not come true."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.002)
