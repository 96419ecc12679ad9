"""The floor of a durable job: raw JetStream by the same client, and nothing else.

The submitter publishes each job to a stream, two workers pull it from a work queue, publish its
result to another stream and ack; the submitter hears the result. Two stores for a job, as ours has,
and no checks, signatures, leases, sandboxes. Each worker is a process of its own:

    python bench/throughput_floor.py URL
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Self

import psutil
import uvloop
from throughput_stand import SYNCS, between

from lender.link.api import JetStream
from lender.link.connection import Connection, connect
from lender.link.deliveries import Deliveries
from lender.link.embedded import EmbeddedServer
from lender.link.publisher import Publisher
from lender.link.puller import Delivery, PullEnded, Puller

WORKERS = 2
PAYLOAD = b"x" * 256
_BATCH = 200
_QUEUE = "FLOOR"
_STREAMS = (
    {"name": "FLOOR", "subjects": ["floor.job.*"], "retention": "workqueue", "storage": "file"},
    {"name": "DONE", "subjects": ["floor.done.*"], "storage": "file"},
)
_CONSUMER = {"durable_name": _QUEUE, "ack_policy": "explicit", "max_ack_pending": 65_536}


class Floor:
    """A server with two workers; `async with Floor(...) as floor`."""

    def __init__(self, folder: Path, sync: str) -> None:
        self.sync = sync
        self._server = EmbeddedServer(folder, sync_interval=SYNCS[sync])
        self._workers: list[asyncio.subprocess.Process] = []
        self._number = 0

    async def __aenter__(self) -> Self:
        await self._server.start()
        self._connection = await connect(self._server.url, name="floor", timeout_s=30)
        jetstream = JetStream(self._connection)
        for config in _STREAMS:
            await jetstream.ensure_stream(dict(config))
        await jetstream.ensure_consumer(_QUEUE, dict(_CONSUMER))
        for _ in range(WORKERS):
            command = (sys.executable, __file__, self._server.url)
            self._workers.append(await asyncio.create_subprocess_exec(*command))
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.terminate()
            await worker.wait()
        await self._connection.close()
        self._server.kill()

    def spent_s(self) -> dict[str, float]:
        """Return the processor time of each process so far, by its name."""
        assert self._server.pid is not None
        pids = {"submitter": None, "nats-server": self._server.pid}
        workers = [worker.pid for worker in self._workers]
        spent = {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in pids.items()}
        return {**spent, "workers": sum(sum(psutil.Process(p).cpu_times()[:2]) for p in workers)}

    async def jobs(self, count: int) -> tuple[float, dict[str, float]]:
        """Have so many done; returns the seconds, and the processor time by process."""
        left, done = count, asyncio.get_running_loop().create_future()

        def hear(_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set_result(None)

        results = _Results(self._connection, hear)
        await results.open()
        publisher, before, began = Publisher(self._connection), self.spent_s(), time.perf_counter()
        for _ in range(count):
            self._number += 1
            await publisher.publish(f"floor.job.{self._number}", PAYLOAD)
        await done
        took_s = time.perf_counter() - began
        spent = between(before, self.spent_s())
        publisher.close()
        results.close()
        return took_s, spent

    async def one_by_one(self, count: int) -> list[float]:
        """Have so many done, each after the last; returns the milliseconds of each."""
        return [1000 * (await self.jobs(1))[0] for _ in range(count)]


class _Results(Deliveries):
    """Hears results by their subject."""

    def __init__(self, connection: Connection, handler: object) -> None:
        super().__init__(connection.nc, handler)  # type: ignore[arg-type]
        self.subject = "floor.done.*"


async def _work(url: str) -> None:
    connection = await connect(url, name="floor worker", timeout_s=30)
    publisher, again = Publisher(connection), asyncio.Event()
    waiting: asyncio.Queue[Delivery] = asyncio.Queue()
    again.set()

    def ended(_: PullEnded) -> None:
        again.set()

    async def pull() -> None:
        puller = Puller(connection, _QUEUE, _QUEUE, waiting.put_nowait, ended)
        while True:
            await again.wait()
            again.clear()
            await puller.pull(_BATCH, 30.0)

    pulling = asyncio.create_task(pull())
    acking: set[asyncio.Task[None]] = set()
    while not pulling.done():
        delivery = await waiting.get()
        subject = delivery.subject.replace("job", "done")
        stored = await publisher.publish(subject, delivery.payload)

        def ack(_: object, delivery: Delivery = delivery) -> None:
            task = asyncio.ensure_future(delivery.ack())
            acking.add(task)
            task.add_done_callback(acking.discard)

        stored.add_done_callback(ack)


if __name__ == "__main__":
    uvloop.run(_work(sys.argv[1]))
