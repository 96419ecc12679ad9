"""What a policy would have made of readings that were recorded: how much lent, how often not."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from lender.core.comfort import Comfort
from lender.core.policy import Policy, Rung, Verdict
from lender.core.signals import Signals

GAP_S: Final = 30.0
"""Readings further apart were not taken in one go: the machine slept, or lenderd did not run."""


@dataclass(slots=True)
class Replay:
    """The outcome.

    Attributes:
        since, until: of the first and the last reading, seconds since the epoch; 0: no reading.
        measured_s: time between them, without gaps.
        spent_s: time on each rung.
        lent_core_s: cores that could have been lent, over that time, on each rung.
        stepped_in: how often lent work would have had to step back, by the limit behind it.
    """

    since: float = 0.0
    until: float = 0.0
    measured_s: float = 0.0
    spent_s: dict[Rung, float] = field(default_factory=lambda: dict.fromkeys(Rung, 0.0))
    lent_core_s: dict[Rung, float] = field(default_factory=lambda: dict.fromkeys(Rung, 0.0))
    stepped_in: Counter[str] = field(default_factory=Counter)


class Replayer:
    """Holds recorded readings against one policy.

    Attributes:
        outcome: of the readings so far.
    """

    def __init__(self, policy: Policy, cores: float, slots: int) -> None:
        """Begin without readings.

        Args:
            policy: the owner's limits.
            cores: of the machine.
            slots: most cores lent at once.
        """
        self.outcome = Replay()
        self._comfort = Comfort(policy, cores)
        self._slots = slots

    def take(self, now: float, signals: Signals) -> None:
        """Take up the next reading; one of an earlier time begins anew, as after a gap."""
        outcome, before = self.outcome, self._comfort.verdict
        step_s = now - outcome.until
        follows = outcome.since > 0 and 0 <= step_s <= GAP_S
        if not follows and outcome.since > 0:
            self._comfort.forget()
        self._comfort.sampled(now, signals)
        if follows:
            outcome.measured_s += step_s
            outcome.spent_s[before.rung] += step_s
            outcome.lent_core_s[before.rung] += step_s * min(before.cores, self._slots)
            self._count_step(before, self._comfort.verdict)
        outcome.since = outcome.since or now
        outcome.until = now

    def _count_step(self, before: Verdict, after: Verdict) -> None:
        if after.rung < before.rung and _felt(before, after, self._slots):
            self.outcome.stepped_in[after.findings[0].signal] += 1
        elif before.gpu_work and not after.gpu_work:
            self.outcome.stepped_in["vram_kept_bytes"] += 1
        elif before.new_work and not after.new_work:
            self.outcome.stepped_in["metered"] += 1


def _felt(before: Verdict, after: Verdict, slots: int) -> bool:
    """Tell whether lent work had to step back: fewer cores are none it had with few slots."""
    return after.rung < Rung.REDUCED or min(after.cores, slots) < min(before.cores, slots)
