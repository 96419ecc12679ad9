"""The daemon's clock: seconds since the epoch, steady while the process lives."""

import time


class Clock:
    """Counts on from the wall clock at the start, sleep of the machine included.

    A jump of the wall clock moves no deadline. CLOCK_BOOTTIME counts suspended time
    (clock_gettime(2)); where there is none (macOS), the monotonic clock has to do.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - _steady_s()

    def __call__(self) -> float:
        """Return now."""
        return self._offset_s + _steady_s()


def _steady_s() -> float:
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)
