"""dramatiq with Redis for queue and results: two processes with eight threads each."""

import os
import sys
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.peers import redis_server, tasks
from bench.peers.port import WORKERS, Peer

URL = "BENCH_DRAMATIQ_URL"
WITHIN_MS = 60_000
THREADS = 8
PREFETCH = 1000


def _broker(url: str) -> RedisBroker:
    broker = RedisBroker(url=url)
    broker.add_middleware(Results(backend=RedisBackend(url=url)))
    return broker


broker = _broker(os.environ.get(URL, "redis://127.0.0.1:6379/0"))
dramatiq.set_broker(broker)
noop = dramatiq.actor(tasks.noop, store_results=True, actor_name="noop")
true = dramatiq.actor(tasks.true, store_results=True, actor_name="true")
busy = dramatiq.actor(tasks.busy, actor_name="busy")


class DramatiqRedis(Peer):
    """Messages are acknowledged after the task; those of the dead are looked for each minute."""

    CONFIGURATION = (
        f"2 x `dramatiq --processes 1 --threads {THREADS}` (its default), prefetch {PREFETCH}"
    )
    DURABLE = redis_server.DURABLE
    PACKAGES = ("dramatiq", "redis")
    PROGRAMS = (redis_server.VERSION,)
    NO_STOP = "only with a middleware that it does not bring"

    def start(self) -> None:
        """Start Redis and the workers."""
        url = redis_server.start(self)
        ours = _broker(url)
        for actor in (noop, true, busy):
            actor.broker = ours
            ours.declare_actor(actor)
        dramatiq.set_broker(ours)
        for number in range(WORKERS):
            argv = [sys.executable, "-m", "dramatiq", "bench.peers.dramatiq_redis"]
            argv += ["--processes", "1", "--threads", str(THREADS)]
            self.spawn(
                f"worker{number}", argv, {URL: url, "dramatiq_queue_prefetch": str(PREFETCH)}
            )
        self.noop(20)

    def noop(self, count: int) -> None:
        """A message each."""
        _all(noop, count)

    def true(self, count: int) -> None:
        """A message each."""
        _all(true, count)

    def busy(self, path: Path) -> None:
        """One message."""
        busy.send(str(path))


def _all(task: object, count: int) -> None:
    for message in [task.send() for _ in range(count)]:
        message.get_result(block=True, timeout=WITHIN_MS)


PEER = DramatiqRedis
