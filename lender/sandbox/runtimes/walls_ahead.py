"""Walls that stand before there is anything to run behind them.

Most of a short command's time goes into its namespaces and mounts, and none of them is the job's:
what is shown of the machine is the same for all that bring nothing of their own. So a process that
is kept ahead has bubblewrap make them around an empty working folder, whose name is changed to the
job's later. Nobody but bubblewrap and our own program is inside then; that one waits for its words
(`walls.enter`), and ends without any where who would say them is gone. Each serves one task.
"""

import contextlib
from pathlib import Path

from lender.sandbox.files import scratch
from lender.sandbox.plan import Limits
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes.bubblewrapped import Bubblewrap, BubblewrappedTask
from lender.sandbox.walls import bubblewrap, confine, enter

# A namespace that takes longer than this was not worth to wait for.
_STANDS_WITHIN_S = 1.0


class WallsAhead:
    """They and their working folder; to be taken once, or to be let go.

    Args:
        place: the folder of all working folders.
        memory_bytes: of a task: the memory file systems follow it.

    Raises:
        OSError: no folder, or no process.
        PrepareFailedError: there is nothing to make them of.
    """

    def __init__(self, place: Path, memory_bytes: int) -> None:
        if enter.find() is None:
            raise PrepareFailedError("nobody who could wait inside is built (make walls)")
        made = Bubblewrap()
        limits = Limits(1, memory_bytes, 1, 0, 0, 1)
        self._memory_bytes = memory_bytes
        self._folder = scratch.ahead(place)
        self._folder.mkdir(mode=0o700)
        try:
            confine.adopt_orphans()
            fds, more = made.fds, enter.options()
            options = bubblewrap.options(str(self._folder), {}, {}, limits, fds, more)
            self._task = made.start_ahead(options)
        except OSError:
            self._folder.rmdir()
            raise

    def take(self, folder: Path, memory_bytes: int) -> BubblewrappedTask | None:
        """Make the folder be the job's, and whoever waits inside the caller's.

        Args:
            folder: an empty one in the same place.
            memory_bytes: of its tasks.

        Returns:
            None where they don't fit; they are gone then.
        """
        sizes = map(bubblewrap.memory_sizes, (memory_bytes, self._memory_bytes))
        if len(set(sizes)) == 1 and self._task.stand(_STANDS_WITHIN_S):
            with contextlib.suppress(OSError):
                self._folder.rename(folder)
                return self._task
        self.let_go()
        return None

    def let_go(self) -> None:
        """End them; nobody has used them."""
        self._task.give_up()
        with contextlib.suppress(OSError):
            self._folder.rmdir()
