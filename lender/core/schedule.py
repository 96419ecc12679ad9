"""At which times of the owner's a grant holds: always, idle, away, or weekly hours.

Standard library only: `lender grant` shows it without the daemon.
"""

from dataclasses import dataclass
from typing import Literal

from lender.core.signals import PresenceState

WEEK_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class When:
    """A condition on the owner's presence, or on the hour of their week."""

    kind: Literal["always", "idle", "away", "hours"] = "always"

    def holds(self, presence: PresenceState, week_s: float) -> bool:
        """Tell whether it holds.

        Args:
            presence: what the signals say of the owner.
            week_s: seconds since the owner's Monday 00:00, local time.
        """
        return self.kind == "always" or presence == "away" or self.kind == presence


ALWAYS = When()
