"""From a scenario that fails to a shorter one that fails in the same way."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from sim.scenario import Scenario
from sim.simulation import Outcome

RUNS_MAX = 150

Item = TypeVar("Item")


class _SpentError(Exception):
    """No more runs."""


class Shrunk(NamedTuple):
    """The shortest failure that was found, and after how many runs."""

    outcome: Outcome
    runs: int


def shrink(first: Outcome, run: Callable[[Scenario], Outcome], runs_max: int = RUNS_MAX) -> Shrunk:
    """Leave out what the failure does not need: halves first, then single things, last machines.

    Every chance comes from a stream of its own name, so that what is left behaves much as before.
    """
    best, runs = first, 0

    def fails(candidate: Scenario) -> bool:
        nonlocal best, runs
        if runs >= runs_max:
            raise _SpentError
        runs += 1
        outcome = run(candidate)
        if outcome.broken != first.broken:
            return False
        best = outcome
        return True

    try:
        weight = -1
        while best.scenario.weight != weight:
            weight = best.scenario.weight
            for field in ("faults", "verbs", "jobs"):
                _leave_out(field, lambda: best.scenario, fails)
            # Answers have to agree on the machines of several owners.
            votes = any(job.verify for job in best.scenario.jobs)
            while len(best.scenario.lenders) > 1 and not votes:
                fewer = best.scenario._replace(lenders=best.scenario.lenders[:-1])
                if not fails(fewer):
                    break
            if best.scenario.standby:
                fails(best.scenario._replace(standby=False))
    except _SpentError:
        pass
    return Shrunk(best, runs)


def _leave_out(
    field: str, current: Callable[[], Scenario], fails: Callable[[Scenario], bool]
) -> None:
    size = max(1, len(getattr(current(), field)) // 2)
    while True:
        at = 0
        while at < len(getattr(current(), field)):
            items: Sequence[object] = getattr(current(), field)
            left = (*items[:at], *items[at + size :])
            if not fails(current()._replace(**{field: left})):
                at += size
        if size == 1:
            return
        size //= 2
