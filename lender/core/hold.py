"""Why an attempt may not run."""

from dataclasses import dataclass, replace
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
        grace_s: how long a task that leaves a checkpoint may take to end by itself before that;
            0 where the owner's bound is exact.
    """

    reason: str
    told: str = NEEDED_HERE
    evict: bool = False
    grace_s: float = 0.0

    def after(self, event: str) -> "Hold":
        """Return the same for an attempt that has to go after `event`."""
        return Hold(f"{event}: {self.reason}", f"{event}: {self.told}", evict=True)

    def at_once(self) -> "Hold":
        """Return the same without a grace."""
        return replace(self, evict=True, grace_s=0.0)
