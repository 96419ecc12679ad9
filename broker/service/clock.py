"""The service's clock: wall time that notices its own jumps."""

import time

JUMP_S = 1.0


class Clock:
    """Seconds since the epoch, running with the monotonic clock between two `jump` calls.

    The wall clock can be set, and a suspended machine's monotonic clock stands still; the core
    is told of both, so that no lender is given up for the time that nobody lived through.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the time."""
        return self._offset_s + time.monotonic()

    def jump(self) -> float:
        """Follow the wall clock; returns by how much it jumped, 0.0 for less than `JUMP_S`."""
        offset_s = time.time() - time.monotonic()
        by_s = offset_s - self._offset_s
        if abs(by_s) < JUMP_S:
            return 0.0
        self._offset_s = offset_s
        return by_s
