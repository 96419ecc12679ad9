"""Leases that not everybody may take, and that nobody has taken: how long they wait in a queue.

One in a lender's own queue waits for a moment. One that is closed to the owners who have, or had,
its tasks waits for as long as it is those: its message can't be changed, and once one of them has
given the tasks back, his machine may be the only one that is left for them.
"""

from typing import Final

from broker.core.copies import sharing
from broker.core.leasing.leases import Lease
from broker.core.state import Due, State
from lender.protocol.lease import barred_mark

TAKE_S: Final = 2.0
"""For a machine to take what is meant for it."""

CLOSED_LOOK_S: Final = 5.0
"""Between two looks at whom a lease is closed to: there may be many, with many tasks each."""

NOT_TAKEN: Final = "the machine that it was meant for did not take it"


def await_taking(state: State, lease: Lease, now: float) -> None:
    """See to it that a lease that somebody in particular may or may not take is looked at."""
    if lease.near is not None:
        state.due.set(Due("lease", (lease.id,)), now + TAKE_S)
    elif lease.not_for:
        state.due.set(Due("lease", (lease.id,)), now + CLOSED_LOOK_S)


def is_outdated(state: State, lease: Lease) -> bool:
    """Tell whether a lease is closed to others than those who have, or had, its tasks."""
    shared = state.jobs[lease.job].shared
    closed_to = set(lease.not_for)
    return any(
        task not in shared
        or closed_to != {barred_mark(lease.id, one) for one in sharing.owners(state, shared[task])}
        for task in sharing.indices(lease.open)
    )
