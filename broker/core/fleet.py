"""What the lenders offer, as last heard, and how much work may wait for each."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from lender.protocol.lease import Offer

OFFER_TTL_S = 12.5
"""An idle lender offers every 5 s; silent for this long, it is gone."""

FEED_PER_SLOT = 2
"""Leases outstanding per usable slot: one runs, one waits in the queue."""


@dataclass(slots=True, eq=False)
class Lender:
    """One lender's last offer, and the outstanding leases counted to it."""

    id: str
    offer: Offer
    classes: frozenset[str]
    heard_at: float
    claims: set[str] = field(default_factory=set)
    reminded_at: float = 0.0

    @property
    def slots(self) -> int:
        """Usable slots: free ones, and those in use by leases; none while it takes no work."""
        if self.offer.phase != "lending":
            return 0
        return self.offer.slots_free + len(self.offer.leases)

    @property
    def has_room(self) -> bool:
        """Whether one more lease may wait for it."""
        return len(self.claims) < FEED_PER_SLOT * self.slots


class Fleet:
    """The lenders heard of lately.

    Each outstanding lease claims room at one lender: its holder, or, while it waits in the
    queue, one of those that may take it. So the queues together are never deeper than about
    twice the usable slots, however many classes share a machine.
    """

    def __init__(self) -> None:
        self._lenders: dict[str, Lender] = {}
        self._by_class: dict[str, dict[str, Lender]] = {}
        self._roomy: dict[str, dict[str, Lender]] = {}
        self._slots: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._lenders)

    def get(self, lender_id: str) -> Lender | None:
        """Return a lender that has been heard of lately."""
        return self._lenders.get(lender_id)

    def __iter__(self) -> Iterator[Lender]:
        return iter(self._lenders.values())

    def of_class(self, class_token: str) -> Iterable[Lender]:
        """Return the lenders whose offers list the class."""
        return self._by_class.get(class_token, {}).values()

    def slots_of(self, class_token: str) -> int:
        """Return the usable slots of all lenders that list the class."""
        return self._slots.get(class_token, 0)

    def hear(self, now: float, offer: Offer) -> tuple[Lender, frozenset[str]]:
        """Take up an offer; returns the lender, and which classes it did not list before."""
        lender = self._lenders.get(offer.lender)
        if lender is None:
            lender = Lender(offer.lender, offer, frozenset(), now)
            self._lenders[offer.lender] = lender
        before, slots_before = lender.classes, lender.slots
        self._set_roomy(lender, roomy=False)
        lender.heard_at = now
        lender.offer = offer
        lender.classes = frozenset(offer.classes)
        for token in before - lender.classes:
            self._unlist(token, lender, slots_before)
        added = lender.classes - before
        for token in added:
            self._by_class.setdefault(token, {})[lender.id] = lender
            self._slots[token] = self._slots.get(token, 0) + lender.slots
        if lender.slots != slots_before:
            for token in lender.classes & before:
                self._slots[token] += lender.slots - slots_before
        self._set_roomy(lender, roomy=lender.has_room)
        return lender, added

    def forget(self, lender_id: str) -> set[str]:
        """Drop a lender that is gone; returns the leases that were counted to it."""
        lender = self._lenders.pop(lender_id)
        self._set_roomy(lender, roomy=False)
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

    def choose(self, class_token: str, avoided: Callable[[str], bool] | None) -> str | None:
        """Return a lender with room for one more lease of the class, or None.

        One that is avoided is chosen only where all lenders of the class are.
        """
        roomy = self._roomy.get(class_token, {})
        if avoided is None:
            return next(iter(roomy), None)
        for lender_id in roomy:
            if not avoided(lender_id):
                return lender_id
        if all(avoided(lender_id) for lender_id in self._by_class.get(class_token, ())):
            return next(iter(roomy), None)
        return None

    def claim(self, lender_id: str, lease_id: str) -> None:
        """Count an outstanding lease to a lender."""
        lender = self._lenders[lender_id]
        lender.claims.add(lease_id)
        if not lender.has_room:
            self._set_roomy(lender, roomy=False)

    def release(self, lender_id: str, lease_id: str) -> None:
        """Count it to the lender no longer."""
        lender = self._lenders[lender_id]
        lender.claims.discard(lease_id)
        if lender.has_room:
            self._set_roomy(lender, roomy=True)

    def _set_roomy(self, lender: Lender, *, roomy: bool) -> None:
        for token in lender.classes:
            if roomy:
                self._roomy.setdefault(token, {})[lender.id] = lender
            elif token in self._roomy:
                self._roomy[token].pop(lender.id, None)
                if not self._roomy[token]:
                    del self._roomy[token]

    def _unlist(self, token: str, lender: Lender, slots: int) -> None:
        listed = self._by_class[token]
        del listed[lender.id]
        self._slots[token] -= slots
        if not listed:
            del self._by_class[token], self._slots[token]
