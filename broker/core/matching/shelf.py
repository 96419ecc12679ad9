"""Lenders with room, in the order in which they got it, so that nobody looks twice at one."""

from broker.core.matching.lender import Lender

_SLACK = 64


class Shelf:
    """A list with gaps: each lender has a number that only grows.

    A group that has looked at everything up to a number goes on from there: whatever gets room
    anew, or changes, is put at the end. When half are gaps the rest is put there too.
    """

    __slots__ = ("_gaps", "first", "lenders")

    def __init__(self) -> None:
        self.lenders: list[Lender | None] = []
        self.first = 0
        """The number of the list's first entry."""
        self._gaps = 0

    @property
    def end(self) -> int:
        """The number of the next lender."""
        return self.first + len(self.lenders)

    def put(self, lender: Lender) -> None:
        """Put a lender at the end, that is on no shelf."""
        lender.place = self.end
        self.lenders.append(lender)

    def drop(self, lender: Lender) -> None:
        """Take a lender off that is on this shelf."""
        assert lender.place is not None
        self.lenders[lender.place - self.first] = None
        lender.place = None
        self._gaps += 1
        if self._gaps == len(self.lenders) or 2 * self._gaps > len(self.lenders) + _SLACK:
            self._close_gaps()

    def _close_gaps(self) -> None:
        self.first += len(self.lenders)
        left = [one for one in self.lenders if one is not None]
        for place, lender in enumerate(left, self.first):
            lender.place = place
        self.lenders = list[Lender | None](left)
        self._gaps = 0
