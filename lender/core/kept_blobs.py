"""Which blobs a lender keeps: the least recently used make room, none that running work needs."""

from collections import Counter
from collections.abc import Iterator
from heapq import nlargest
from operator import itemgetter
from typing import NamedTuple

COUNTED_BYTES_MIN = 64 * 1024
"""A smaller blob counts as this: what is kept is bounded in number too, 16,384 to a GiB."""


class BlobCopy(NamedTuple):
    """One submitter's copy of a blob: submitters share nothing."""

    submitter: str
    sha256: str


class NoRoomError(Exception):
    """A blob does not fit beside what running work needs.

    Attributes:
        limit_bytes: what may be kept in all.
        in_use_bytes: what of it running work needs; 0: the blob alone is too large.
    """

    def __init__(self, limit_bytes: int, in_use_bytes: int) -> None:
        super().__init__(f"{in_use_bytes} of {limit_bytes} bytes are in use")
        self.limit_bytes = limit_bytes
        self.in_use_bytes = in_use_bytes


class KeptBlobs:
    """What is kept in the order of its last use, and what running work holds of it.

    Holding and keeping are told apart: what is held need not have come yet.
    """

    def __init__(self) -> None:
        self._counted_bytes: dict[BlobCopy, int] = {}
        self._held: Counter[BlobCopy] = Counter()
        self._total_bytes = 0

    def __iter__(self) -> Iterator[BlobCopy]:
        """The least recently used first."""
        return iter(self._counted_bytes)

    @property
    def total_bytes(self) -> int:
        """What is kept counts as this, expected blobs included."""
        return self._total_bytes

    def largest(self, count: int, size_bytes_min: int) -> list[BlobCopy]:
        """Return up to `count` blobs of at least this size, the largest first."""
        large = (one for one in self._counted_bytes.items() if one[1] >= size_bytes_min)
        return [blob for blob, _ in nlargest(count, large, key=itemgetter(1))]

    def hold(self, blob: BlobCopy) -> None:
        """Never let it make room, until as many `release`s."""
        self._held[blob] += 1

    def release(self, blob: BlobCopy) -> None:
        """End one `hold`."""
        self._held[blob] -= 1
        if not self._held[blob]:
            del self._held[blob]

    def keep(self, blob: BlobCopy, size_bytes: int) -> None:
        """Take up that a blob lies there and is used now."""
        self.forget(blob)
        self._counted_bytes[blob] = _counted(size_bytes)
        self._total_bytes += _counted(size_bytes)

    def forget(self, blob: BlobCopy) -> None:
        """Take up that a blob is not there."""
        self._total_bytes -= self._counted_bytes.pop(blob, 0)

    def make_room(self, blob: BlobCopy, size_bytes: int, limit_bytes: int) -> list[BlobCopy]:
        """Expect a blob; return what is to be deleted for it, and is forgotten already.

        Raises:
            NoRoomError: it doesn't fit. Nothing makes room then.
        """
        in_use_bytes = sum(self._counted_bytes.get(one, 0) for one in self._held if one != blob)
        if in_use_bytes + _counted(size_bytes) > limit_bytes:
            raise NoRoomError(limit_bytes, in_use_bytes)
        # The last in the order: all others make room before it.
        self.keep(blob, size_bytes)
        return self.shrink(limit_bytes)

    def shrink(self, limit_bytes: int) -> list[BlobCopy]:
        """Return what is to be deleted to get down to a limit, and is forgotten already."""
        dropped, excess_bytes = [], self._total_bytes - limit_bytes
        for blob, counted_bytes in self._counted_bytes.items():
            if excess_bytes <= 0:
                break
            if blob not in self._held:
                dropped.append(blob)
                excess_bytes -= counted_bytes
        for blob in dropped:
            self.forget(blob)
        return dropped


def _counted(size_bytes: int) -> int:
    return max(size_bytes, COUNTED_BYTES_MIN)
