"""How much each attempt may move over the network: its share of what the budgets leave."""

from collections import Counter
from collections.abc import Iterable

from lender.core.effects import Effect
from lender.core.lease_run import LeaseRun
from lender.core.restraint import Restraint


def share_out(
    now: float, runs: Iterable[LeaseRun], restraint: Restraint, *, metered: bool
) -> list[Effect]:
    """Say to each how much it may move in all.

    What is left is divided among those that share a budget, and again with every reading of all of
    them; who has moved its share waits for the next. Added up no more is allowed than is left, as
    long as all were read at once: so where several share, nothing changes in between.

    Args:
        now: seconds since the epoch.
        runs: all attempts.
        restraint: knows the budgets, and what was moved.
        metered: all were read just now.
    """
    networked = [run for run in runs if run.has_network]
    if not networked:
        return []
    under = Counter(run.plan.grant.id for run in networked)
    effects: list[Effect] = []
    for run in networked:
        grant = run.plan.grant
        left = restraint.bytes_left(now, grant, among=under[grant.id], among_all=len(networked))
        if left is None:
            effects += run.allow_network(None)
        elif metered or len(networked) == 1:
            effects += run.allow_network(run.meter.network_bytes + left)
    return effects
