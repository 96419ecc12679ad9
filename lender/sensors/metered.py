"""Whether the network is paid by volume: NetworkManager's word; about 0.4 ms.

Source: NMMetered in NetworkManager's D-Bus reference.
"""

from lender.sensors.dbus import Bus
from lender.sensors.sighting import Sighting

_YES, _GUESSED_YES = 1, 3


class Metered:
    """Asks NetworkManager on the system bus."""

    name = "metered"
    pace_s = 5.0

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def read(self) -> list[Sighting]:
        """Say whether it is metered, or guessed to be.

        Raises:
            UnansweredError: NetworkManager does not run.
        """
        metered = self._bus.get(
            "org.freedesktop.NetworkManager",
            "/org/freedesktop/NetworkManager",
            "org.freedesktop.NetworkManager.Metered",
            "u",
        )
        return [Sighting(self.name, metered=metered in (_YES, _GUESSED_YES))]
