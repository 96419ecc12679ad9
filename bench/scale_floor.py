"""The floor of a job that comes alone: raw JetStream, one message to one of many that wait.

Each lender has a connection of its own, as scale_lender.py's have, and on it one pull that waits at
the queue that all share. What comes is acknowledged, and nothing else is done.
"""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Self

import psutil

from lender.link.api import JetStream
from lender.link.connection import Connection, connect
from lender.link.embedded import EmbeddedServer
from lender.link.publisher import Publisher
from lender.link.puller import Delivery, Puller

PAYLOAD = b"x" * 256
_QUEUE = "FLOOR"
_STREAM = {"name": _QUEUE, "subjects": ["floor.*"], "retention": "workqueue", "storage": "file"}
_CONSUMER = {"durable_name": _QUEUE, "ack_policy": "explicit", "max_waiting": 8192}
_BATCH, _EXPIRES_S = 2, 30.0
_AT_A_TIME = 50


class Floor:
    """A server with so many that pull; `async with Floor(...) as floor`."""

    def __init__(self, folder: Path, pullers: int) -> None:
        self._server = EmbeddedServer(folder, sync_interval="2m")
        self._count = pullers
        self._connections: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._taken = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._server.start()
        self._connection = await connect(self._server.url, name="floor", timeout_s=30)
        jetstream = JetStream(self._connection)
        await jetstream.ensure_stream(dict(_STREAM))
        await jetstream.ensure_consumer(_QUEUE, dict(_CONSUMER))
        for some in range(0, self._count, _AT_A_TIME):
            joining = range(some, min(self._count, some + _AT_A_TIME))
            await asyncio.gather(*(self._join() for _ in joining))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in (self._connection, *self._connections)))
        self._server.kill()

    async def one_by_one(self, count: int) -> float:
        """Have so many taken, each after the last; returns the server's processor seconds."""
        assert self._server.pid is not None
        server = psutil.Process(self._server.pid)
        publisher, before = Publisher(self._connection), sum(server.cpu_times()[:2])
        for number in range(count):
            self._taken.clear()
            await (await publisher.publish(f"floor.{number}", PAYLOAD))
            await self._taken.wait()
        publisher.close()
        return sum(server.cpu_times()[:2]) - before

    async def _join(self) -> None:
        connection = await connect(self._server.url, name="floor", timeout_s=60)
        self._connections.append(connection)
        over = asyncio.Event()

        async def ack(delivery: Delivery) -> None:
            await delivery.ack()
            self._taken.set()

        async def pull() -> None:
            while True:
                over.clear()
                await puller.pull(_BATCH, _EXPIRES_S)
                await over.wait()

        puller = Puller(
            connection, _QUEUE, _QUEUE, lambda one: self._spawn(ack(one)), lambda _: over.set()
        )
        self._spawn(pull())

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
