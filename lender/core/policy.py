"""From signals to a verdict: how much may be lent right now, and why, in words and numbers."""

from dataclasses import dataclass
from enum import IntEnum

from lender.core.signals import PresenceState, Signals


class Rung(IntEnum):
    """The ladder that lent work climbs down and up again."""

    EVICTED = 0
    FROZEN = 1
    REDUCED = 2
    FULL = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason to step back: what was read, and the limit that it crosses."""

    signal: str
    rung: Rung
    text: str
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be lent.

    Attributes:
        rung: the lowest that any finding asks for.
        cores: may be lent at most, 0 below REDUCED; a fraction means part of the time.
        presence: what the signals mean for grants that hold when the owner is idle or away.
        findings: the reasons to step back, worst first; none at FULL.
        figures: the reading in words, for the owner.
    """

    rung: Rung
    cores: float
    presence: PresenceState
    findings: tuple[Finding, ...]
    figures: str

    @property
    def reason(self) -> str:
        """The first finding, or the figures, in words."""
        return self.findings[0].text if self.findings else self.figures


@dataclass(frozen=True, slots=True)
class Policy:
    """The owner's limits."""


class Comfort:
    """The last reading, and the verdict on it."""

    def __init__(self, policy: Policy, cores: float) -> None:
        self._policy = policy
        self._cores = cores
        self.verdict = Verdict(
            Rung.FROZEN, 0.0, "present", (), "the machine has not been measured yet"
        )

    def sampled(self, now: float, signals: Signals) -> None:
        """Take up a reading."""
        self.verdict = Verdict(Rung.FULL, self._cores, "away", (), "calm")
