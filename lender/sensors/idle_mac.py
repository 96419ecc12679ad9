"""Idle time on macOS: HIDIdleTime of IOHIDSystem, told by `ioreg`; a process every 15 s.

Source: ioreg(8); the value is in nanoseconds.
"""

import re
import subprocess
import time

from lender.sensors.dbus import UnansweredError
from lender.sensors.sighting import Sighting

_IOREG = "/usr/sbin/ioreg"
_ASK_S = 2.0


class MacIdle:
    """Runs ioreg."""

    name = "ioreg"
    pace_s = 15.0

    def __init__(self, ioreg: str = _IOREG) -> None:
        self._ioreg = ioreg

    def read(self) -> list[Sighting]:
        """Return when somebody last touched an input device.

        Raises:
            UnansweredError: ioreg is missing, or says nothing of it.
        """
        command = [self._ioreg, "-c", "IOHIDSystem", "-d", "4"]
        try:
            shown = subprocess.run(command, capture_output=True, timeout=_ASK_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnansweredError(f"{self._ioreg}: {error}") from error
        idle_s = idle_of(shown.stdout.decode(errors="replace"))
        at = time.monotonic() - idle_s
        return [Sighting(self.name, last_input_at=at, desktop=True)]


def idle_of(shown: str) -> float:
    """Return the shortest idle time that ioreg's output names, in seconds.

    Raises:
        UnansweredError: it names none.
    """
    found = [int(one) for one in re.findall(r'"HIDIdleTime"\s*=\s*(\d+)', shown)]
    if not found:
        raise UnansweredError("ioreg names no HIDIdleTime")
    return min(found) / 1e9
