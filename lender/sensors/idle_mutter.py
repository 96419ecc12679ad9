"""Idle time on GNOME: Mutter's IdleMonitor on the session bus; about 0.3 ms.

Source: org.gnome.Mutter.IdleMonitor.xml in Mutter; it counts input of all devices, in ms.
"""

import os
import time

from lender.sensors.dbus import Bus
from lender.sensors.sighting import Sighting


class MutterIdle:
    """Asks Mutter."""

    name = "mutter"
    pace_s = 1.0

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def read(self) -> list[Sighting]:
        """Return when somebody last touched an input device.

        Raises:
            UnansweredError: Mutter does not run.
        """
        idle_ms = self._bus.call(
            "org.gnome.Mutter.IdleMonitor",
            "/org/gnome/Mutter/IdleMonitor/Core",
            "org.gnome.Mutter.IdleMonitor.GetIdletime",
            "t",
        )
        at = time.monotonic() - idle_ms / 1000
        return [Sighting(self.name, uid=os.getuid(), last_input_at=at, desktop=True)]
