"""Ray on one node with two processors: tasks, which its scheduler places."""

from pathlib import Path

import psutil
import ray

from bench.peers import tasks
from bench.peers.port import LOOPBACK, WORKERS, Peer

CHUNK = 1000
STORE_BYTES = 256 * 2**20


class RayTasks(Peer):
    """Remote functions."""

    CONFIGURATION = (
        "ray.init(num_cpus=2, include_dashboard=False); remote functions with retries; many to a "
        f"message: {CHUNK} calls to a task"
    )
    DURABLE = "no"
    PACKAGES = ("ray",)

    def start(self) -> None:
        """Start a node, with all its workers."""
        ray.init(
            num_cpus=WORKERS,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            _node_ip_address=LOOPBACK,
            _temp_dir=str(self.folder / "ray"),
            log_to_driver=False,
        )
        self._noop = ray.remote(num_cpus=1)(tasks.noop)
        self._true = ray.remote(num_cpus=1)(tasks.true)
        self._many = ray.remote(num_cpus=1)(tasks.many)
        self._busy = ray.remote(num_cpus=1, max_retries=3)(tasks.busy)
        self.noop(100)

    def noop(self, count: int) -> None:
        """A task each."""
        ray.get([self._noop.remote() for _ in range(count)])

    def true(self, count: int) -> None:
        """A task each."""
        ray.get([self._true.remote() for _ in range(count)])

    def batched(self, count: int) -> None:
        """Many calls to a task."""
        ray.get([self._many.remote(CHUNK) for _ in range(-(-count // CHUNK))])

    def busy(self, path: Path) -> None:
        """One task."""
        self._running = self._busy.remote(str(path))

    def stop_busy(self) -> None:
        """Kill the worker that runs it."""
        ray.cancel(self._running, force=True)

    def workers(self) -> list[int]:
        """Return the workers, which are the node's children."""
        below = psutil.Process().children(recursive=True)
        return [one.pid for one in below if one.name().startswith("ray::")]

    def servers(self) -> list[int]:
        """Return the node's daemons."""
        return [one.pid for one in psutil.Process().children()]

    def stop(self) -> None:
        """End the node."""
        ray.shutdown()


PEER = RayTasks
