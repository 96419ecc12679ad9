"""What the broker has decided so far, counted for whoever watches it; nothing is decided by it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


def _unheeded(_seconds: float, /) -> None:
    """Nobody measures."""


@dataclass(slots=True)
class Figures:
    """Numbers that only grow; they outlive a term as leader, and end with the process."""

    submissions: int = 0
    """Taken up or rejected; one that is known already counts once."""
    jobs_ended: Counter[str] = field(default_factory=Counter)
    """By terminal state."""
    jobs_rejected: Counter[str] = field(default_factory=Counter)
    """By the first part of the field that was at fault."""
    tasks_ended: Counter[str] = field(default_factory=Counter)
    """By the state of the result."""
    leases: int = 0
    """Put into a work queue."""
    tasks_leased: int = 0
    leases_handed_back: Counter[str] = field(default_factory=Counter)
    """By the outcome that their lenders report."""
    attempts_lost: int = 0
    """Tasks without a result of leases whose holder fell silent, or no longer listed them."""
    lease_waited: Callable[[float], None] = _unheeded
    """Takes how long a lease waited for the lender that took it, in seconds."""
    job_waited: Callable[[float], None] = _unheeded
    """Takes how long a job waited for its first lender, from its submission, in seconds."""

    def job_ended(self, state: str, field_at_fault: str | None) -> None:
        """Count a terminal record."""
        self.jobs_ended[state] += 1
        if state == "rejected":
            self.jobs_rejected[(field_at_fault or "").partition(".")[0]] += 1
