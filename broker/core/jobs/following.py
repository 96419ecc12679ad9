"""Jobs go on, or end, when those that they waited for have ended."""

from typing import Final

from broker.core.jobs.lifecycle import Ending, end, release
from broker.core.state import Due, State
from lender.protocol.result import TerminalState

LOOKS_MAX = 1_000
"""Of waiting jobs that are looked at after one event: a million may wait for the same one."""

_NAMES_MAX = 6

_HOW: Final[dict[TerminalState, str]] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "was cancelled",
    "rejected": "was rejected",
    "expired": "expired",
}


def follow(state: State, now: float) -> None:
    """Take up what has become of jobs that others wait for."""
    verdicts, more = state.dependencies.decide(LOOKS_MAX)
    for verdict in verdicts:
        job = state.jobs[verdict.job]
        if verdict.missed is not None:
            name, how = verdict.missed
            reason = f"it was to run after the success of job {name}, which {_HOW[how]}"
            end(state, now, job, Ending("cancelled", "after", reason))
        elif verdict.circle:
            circle = " waits for ".join(_shortened(verdict.circle))
            end(state, now, job, Ending("rejected", "after", f"a circle: {circle}"))
        else:
            release(state, now, job)
    if more:
        state.due.set(Due("follow", ()), now)


def _shortened(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) <= _NAMES_MAX:
        return names
    return (*names[:3], f"{len(names) - _NAMES_MAX + 1} others in turn", *names[-2:])
