"""How much each sandbox may run: held, at full speed, or for a part of every second."""

import math
from collections.abc import Callable, Iterable, Iterator

from lender.core.effects import Effect
from lender.core.hold import Hold
from lender.core.lease_run import LeaseRun

DUTY_PERIOD_S = 1.0
"""Of a duty cycle: long against the cost of stopping a tree, short against a fan's patience."""

_FULL = 1.0


Holds = Callable[[LeaseRun], Hold | None]


class Regulation:
    """Freezes, thaws and throttles; names what has to go.

    The oldest attempts get the cores that the verdict leaves. The one that gets less than it
    asks for runs for that part of every period; those that get nothing stand still.
    """

    def __init__(self) -> None:
        self._next_turn = math.inf

    @property
    def next_deadline(self) -> float:
        """When a duty cycle turns, seconds since the epoch; infinity for never."""
        return self._next_turn

    def evicted(
        self, runs: Iterable[LeaseRun], holds: Holds, cores: float, why: Hold
    ) -> list[tuple[LeaseRun, Hold]]:
        """Return the attempts that have to go, and why; arguments as for `settle`.

        Freezing gives no GPU memory back: where others would stand still, those that use a GPU go.
        """
        found = []
        for run, hold, share in _shared(runs, holds, cores):
            reason = hold or (why if share <= 0 else None)
            if reason is not None and (reason.evict or run.uses_gpu):
                found.append((run, reason))
        return found

    def settle(
        self, now: float, runs: Iterable[LeaseRun], holds: Holds, cores: float, why: Hold
    ) -> list[Effect]:
        """Have each attempt run as much as it may.

        Args:
            now: seconds since the epoch.
            runs: oldest first.
            holds: tells what keeps one from running.
            cores: that may be used by all of them together.
            why: the reason for a bound on `cores`.
        """
        self._next_turn = math.inf
        effects: list[Effect] = []
        for run, hold, share in _shared(runs, holds, cores):
            if hold is not None and hold.grace_s > 0 and run.ending is not None:
                continue  # it was asked to end by itself, and is given the time
            if hold is not None or share <= 0:
                effects += run.freeze(now, hold or why)
            elif share >= _FULL or self._on_duty(now, share):
                effects += run.go()
            else:
                effects += run.rest()
        return effects

    def _on_duty(self, now: float, share: float) -> bool:
        begin = math.floor(now / DUTY_PERIOD_S) * DUTY_PERIOD_S
        rest_at = begin + share * DUTY_PERIOD_S
        on = now < rest_at
        self._next_turn = min(self._next_turn, rest_at if on else begin + DUTY_PERIOD_S)
        return on


def _shared(
    runs: Iterable[LeaseRun], holds: Holds, cores: float
) -> Iterator[tuple[LeaseRun, Hold | None, float]]:
    """Tell of each attempt why it may not run, and which share of its time it gets, 0 to 1."""
    for run in runs:
        hold = holds(run)
        asked = float(run.plan.spec.limits.cpu)
        share = 0.0 if hold is not None else min(_FULL, cores / asked)
        if hold is None:
            cores = max(0.0, cores - asked)
        yield run, hold, share
