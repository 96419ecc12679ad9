"""How jobs have ended, remembered in 16 bytes each: of about a million jobs, the last to end."""

from array import array
from bisect import bisect_left
from collections import deque
from hashlib import blake2b
from typing import Final, NamedTuple

from broker.core.jobs.job import JobKey
from lender.protocol.result import TerminalState

PAGE_ENTRIES = 1 << 15
PAGES_MAX = 32

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
    """The last jobs that have ended, by digests of their names.

    New ones are in a table; whenever that is full it becomes a page, sorted. Two names share a
    digest of 64 bits in one of 10**7 memories of a million jobs, and only if somebody asks.
    """

    def __init__(self, page_entries: int = PAGE_ENTRIES, pages_max: int = PAGES_MAX) -> None:
        """Start with nothing known, and remember so much besides what is in the table."""
        self._page_entries = page_entries
        self._newest: dict[int, int] = {}
        self._pages: deque[tuple[array[int], array[int]]] = deque(maxlen=pages_max)

    def note(self, key: JobKey, state: TerminalState, at: float) -> None:
        """Remember how a job has ended; the oldest ones are forgotten a page at a time."""
        self._newest[_digest(key)] = int(at) * len(_STATES) + _STATES.index(state)
        if len(self._newest) >= self._page_entries:
            digests = array("Q", sorted(self._newest))
            packed = array("Q", [self._newest[digest] for digest in digests])
            self._pages.appendleft((digests, packed))
            self._newest = {}

    def get(self, key: JobKey) -> Ended | None:
        """Return how a job has ended, if that is remembered."""
        digest = _digest(key)
        packed = self._newest.get(digest)
        if packed is None:
            packed = self._in_pages(digest)
        if packed is None:
            return None
        at, state = divmod(packed, len(_STATES))
        return Ended(_STATES[state], at)

    def _in_pages(self, digest: int) -> int | None:
        for digests, packed in self._pages:
            at = bisect_left(digests, digest)
            if at < len(digests) and digests[at] == digest:
                return packed[at]
        return None


def _digest(key: JobKey) -> int:
    return int.from_bytes(blake2b(".".join(key).encode(), digest_size=8).digest(), "big")
