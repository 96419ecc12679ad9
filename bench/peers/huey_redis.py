"""huey with Redis: two consumers with one worker process each."""

import os
import sys
from pathlib import Path

from huey import RedisHuey
from redis import ConnectionPool

from bench.peers import redis_server, tasks
from bench.peers.port import WORKERS, Peer

URL = "BENCH_HUEY_URL"

huey = RedisHuey("bench", url=os.environ.get(URL, "redis://127.0.0.1:6379/0"))


@huey.task()
def noop() -> bool:
    """Do nothing; without a value there is no result."""
    return True


@huey.task()
def true() -> bool:
    """Run a program."""
    tasks.true()
    return True


@huey.task()
def busy(path: str) -> None:
    """Compute."""
    tasks.busy(path)


class HueyRedis(Peer):
    """Messages leave Redis when they are read: what a worker held is lost with it."""

    CONFIGURATION = "2 x `huey_consumer -k process -w 1`; results read by key every 2 ms"
    DURABLE = f"until a worker has it: {redis_server.DURABLE}"
    PACKAGES = ("huey", "redis")
    PROGRAMS = (redis_server.VERSION,)
    NO_STOP = "it has no way to"
    NO_RECOVERY = "a message is gone once a worker has read it"

    def start(self) -> None:
        """Start Redis and the consumers."""
        url = redis_server.start(self)
        huey.storage.pool = ConnectionPool.from_url(url)
        huey.storage.conn = huey.storage.redis_client(connection_pool=huey.storage.pool)
        for number in range(WORKERS):
            argv = [sys.executable, "-m", "huey.bin.huey_consumer", "bench.peers.huey_redis.huey"]
            argv += ["-k", "process", "-w", "1", "-n", "-q"]
            self.spawn(f"worker{number}", argv, {URL: url})
        self.noop(20)

    def noop(self, count: int) -> None:
        """A message each."""
        _all(noop, count)

    def true(self, count: int) -> None:
        """A message each."""
        _all(true, count)

    def busy(self, path: Path) -> None:
        """One message."""
        busy(str(path))


def _all(task: object, count: int) -> None:
    for result in [task() for _ in range(count)]:
        result.get(blocking=True, backoff=1.0, max_delay=0.002)


PEER = HueyRedis
