"""How many tasks of one need could run at the same time, and where."""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace

from broker.core.matching.lender import Lender
from broker.core.matching.need import Need


def free_places(
    lenders: Iterable[Lender], need: Need, waiting: AbstractSet[str], wanted: int
) -> Iterator[str]:
    """Yield a lender for each place that is free, up to `wanted`.

    That is room which no lease is counted to, at lenders that nothing waits for: of the `waiting`
    classes a lender takes what comes first, wherever we count it.
    """
    for lender in lenders:
        if lender.lends.cores < need.cores or not lender.allows(need) or not lender.spares(need):
            continue
        times = need.times_within(lender.unclaimed)
        if times and waiting.isdisjoint(lender.classes):
            for _ in range(min(times, wanted)):
                yield lender.id
            wanted -= min(times, wanted)
            if not wanted:
                return


def lent_places(lenders: Iterable[Lender], need: Need, wanted: int) -> int:
    """Return how many there are now, if nothing else ran; no more than `wanted` are counted."""
    places = 0
    for lender in lenders:
        if lender.lends.cores >= need.cores and lender.allows(need):
            places += need.times_within(lender.lends)
            if places >= wanted:
                return wanted
    return places


def places_ever(lenders: Iterable[Lender], need: Need) -> int:
    """Return how many there are when all owners lend the most that they ever had to lend.

    Of cores that is what they say: a lease that is over, and not answered for yet, is offered
    beside the core that it has freed.
    """
    return sum(
        need.times_within(replace(one.most, cores=one.offer.slots_total))
        for one in lenders
        if one.allows(need)
    )
