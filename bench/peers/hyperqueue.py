"""HyperQueue as its Python package brings it: server, workers and client are one process."""

import os
import time
from pathlib import Path

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

from bench.peers import tasks
from bench.peers.port import WORKERS, Peer


class HyperQueue(Peer):
    """Each task is a process, one that does nothing as well."""

    CONFIGURATION = (
        "LocalCluster with 2 workers of one core (the package has no program `hq`), "
        "all tasks in one job, without files for what they print; a no-op task is /bin/true; "
        "the end is seen by a last task's file (its client's own wait looks once a second)"
    )
    DURABLE = "no (its journal is an option of a server of its own)"
    PACKAGES = ("hyperqueue",)
    NO_STOP = "its Python client has no way to"
    NO_RECOVERY = "its workers are threads of the client here"

    def start(self) -> None:
        """Start the cluster."""
        self._jobs = 0
        self._cluster = LocalCluster(str(self.folder / "hq"))
        for _ in range(WORKERS):
            self._cluster.start_worker(WorkerConfig(cores=1))
        self._client = self._cluster.client()
        self.noop(WORKERS)

    def noop(self, count: int) -> None:
        """There is no task that is no process."""
        self.true(count)

    def true(self, count: int) -> None:
        """A task each, of one job; the last one shows by a file that all have ended."""
        self._jobs += 1
        job, ended = Job(max_fails=0), self.folder / f"ended-{self._jobs}"
        others = [job.program([tasks.TRUE], stdout=None, stderr=None) for _ in range(count - 1)]
        job.program(["/bin/touch", str(ended)], stdout=None, stderr=None, deps=others)
        self._client.submit(job)
        while not ended.exists():
            time.sleep(0.001)

    def busy(self, path: Path) -> None:
        """Not asked for: it could not be stopped."""
        raise NotImplementedError

    def servers(self) -> list[int]:
        """Return our own process: server, workers and client are one."""
        return [os.getpid()]

    def stop(self) -> None:
        """End the cluster."""
        if hasattr(self, "_cluster"):
            self._cluster.stop()


PEER = HyperQueue
