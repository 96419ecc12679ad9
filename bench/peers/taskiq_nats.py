"""taskiq on JetStream, with its own backend for results, an object store of the same server."""

import asyncio
import os
import sys
from pathlib import Path

from taskiq import ResultGetError
from taskiq_nats import NATSObjectStoreResultBackend, PullBasedJetStreamBroker

from bench.peers import tasks
from bench.peers.port import LOOPBACK, WORKERS, Peer, free_port

URL = "BENCH_TASKIQ_URL"
BATCH = 100
AT_A_TIME = 64
POLL_S = 0.002
# Each object that is read leaves a consumer behind for a while; 1,000 is the server's limit else.
CONFIG = """
listen: "127.0.0.1:{port}"
jetstream: {{ store_dir: "{folder}", limits: {{ default_max_consumers: 1000000 }} }}
"""

url = os.environ.get(URL, "nats://127.0.0.1:4222")
results = NATSObjectStoreResultBackend(url)
broker = PullBasedJetStreamBroker(
    url, pull_consume_batch=BATCH, pull_consume_timeout=1.0
).with_result_backend(results)


@broker.task
async def noop() -> None:
    """Do nothing."""


true = broker.task(task_name="true")(tasks.true)
busy = broker.task(task_name="busy")(tasks.busy)


class TaskiqNats(Peer):
    """Pulled, acknowledged once the result is stored."""

    CONFIGURATION = (
        "nats-server, JetStream with files; PullBasedJetStreamBroker(pull_consume_batch=100), "
        "results in NATSObjectStoreResultBackend, asked for by id, 64 at a time; "
        "2 x `taskiq worker --workers 1`; ack_wait 30 s (its default: longer tasks run twice)"
    )
    DURABLE = "yes, JetStream files, synced every 2 minutes (sync_interval, its default)"
    PACKAGES = ("taskiq", "taskiq-nats", "nats-py")
    PROGRAMS = (("nats-server", "--version"),)
    NO_STOP = "it has no way to"

    def start(self) -> None:
        """Start server and workers."""
        port = free_port()
        settings = self.folder / "nats.conf"
        settings.write_text(CONFIG.format(port=port, folder=self.folder))
        self.spawn("nats", ["nats-server", "-c", str(settings)])
        self.listens(port)
        env = {URL: f"nats://{LOOPBACK}:{port}"}
        for one in (broker, results):
            one.servers = env[URL]
        self._loop = asyncio.Runner()
        self._loop.run(broker.startup())
        for number in range(WORKERS):
            options = ["--workers", "1", "--max-async-tasks", "100", "--max-prefetch", "100"]
            argv = [sys.executable, "-m", "taskiq", "worker", "bench.peers.taskiq_nats:broker"]
            self.spawn(f"worker{number}", [*argv, *options, "--log-level", "WARNING"], env)
        self.noop(20)

    def noop(self, count: int) -> None:
        """A message each."""
        self._loop.run(_all(noop, count))

    def true(self, count: int) -> None:
        """A message each."""
        self._loop.run(_all(true, count))

    def busy(self, path: Path) -> None:
        """One message."""
        self._loop.run(busy.kiq(str(path)))

    def stop(self) -> None:
        """Leave before the server does."""
        if hasattr(self, "_loop"):
            self._loop.run(broker.shutdown())
            self._loop.close()
        super().stop()


async def _all(task: object, count: int) -> None:
    gate = asyncio.Semaphore(AT_A_TIME)

    async def send() -> str:
        async with gate:
            return (await task.kiq()).task_id

    async def fetch(task_id: str) -> None:
        async with gate:
            while True:
                try:
                    result = await results.get_result(task_id)
                except ResultGetError:
                    await asyncio.sleep(POLL_S)
                else:
                    result.raise_for_error()
                    return

    ids = await asyncio.gather(*(send() for _ in range(count)))
    await asyncio.gather(*(fetch(one) for one in ids))


PEER = TaskiqNats
