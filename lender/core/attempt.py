"""The life of an attempt on this machine, as one table. README.md shows the same table."""

from collections.abc import Mapping
from typing import Final, Literal

from lender.core.errors import IllegalTransitionError

AttemptState = Literal[
    "assigned",
    "preparing",
    "running",
    "frozen",
    "succeeded",
    "failed",
    "evicted",
    "revoked",
    "lost",
]

TRANSITIONS: Final[Mapping[AttemptState, frozenset[AttemptState]]] = {
    "assigned": frozenset({"preparing", "evicted"}),
    "preparing": frozenset({"running", "frozen", "failed", "evicted", "revoked", "lost"}),
    "running": frozenset({"frozen", "succeeded", "failed", "evicted", "revoked", "lost"}),
    # A last result may be on its way while the sandbox is frozen.
    "frozen": frozenset(
        {"preparing", "running", "succeeded", "failed", "evicted", "revoked", "lost"}
    ),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "evicted": frozenset(),
    "revoked": frozenset(),
    "lost": frozenset(),
}


def step(state: AttemptState, to: AttemptState) -> AttemptState:
    """Return `to`.

    Raises:
        IllegalTransitionError: the table holds no such step.
    """
    if to not in TRANSITIONS[state]:
        raise IllegalTransitionError("attempt", state, to)
    return to
