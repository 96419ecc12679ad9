"""The lender's state, derived from consent, intent and signals; README.md shows the same table.

Every state may follow every other: what is derived has no history.
"""

from typing import Final, NamedTuple, cast

from lender.protocol.lease import LenderPhase


class Grounds(NamedTuple):
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


PRECEDENCE: Final = cast("tuple[LenderPhase, ...]", Grounds._fields)


def derive(grounds: Grounds) -> tuple[LenderPhase, str]:
    """Return the state and the reason for it, in words."""
    for phase, reason in zip(PRECEDENCE[:-1], grounds, strict=False):
        if reason is not None:
            return phase, reason
    return "lending", grounds.lending
