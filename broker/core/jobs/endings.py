"""How jobs have ended, remembered in 16 bytes each: of about a million jobs, the last to end."""

from array import array
from bisect import bisect_left
from collections import deque
from hashlib import blake2b
from typing import Final, NamedTuple

from broker.core.jobs.job import JobKey
from lender.protocol.result import TerminalState

ENTRIES_MAX = 1 << 20
"""Of all submitters together."""

PAGE_ENTRIES_MIN = 256

_PAGE_PART = 16
_STATES: Final[tuple[TerminalState, ...]] = (
    "succeeded",
    "failed",
    "cancelled",
    "rejected",
    "expired",
)


class Ended(NamedTuple):
    """How a job has ended, and when: whole seconds since the epoch."""

    state: TerminalState
    at: int


class Endings:
    """The last jobs of each submitter that have ended, by digests of their names.

    Where there are too many, whoever has most forgets its oldest: nobody's are crowded out by
    another's, as long as they are no more than everybody's share. Two names share a digest of 64
    bits in one of 10**7 memories of a million jobs, and only if somebody asks.
    """

    def __init__(
        self, entries_max: int = ENTRIES_MAX, page_entries_min: int = PAGE_ENTRIES_MIN
    ) -> None:
        """Start with nothing known; a submitter forgets about a sixteenth of its own at a time.

        Args:
            entries_max: how many are remembered, of all submitters.
            page_entries_min: fewer than these are forgotten one by one.
        """
        self._entries_max = entries_max
        self._page_entries_min = page_entries_min
        self._of: dict[str, _EndingsOfOne] = {}
        self._count = 0

    def note(self, key: JobKey, state: TerminalState, at: float) -> None:
        """Remember how a job has ended."""
        of_one = self._of.get(key.submitter)
        if of_one is None:
            of_one = self._of[key.submitter] = _EndingsOfOne(self._page_entries_min)
        self._count -= of_one.count
        of_one.note(_digest(key), int(at) * len(_STATES) + _STATES.index(state))
        self._count += of_one.count
        while self._count > self._entries_max:
            self._count -= max(self._of.values(), key=_count_of).forget_oldest()

    def get(self, key: JobKey) -> Ended | None:
        """Return how a job has ended, if that is remembered."""
        of_one = self._of.get(key.submitter)
        packed = of_one.get(_digest(key)) if of_one is not None else None
        if packed is None:
            return None
        at, state = divmod(packed, len(_STATES))
        return Ended(_STATES[state], at)


class _EndingsOfOne:
    """One submitter's: new ones are in a table; whenever that is full it becomes a sorted page."""

    __slots__ = ("_newest", "_page_entries_min", "_pages", "count")

    def __init__(self, page_entries_min: int) -> None:
        self._page_entries_min = page_entries_min
        self._newest: dict[int, int] = {}
        self._pages: deque[tuple[array[int], array[int]]] = deque()
        self.count = 0
        """What was noted twice may count twice."""

    def note(self, digest: int, packed: int) -> None:
        self.count += digest not in self._newest
        self._newest[digest] = packed
        if len(self._newest) >= max(self._page_entries_min, self.count // _PAGE_PART):
            digests = array("Q", sorted(self._newest))
            packed_too = array("Q", [self._newest[one] for one in digests])
            self._pages.appendleft((digests, packed_too))
            self._newest = {}

    def get(self, digest: int) -> int | None:
        packed = self._newest.get(digest)
        return self._in_pages(digest) if packed is None else packed

    def forget_oldest(self) -> int:
        """Forget a page, or one where there is none; returns how many were forgotten."""
        if self._pages:
            forgotten = len(self._pages.pop()[0])
        else:
            del self._newest[next(iter(self._newest))]
            forgotten = 1
        self.count -= forgotten
        return forgotten

    def _in_pages(self, digest: int) -> int | None:
        for digests, packed in self._pages:
            at = bisect_left(digests, digest)
            if at < len(digests) and digests[at] == digest:
                return packed[at]
        return None


def _count_of(of_one: _EndingsOfOne) -> int:
    return of_one.count


def _digest(key: JobKey) -> int:
    return int.from_bytes(blake2b(".".join(key).encode(), digest_size=8).digest(), "big")
