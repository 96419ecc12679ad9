"""Whether the files of a task take more than they may, seen early enough.

Nobody but root can give a folder a size, so it is watched. An exact look walks through all of it
and may take long. Between two looks one number tells how much can have been written at most: what
its file system has lost of its free space (statvfs(3)), whoever took it and whether it has a name
or not. When that exceeds the room that was left, it is time for the next exact look; and while it
is lost fast, for a closer watch. Some file systems count late (btrfs): there the looks every 100 ms
remain.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from lender.sandbox.files.scratch import TooMuchError

_LOOK_S = 0.1
# Who is faster than that is looked at when all is over.
_FIRST_LOOK_S = 0.005
# What walks through hundreds of thousands of files is not to take a core of its own.
_LOOK_SHARE = 4
_PAUSE_S_MIN = 0.002
# How soon a rush is forgotten: who writes in bursts is watched between them, too.
_CALMING = 0.8


class DiskWatch:
    """Watches one task.

    Args:
        folder: its working folder.
        limit_bytes: what it may hold.
        measure: the exact look; raises TooMuchError where more is there than is counted.

    Attributes:
        pause_s: look again after this much time; infinite while nothing hurries.
    """

    def __init__(self, folder: Path, limit_bytes: int, measure: Callable[[], int]) -> None:
        self._folder = str(folder)
        self._limit_bytes = limit_bytes
        self._measure = measure
        self._room_bytes = 0
        self._free_bytes_then = 0
        self._last = (0.0, 0)
        self._bytes_per_s = 0.0
        self._look_at_s, self._look_from_s = 0.0, 0.0
        self.pause_s = math.inf

    def exceeds(self, elapsed_s: float) -> bool:
        """Look as closely as is due.

        Args:
            elapsed_s: running time of the task; never less than before.
        """
        if elapsed_s < _FIRST_LOOK_S:
            return False
        free_bytes = self._free_bytes()
        lost_bytes = self._free_bytes_then - free_bytes
        hurries = lost_bytes > self._room_bytes and elapsed_s >= self._look_from_s
        if hurries or elapsed_s >= self._look_at_s:
            if self._exceeds_exactly(elapsed_s):
                return True
            self._free_bytes_then, lost_bytes = free_bytes, 0
        self._set_pause(elapsed_s, free_bytes, self._room_bytes - lost_bytes)
        return False

    def _exceeds_exactly(self, elapsed_s: float) -> bool:
        # Processor time: on a busy machine a look takes long and costs no more.
        began = time.thread_time()
        try:
            self._room_bytes = self._limit_bytes - self._measure()
        except TooMuchError:
            return True
        cost_s = time.thread_time() - began
        self._look_from_s = elapsed_s + 2 * cost_s
        self._look_at_s = elapsed_s + max(_LOOK_S, _LOOK_SHARE * cost_s)
        return self._room_bytes < 0

    def _set_pause(self, elapsed_s: float, free_bytes: int, room_bytes: int) -> None:
        """Half of the time in which the room would be filled at the speed of late."""
        then_s, then_bytes = self._last
        self._last = elapsed_s, free_bytes
        if elapsed_s <= then_s:
            return
        now_per_s = (then_bytes - free_bytes) / (elapsed_s - then_s)
        self._bytes_per_s = max(now_per_s, self._bytes_per_s * _CALMING)
        if self._bytes_per_s > 0:
            wanted_s = max(0, room_bytes) / self._bytes_per_s / 2
            self.pause_s = max(_PAUSE_S_MIN, wanted_s)

    def _free_bytes(self) -> int:
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return 0  # the exact looks alone remain
        return found.f_bfree * found.f_frsize
