"""Why an attempt may not run."""

from dataclasses import dataclass
from typing import Final

NEEDED_HERE: Final = "the machine or its owner needs it"
"""All that others are told of an owner's comings and goings."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps an attempt from running, in words.

    Attributes:
        reason: for the owner and the receipt.
        told: for the broker and the submitter; nothing of the owner's presence or habits.
        evict: it is handed back at once; otherwise it stands still and keeps its memory.
    """

    reason: str
    told: str = NEEDED_HERE
    evict: bool = False

    def after(self, event: str) -> "Hold":
        """Return the same for an attempt that has to go after `event`."""
        return Hold(f"{event}: {self.reason}", f"{event}: {self.told}", evict=True)
