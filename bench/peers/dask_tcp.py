"""Dask distributed: a scheduler and two workers with a thread each, over TCP."""

import sys
from pathlib import Path

from distributed import Client, Future

from bench.peers import tasks
from bench.peers.port import LOOPBACK, WORKERS, Peer, free_port

CHUNK = 1000
QUIET = {
    "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
    "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "0",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}


class Dask(Peer):
    """Workers below nannies, which start them again."""

    CONFIGURATION = (
        "dask scheduler, 2 x `dask worker --nthreads 1 --nanny`, no dashboard, no work stealing, "
        f"no profiler; client.map and gather; many to a message: {CHUNK} calls to a task"
    )
    DURABLE = "no"
    PACKAGES = ("distributed", "dask")

    def start(self) -> None:
        """Start scheduler and workers."""
        port = free_port()
        dask = [sys.executable, "-m", "dask"]
        options = ["--host", LOOPBACK, "--port", str(port), "--no-dashboard", "--no-show"]
        self.spawn("scheduler", [*dask, "scheduler", *options], QUIET)
        self.listens(port)
        url = f"tcp://{LOOPBACK}:{port}"
        for number in range(WORKERS):
            options = ["--nthreads", "1", "--nworkers", "1", "--nanny", "--no-dashboard"]
            options += ["--memory-limit", "0", "--local-directory", str(self.folder / str(number))]
            options += ["--host", LOOPBACK]
            self.spawn(f"worker{number}", [*dask, "worker", url, *options], QUIET)
        self._client = Client(url)
        self._client.wait_for_workers(WORKERS, timeout=60)

    def noop(self, count: int) -> None:
        """A task each."""
        self._client.gather(self._client.map(_noop, range(count), pure=False))

    def true(self, count: int) -> None:
        """A task each."""
        self._client.gather(self._client.map(_true, range(count), pure=False))

    def batched(self, count: int) -> None:
        """Many calls to a task."""
        chunks = [CHUNK] * -(-count // CHUNK)
        self._client.gather(self._client.map(tasks.many, chunks, pure=False))

    def busy(self, path: Path) -> None:
        """One task."""
        self._busy: Future = self._client.submit(tasks.busy, str(path), pure=False)

    def stop_busy(self) -> None:
        """Cancel it and start its worker again: a thread can't be stopped."""
        processing = self._client.processing()
        ours = [worker for worker, keys in processing.items() if self._busy.key in keys]
        self._busy.cancel()
        self._client.restart_workers(ours)

    def stop(self) -> None:
        """Leave before the daemons do."""
        if hasattr(self, "_client"):
            self._client.close(timeout=2)
        super().stop()


def _noop(_: int) -> None:
    tasks.noop()


def _true(_: int) -> None:
    tasks.true()


PEER = Dask
