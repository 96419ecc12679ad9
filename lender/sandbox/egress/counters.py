"""What a proxy has moved and refused: written by it, read by the sandbox's supervisor."""

import mmap
from typing import NamedTuple

_NUMBERS, _BYTES_EACH = 3, 8


class Moved(NamedTuple):
    """What went through a proxy so far.

    Attributes:
        in_bytes: from servers.
        out_bytes: to servers.
        refused: what was asked for and is not for the sandbox.
    """

    in_bytes: int = 0
    out_bytes: int = 0
    refused: int = 0


class Counters:
    """Memory that a process shares with those that it forks from then on."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _NUMBERS * _BYTES_EACH)
        self._numbers = memoryview(self._memory).cast("Q")

    def add(self, *, in_bytes: int, out_bytes: int, refused: int) -> None:
        """Count more; by one process only."""
        for place, more in enumerate((in_bytes, out_bytes, refused)):
            if more:
                self._numbers[place] += more

    def read(self) -> Moved:
        """What was counted so far."""
        return Moved(*self._numbers)
