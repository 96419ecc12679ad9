"""Ray with two actors, which the caller itself gives their calls: its quickest way."""

import ray

from bench.peers import tasks
from bench.peers.port import WORKERS
from bench.peers.ray_tasks import RayTasks


@ray.remote(num_cpus=1)
class Actor:
    """A worker that stays."""

    def noop(self) -> None:
        """Do nothing."""

    def true(self) -> None:
        """Run a program."""
        tasks.true()


class RayActors(RayTasks):
    """Calls by turns, not by who is free."""

    CONFIGURATION = "ray.init(num_cpus=2, include_dashboard=False); two actors, called in turns"
    NO_STOP = "as with tasks"
    NO_RECOVERY = "calls of an actor that died fail"
    batched = RayTasks.__mro__[1].batched

    def start(self) -> None:
        """Start a node and the actors."""
        super().start()
        self._actors = [Actor.remote() for _ in range(WORKERS)]

    def noop(self, count: int) -> None:
        """A call each."""
        if not hasattr(self, "_actors"):
            return  # they are not there yet
        ray.get([self._actors[number % WORKERS].noop.remote() for number in range(count)])

    def true(self, count: int) -> None:
        """A call each."""
        ray.get([self._actors[number % WORKERS].true.remote() for number in range(count)])


PEER = RayActors
