"""ProcessPoolExecutor of the standard library: no network, no disk, the upper reference."""

import platform
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import active_children
from pathlib import Path

from bench.peers import tasks
from bench.peers.port import WORKERS, Peer

CHUNK = 1000


class Pool(Peer):
    """Two processes over pipes."""

    CONFIGURATION = "concurrent.futures.ProcessPoolExecutor(2); many to a message: map in chunks"
    DURABLE = "no"
    NO_STOP = "a call that runs can't be cancelled"
    NO_RECOVERY = "the pool is broken once a process has died"

    def start(self) -> None:
        """Fork the workers."""
        self._pool = ProcessPoolExecutor(WORKERS)
        self.noop(WORKERS)

    def noop(self, count: int) -> None:
        """A future each."""
        self._wait([self._pool.submit(tasks.noop) for _ in range(count)])

    def true(self, count: int) -> None:
        """A future each."""
        self._wait([self._pool.submit(tasks.true) for _ in range(count)])

    def batched(self, count: int) -> None:
        """Chunks of a map."""
        for _ in self._pool.map(_one, range(count), chunksize=CHUNK):
            pass

    def busy(self, path: Path) -> None:
        """One future."""
        self._pool.submit(tasks.busy, str(path))

    def workers(self) -> list[int]:
        """Return the pool's processes."""
        return [one.pid for one in active_children()]

    def stop(self) -> None:
        """End the pool; the busy task is the runner's to kill."""
        for process in active_children():
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def versions(self) -> str:
        """The interpreter's is all there is."""
        return f"Python {platform.python_version()}"

    def _wait(self, futures: list[Future[None]]) -> None:
        wait(futures)
        for one in futures:
            one.result()


def _one(_: int) -> None:
    tasks.noop()


PEER = Pool
