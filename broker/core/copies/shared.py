"""What is known of a task that more than one lender has been given."""

from collections import Counter
from dataclasses import dataclass, field


def owner_of(lender: str) -> str:
    """Return who owns a lender: until enrolment tells owners apart, each is its own.

    Tasks that are to run on different owners' machines are told apart by this alone.
    """
    return lender


@dataclass(slots=True)
class SharedTask:
    """A task that several leases may have open at a time.

    Whatever becomes of one of them, it is leased anew only as often as answers are wanted that
    are neither there nor under way.
    """

    attempt: int
    """The highest number under which it was leased: the next one is higher still."""
    failures: int
    leases: dict[str, None] = field(default_factory=dict)
    """Those that have it open."""
    waits: bool = False
    """Whether it is pending or resting, for a lease more."""
    wanted: int = 1
    """Answers in all."""
    votes: dict[str, str] = field(default_factory=dict)
    """The digest of each owner's answer."""
    copied: bool = False
    """Whether it was given to one lender more than answers are wanted."""

    @property
    def missing(self) -> int:
        """Answers that are wanted, and neither there nor under way."""
        return self.wanted - len(self.votes) - len(self.leases) - self.waits

    @property
    def agreeing(self) -> int:
        """How many answers are equal, at most."""
        return max(Counter(self.votes.values()).values(), default=0)
