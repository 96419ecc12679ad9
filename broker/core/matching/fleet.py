"""What the lenders offer, as last heard, and how much work may wait for each."""

from collections.abc import Iterable, Iterator

from broker.core.matching.lender import Lender
from broker.core.matching.need import Amounts, Need
from broker.core.matching.shelf import Shelf
from broker.core.matching.stays import TIERS, Stays, tier_of
from lender.protocol.lease import Offer

OFFER_TTL_S = 12.5
"""An idle lender offers every 5 s; silent for this long, it is gone."""


class Fleet:
    """The lenders heard of lately.

    Each outstanding lease claims room at one lender: its holder, or, while it waits in the
    queue, one of those that may take it. So the queues together are never deeper than about
    twice what can be lent, however many classes share a machine.

    Lenders with room stand on a shelf by their expected stay. Whatever changes at a lender costs
    the same however many lenders, classes and jobs there are.
    """

    def __init__(self) -> None:
        self._lenders: dict[str, Lender] = {}
        self._by_class: dict[str, dict[str, Lender]] = {}
        self._slots: dict[str, int] = {}
        self._stays = Stays()
        self._fresh: dict[str, Lender] = {}
        self.shelves = tuple(Shelf() for _ in range(TIERS))
        self.lends = Amounts()
        """What all lenders together can lend now; of disks nothing is known."""

    def __len__(self) -> int:
        return len(self._lenders)

    def __iter__(self) -> Iterator[Lender]:
        return iter(self._lenders.values())

    def get(self, lender_id: str) -> Lender | None:
        """Return a lender that has been heard of lately."""
        return self._lenders.get(lender_id)

    def of_class(self, class_token: str) -> Iterable[Lender]:
        """Return the lenders whose offers list the class."""
        return self._by_class.get(class_token, {}).values()

    def count_of(self, class_token: str) -> int:
        """Return how many those are."""
        return len(self._by_class.get(class_token, ()))

    def slots_of(self, class_token: str) -> int:
        """Return the usable slots of all lenders that list the class."""
        return self._slots.get(class_token, 0)

    def take_fresh(self) -> list[Lender]:
        """Return and forget the lenders that have got room since this was last asked."""
        if not self._fresh:
            return []
        fresh = [lender for lender in self._fresh.values() if lender.has_room]
        self._fresh = {}
        return fresh

    def hear(self, now: float, offer: Offer, held: Iterable[Need]) -> tuple[Lender, frozenset[str]]:
        """Take up an offer; returns the lender, and which classes it did not list before.

        Args:
            now: seconds since the epoch.
            offer: as sent.
            held: what the leases need that it lists, as far as they are known.
        """
        lender = self._lenders.get(offer.lender)
        if lender is None:
            lender = self._lenders[offer.lender] = Lender(offer.lender, offer, now)
        classes, slots, lends = lender.classes, lender.slots, lender.lends
        grown = lender.hear(now, offer, held)
        self._count_lends(lends, lender.lends)
        if lender.classes is not classes or lender.slots != slots:
            self._list_classes(lender, classes, slots)
        if offer.phase == "lending":
            self._stays.begin(lender.id, now)
        else:
            self._stays.end(lender.id, now)
        tier = tier_of(self._stays.expected_s(lender.id, now, offer.stay_s))
        self._stand(lender, tier, grown=grown)
        return lender, frozenset() if lender.classes is classes else lender.classes - classes

    def forget(self, lender_id: str) -> Iterable[str]:
        """Drop a lender that is gone; returns the leases that were counted to it."""
        lender = self._lenders.pop(lender_id)
        self._stays.end(lender_id, lender.heard_at)
        self._fresh.pop(lender_id, None)
        if lender.place is not None:
            self.shelves[lender.tier].drop(lender)
        self._count_lends(lender.lends, Amounts())
        for token in lender.classes:
            self._unlist(token, lender, lender.slots)
        return lender.claims

    def hear_all(self, at: float) -> None:
        """Take every lender as heard at `at`, where nobody could be heard."""
        for lender in self._lenders.values():
            lender.heard_at = at

    def shift(self, by_s: float) -> None:
        """Move what was noted by the clock, after the clock itself has been moved."""
        for lender in self._lenders.values():
            lender.heard_at += by_s
            lender.reminded_at += by_s
        self._stays.shift(by_s)

    def claim(self, lender_id: str, lease_id: str, need: Need) -> None:
        """Count an outstanding lease to a lender."""
        lender = self._lenders[lender_id]
        lender.claim(lease_id, need)
        if lender.place is not None and not lender.has_room:
            self.shelves[lender.tier].drop(lender)

    def release(self, lender_id: str, lease_id: str) -> None:
        """Count it to the lender no longer."""
        lender = self._lenders[lender_id]
        if lender.release(lease_id):
            self._stand(lender, lender.tier, grown=True)

    def _stand(self, lender: Lender, tier: int, *, grown: bool) -> None:
        """Put a lender where it belongs: at a shelf's end if groups are to look at it anew."""
        if lender.place is not None:
            if lender.has_room and lender.tier == tier and not grown:
                return
            self.shelves[lender.tier].drop(lender)
        lender.tier = tier
        if lender.has_room:
            self.shelves[tier].put(lender)
            self._fresh[lender.id] = lender

    def _count_lends(self, before: Amounts, after: Amounts) -> None:
        if before == after:
            return
        lends = self.lends
        self.lends = Amounts(
            lends.cores + after.cores - before.cores,
            lends.memory_bytes + after.memory_bytes - before.memory_bytes,
            0,
            lends.vram_bytes + after.vram_bytes - before.vram_bytes,
        )

    def _list_classes(self, lender: Lender, before: frozenset[str], slots_before: int) -> None:
        kept = before
        if lender.classes is not before:
            kept = lender.classes & before
            for token in before - kept:
                self._unlist(token, lender, slots_before)
            for token in lender.classes - kept:
                self._by_class.setdefault(token, {})[lender.id] = lender
                self._slots[token] = self._slots.get(token, 0) + lender.slots
        more = lender.slots - slots_before
        if more:
            for token in kept:
                self._slots[token] += more

    def _unlist(self, token: str, lender: Lender, slots: int) -> None:
        listed = self._by_class[token]
        del listed[lender.id]
        self._slots[token] -= slots
        if not listed:
            del self._by_class[token], self._slots[token]
