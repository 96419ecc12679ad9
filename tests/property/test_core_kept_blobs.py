"""Kept blobs stay within their limit, and only what nobody needs makes room, the oldest first."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lender.core.kept_blobs import COUNTED_BYTES_MIN, BlobCopy, KeptBlobs, NoRoomError

BLOBS = st.builds(BlobCopy, st.sampled_from(["alice", "bob"]), st.sampled_from("abcd"))
SIZES = st.integers(0, 8).map(lambda units: units * COUNTED_BYTES_MIN)
LIMITS = st.integers(1, 12).map(lambda units: units * COUNTED_BYTES_MIN)


def counted(size_bytes: int) -> int:
    return max(size_bytes, COUNTED_BYTES_MIN)


class Shelf(RuleBasedStateMachine):
    """The same told twice: here as a plain list in the order of use."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = KeptBlobs()
        self.model: list[tuple[BlobCopy, int]] = []
        self.held = Counter[BlobCopy]()

    def without(self, *gone: BlobCopy) -> list[tuple[BlobCopy, int]]:
        return [one for one in self.model if one[0] not in gone]

    def total(self) -> int:
        return sum(counted_bytes for _blob, counted_bytes in self.model)

    def check_dropped(self, dropped: list[BlobCopy], limit_bytes: int) -> None:
        """What `dropped` leaves of the model, if it was the right thing to drop."""
        free = [blob for blob, _ in self.model if not self.held[blob]]
        assert dropped == free[: len(dropped)]
        before = dict(self.model)
        self.model = self.without(*dropped)
        if dropped:
            assert self.total() + before[dropped[-1]] > limit_bytes
        if len(dropped) < len(free):
            assert self.total() <= limit_bytes

    @rule(count=st.integers(0, 4), units=st.integers(0, 4))
    def largest(self, count: int, units: int) -> None:
        size_bytes_min = units * COUNTED_BYTES_MIN
        large = [one for one in self.model if one[1] >= size_bytes_min]
        found = self.kept.largest(count, size_bytes_min)
        sizes = [dict(large)[blob] for blob in found]
        assert sizes == sorted((one[1] for one in large), reverse=True)[:count]

    @rule(blob=BLOBS)
    def hold(self, blob: BlobCopy) -> None:
        self.kept.hold(blob)
        self.held[blob] += 1

    @precondition(lambda self: self.held.total())
    @rule(data=st.data())
    def release(self, data: Any) -> None:  # noqa: ANN401 - hypothesis names no type for it
        blob = data.draw(st.sampled_from(sorted(self.held.elements())))
        self.kept.release(blob)
        self.held[blob] -= 1

    @rule(blob=BLOBS, size_bytes=SIZES)
    def keep(self, blob: BlobCopy, size_bytes: int) -> None:
        self.kept.keep(blob, size_bytes)
        self.model = [*self.without(blob), (blob, counted(size_bytes))]

    @rule(blob=BLOBS)
    def forget(self, blob: BlobCopy) -> None:
        self.kept.forget(blob)
        self.model = self.without(blob)

    @rule(blob=BLOBS, size_bytes=SIZES, limit_bytes=LIMITS)
    def make_room(self, blob: BlobCopy, size_bytes: int, limit_bytes: int) -> None:
        in_use_bytes = sum(size for one, size in self.without(blob) if self.held[one])
        if in_use_bytes + counted(size_bytes) > limit_bytes:
            with pytest.raises(NoRoomError) as refused:
                self.kept.make_room(blob, size_bytes, limit_bytes)
            assert refused.value.limit_bytes == limit_bytes
            assert refused.value.in_use_bytes == in_use_bytes
            return
        dropped = self.kept.make_room(blob, size_bytes, limit_bytes)
        assert blob not in dropped
        self.model = [*self.without(blob), (blob, counted(size_bytes))]
        self.check_dropped(dropped, limit_bytes)
        assert self.total() <= limit_bytes

    @rule(limit_bytes=LIMITS)
    def shrink(self, limit_bytes: int) -> None:
        self.check_dropped(self.kept.shrink(limit_bytes), limit_bytes)

    @invariant()
    def both_tell_the_same(self) -> None:
        assert list(self.kept) == [blob for blob, _ in self.model]
        assert self.kept.total_bytes == self.total()


Shelf.TestCase.settings = settings(max_examples=30, stateful_step_count=25)
TestShelf = Shelf.TestCase
