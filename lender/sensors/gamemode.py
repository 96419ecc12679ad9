"""Whether a game told Feral's GameMode that it plays; about 0.4 ms.

Source: com.feralinteractive.GameMode, property ClientCount (gamemode 1.4 and later).
"""

from lender.sensors.dbus import Bus
from lender.sensors.sighting import Sighting


class GameMode:
    """Asks the daemon of this user's session, if it runs."""

    name = "gamemode"
    pace_s = 5.0

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def read(self) -> list[Sighting]:
        """Say whether a game is registered.

        Raises:
            UnansweredError: GameMode does not run.
        """
        count = self._bus.get(
            "com.feralinteractive.GameMode",
            "/com/feralinteractive/GameMode",
            "com.feralinteractive.GameMode.ClientCount",
            "i",
        )
        return [Sighting(self.name, game=count > 0)]
