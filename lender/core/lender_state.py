"""The lender's state, derived from consent, intent and signals. README.md shows the same tables."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, cast

from lender.core.errors import IllegalTransitionError
from lender.protocol.lease import LenderPhase


@dataclass(frozen=True, slots=True)
class Grounds:
    """Why the lender might not lend, in words; None where it does not hold.

    The order of the fields is the precedence: the first that holds names the state, so the
    owner's own word is always told first. `lending` always holds.
    """

    paused: str | None
    unconsented: str | None
    draining: str | None
    offline: str | None
    yielding: str | None
    lending: str


TRANSITIONS: Final[Mapping[LenderPhase, frozenset[LenderPhase]]] = {
    "paused": frozenset({"unconsented", "draining", "offline", "yielding", "lending"}),
    "unconsented": frozenset({"paused", "draining", "offline", "yielding", "lending"}),
    "draining": frozenset({"paused", "unconsented", "offline", "yielding", "lending"}),
    "offline": frozenset({"paused", "unconsented", "draining", "yielding", "lending"}),
    "yielding": frozenset({"paused", "unconsented", "draining", "offline", "lending"}),
    "lending": frozenset({"paused", "unconsented", "draining", "offline", "yielding"}),
}

PRECEDENCE: Final = cast("tuple[LenderPhase, ...]", tuple(one.name for one in fields(Grounds)))


def derive(grounds: Grounds) -> tuple[LenderPhase, str]:
    """Return the state and the reason for it, in words."""
    for phase in PRECEDENCE[:-1]:
        reason = getattr(grounds, phase)
        if reason is not None:
            return phase, reason
    return "lending", grounds.lending


def step(phase: LenderPhase, to: LenderPhase) -> LenderPhase:
    """Return `to`; staying is always legal.

    Raises:
        IllegalTransitionError: the table holds no such step.
    """
    if to != phase and to not in TRANSITIONS[phase]:
        raise IllegalTransitionError("lender", phase, to)
    return to
