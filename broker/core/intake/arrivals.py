"""Which messages of the ledger have been taken up, while a reader of all goes ahead of some.

Messages are known by their sequence in the stream, and come in its order. The messages of a
submitter that has more waiting than it may are put off, and read again by themselves later.
"""

from broker.core.containers.ranges import RangeSet


class Arrivals:
    """Tells which message is to be taken when; each is once."""

    def __init__(self) -> None:
        self.position = 0
        """Sequence of the last message that the reader of all has seen."""
        self._owed: dict[str, RangeSet] = {}
        """By submitter: what was passed by. Others' messages may lie in these ranges."""
        self._run: dict[str, int] = {}
        """By submitter: its last message, where that was put off."""
        self._ahead: dict[str, int] = {}
        """By submitter: up to where it was read by itself, ahead of the reader of all."""

    @property
    def behind(self) -> tuple[str, ...]:
        """Submitters with messages that were put off."""
        return tuple(self._owed)

    def came(self, who: str, sequence: int) -> bool:
        """Take note of a message; returns whether it is to be taken up now."""
        self.position = sequence
        if sequence <= self._ahead.get(who, 0):
            return False
        self._ahead.pop(who, None)
        if who in self._owed:
            self.put_off(who, sequence)
            return False
        return True

    def put_off(self, who: str, sequence: int) -> None:
        """Read a message again later, and whatever the submitter sends after it."""
        owed = self._owed.setdefault(who, RangeSet())
        first = self._run.get(who, sequence - 1) + 1
        owed.add(first, sequence + 1 - first)
        self._run[who] = sequence

    def took_one(self, who: str) -> None:
        """A message was taken up that comes after others that were put off."""
        self._run.pop(who, None)

    def wanted_from(self, who: str) -> int:
        """Return from which sequence on a submitter's messages are to be read by themselves."""
        owed = self._owed.get(who)
        if owed is not None:
            return owed.first
        return max(self.position, self._ahead.get(who, 0)) + 1

    def wants(self, who: str, sequence: int) -> bool:
        """Tell whether a message that was read by itself is to be taken up."""
        owed = self._owed.get(who)
        if owed is not None:
            return sequence in owed
        return sequence >= self.wanted_from(who)

    def took(self, who: str, sequence: int) -> None:
        """All messages of a submitter up to this one have been looked at by themselves."""
        owed = self._owed.get(who)
        if owed is None:
            self._ahead[who] = max(sequence, self._ahead.get(who, 0))
            return
        owed.remove(0, sequence + 1)
        if not owed:
            del self._owed[who]
            self._run.pop(who, None)
