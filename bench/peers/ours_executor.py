"""This project by its executor: calls of a Python function, as most peers' tasks are."""

import sys
from concurrent.futures import wait

import cloudpickle

from bench.peers import tasks
from bench.peers.ours import Ours
from lender.client.executor import LenderExecutor

CHUNK = 1000


class OursExecutor(Ours):
    """The same fleet; what else there is to measure of it is measured there."""

    CONFIGURATION = (
        "as lender; a no-op task is a call of LenderExecutor.submit, those that wait go together; "
        "many to a message: its map in chunks"
    )
    NO_STOP = "a call that runs is stopped with its job: see lender"
    NO_RECOVERY = "see lender"

    def start(self) -> None:
        """Start the fleet, and the executor in its own thread."""
        super().start()
        # Lenders have no module of this bench: its functions travel whole.
        for one in (tasks, sys.modules[__name__]):
            cloudpickle.register_pickle_by_value(one)
        self._executor = LenderExecutor(client=self.another_client())
        self.noop(1)

    def noop(self, count: int) -> None:
        """A future each."""
        futures = [self._executor.submit(tasks.noop) for _ in range(count)]
        wait(futures)
        for one in futures:
            one.result()

    def batched(self, count: int) -> None:
        """Chunks of a map."""
        for _ in self._executor.map(_one, range(count), chunksize=CHUNK):
            pass

    def stop(self) -> None:
        """End the executor, then the fleet."""
        if hasattr(self, "_executor"):
            self._executor.shutdown(wait=True, cancel_futures=True)
        super().stop()


def _one(_: int) -> None:
    tasks.noop()


PEER = OursExecutor
