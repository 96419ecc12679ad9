"""Celery with Redis for queue and results: two daemons with one child each."""

import os
import sys
from pathlib import Path

from celery import Celery
from celery.result import AsyncResult, ResultSet

from bench.peers import redis_server, tasks
from bench.peers.port import WORKERS, Peer

URL = "BENCH_CELERY_URL"
CHUNK = 100
VISIBLE_AFTER_S = 30

app = Celery("bench", broker=os.environ.get(URL), backend=os.environ.get(URL))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=64,
    broker_transport_options={"visibility_timeout": VISIBLE_AFTER_S},
    broker_connection_retry_on_startup=True,
)
noop = app.task(tasks.noop, name="noop", ignore_result=False)
true = app.task(tasks.true, name="true")
busy = app.task(tasks.busy, name="busy")


class CeleryRedis(Peer):
    """Prefork, since only its children can be ended in a task."""

    CONFIGURATION = (
        "2 x `celery worker -P prefork -c 1 -O fair`, without gossip, mingle and heartbeat; "
        f"acks late, prefetch 64, visibility timeout {VISIBLE_AFTER_S} s; many to a message: "
        f"chunks({CHUNK})"
    )
    DURABLE = redis_server.DURABLE
    PACKAGES = ("celery", "kombu", "redis")
    PROGRAMS = (redis_server.VERSION,)

    def start(self) -> None:
        """Start Redis and the workers, and wait until each answers."""
        url = redis_server.start(self)
        app.conf.update(broker_url=url, result_backend=url)
        options = ["-P", "prefork", "-c", "1", "-O", "fair", "-l", "WARNING"]
        options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        for number in range(WORKERS):
            argv = [sys.executable, "-m", "celery", "-A", "bench.peers.celery_redis", "worker"]
            name = f"worker{number}"
            self.spawn(name, [*argv, *options, "-n", f"{name}@bench"], {URL: url})
        self.until(lambda: len(app.control.ping(timeout=0.3)) == WORKERS, "an answer of each")

    def noop(self, count: int) -> None:
        """A message each, over one connection."""
        self._all(noop, count)

    def true(self, count: int) -> None:
        """A message each, over one connection."""
        self._all(true, count)

    def batched(self, count: int) -> None:
        """Chunks of calls."""
        noop.chunks((() for _ in range(count)), CHUNK).apply_async().get(interval=0.005)

    def busy(self, path: Path) -> None:
        """One message."""
        self._busy: AsyncResult = busy.delay(str(path))

    def stop_busy(self) -> None:
        """Revoke it, and end the child that runs it."""
        self._busy.revoke(terminate=True, signal="SIGKILL")

    def _all(self, task: object, count: int) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            results = [task.apply_async(producer=producer) for _ in range(count)]
        ResultSet(results).join_native(interval=0.005)


PEER = CeleryRedis
