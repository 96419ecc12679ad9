"""Sets of task indices that cost memory by intervals, not by tasks."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from lender.protocol.job import TaskRange


class RangeSet:
    """A set of non-negative integers as sorted, disjoint, non-touching intervals.

    An untouched array of a million tasks is one interval. Each operation costs a binary search
    and, at worst, one move of the interval list.
    """

    __slots__ = ("_ends", "_size", "_starts")

    def __init__(self, ranges: Iterable[TaskRange] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # exclusive
        self._size = 0
        for first, count in ranges:
            self.add(first, count)

    @classmethod
    def of(cls, indices: Iterable[int]) -> "RangeSet":
        """Return the set of these, which come in any order; those that are sorted cost least."""
        if isinstance(indices, range) and indices.step == 1:
            return cls([(indices.start, len(indices))] if indices else ())
        one, end = cls(), -1
        for index in sorted(indices):
            if index == end:
                one._ends[-1] = end = index + 1
            elif index > end:
                one._starts.append(index)
                one._ends.append(end := index + 1)
        one._size = sum(one._ends) - sum(one._starts)
        return one

    def __len__(self) -> int:
        return self._size

    def __contains__(self, index: int) -> bool:
        at = bisect_right(self._starts, index) - 1
        return at >= 0 and index < self._ends[at]

    def __iter__(self) -> Iterator[TaskRange]:
        for start, end in zip(self._starts, self._ends, strict=True):
            yield start, end - start

    @property
    def first(self) -> int:
        """The lowest index of a set that is not empty."""
        return self._starts[0]

    @property
    def range_count(self) -> int:
        """Number of its intervals."""
        return len(self._starts)

    def holds(self, run: range) -> bool:
        """Tell whether all of a run of indices are in one of its intervals."""
        at = bisect_right(self._starts, run.start) - 1
        return at >= 0 and run.stop <= self._ends[at]

    def fits(self, count: int, ranges_max: int) -> bool:
        """Tell whether it has no more than so many indices, and intervals."""
        return self._size <= count and len(self._starts) <= ranges_max

    def pairs(self) -> tuple[TaskRange, ...]:
        """Return all ranges at once."""
        if len(self._starts) == 1:
            return ((self._starts[0], self._size),)
        return tuple(
            [(start, end - start) for start, end in zip(self._starts, self._ends, strict=True)]
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    def add(self, first: int, count: int = 1) -> None:
        """Add `count` indices from `first`; those already there stay."""
        low, high = first, first + count
        if not self._ends or low > self._ends[-1]:
            self._starts.append(low)
            self._ends.append(high)
            self._size += count
            return
        left = bisect_left(self._ends, low)  # touching neighbours are merged
        right = bisect_right(self._starts, high)
        if left < right:
            low = min(low, self._starts[left])
            high = max(high, self._ends[right - 1])
            self._size -= self._span(left, right)
        self._starts[left:right] = [low]
        self._ends[left:right] = [high]
        self._size += high - low

    def remove(self, first: int, count: int = 1) -> None:
        """Remove `count` indices from `first`; those not there are no matter."""
        low, high = first, first + count
        left = bisect_right(self._ends, low)
        right = bisect_left(self._starts, high)
        if left >= right:
            return
        kept_starts, kept_ends = [], []
        if self._starts[left] < low:
            kept_starts.append(self._starts[left])
            kept_ends.append(low)
        if self._ends[right - 1] > high:
            kept_starts.append(high)
            kept_ends.append(self._ends[right - 1])
        self._size -= self._span(left, right)
        self._starts[left:right] = kept_starts
        self._ends[left:right] = kept_ends
        self._size += sum(kept_ends) - sum(kept_starts)

    def add_all(self, other: Iterable[TaskRange]) -> None:
        """Add every range of `other`."""
        for first, count in other:
            self.add(first, count)

    def remove_all(self, other: Iterable[TaskRange]) -> None:
        """Remove every range of `other`."""
        for first, count in other:
            self.remove(first, count)

    def overlap(self, other: Iterable[TaskRange]) -> "RangeSet":
        """Return the indices that are in this set and in `other`."""
        common = RangeSet()
        for first, count in other:
            end = first + count
            left = bisect_right(self._ends, first)
            right = bisect_left(self._starts, end)
            for start, stop in zip(self._starts[left:right], self._ends[left:right], strict=True):
                low = max(start, first)
                common.add(low, min(stop, end) - low)
        return common

    def take(self, count: int, ranges_max: int) -> "RangeSet":
        """Remove and return the `count` lowest indices: fewer, where those make more ranges."""
        taken = RangeSet()
        whole = size = 0
        while whole < min(ranges_max, len(self._starts)):
            more = self._ends[whole] - self._starts[whole]
            if size + more > count:
                break
            size += more
            whole += 1
        taken._starts, self._starts = self._starts[:whole], self._starts[whole:]
        taken._ends, self._ends = self._ends[:whole], self._ends[whole:]
        if size < count and whole < ranges_max and self._starts:
            first = self._starts[0]
            taken._starts.append(first)
            taken._ends.append(first + count - size)
            self._starts[0] = first + count - size
            size = count
        taken._size = size
        self._size -= size
        return taken

    def _span(self, left: int, right: int) -> int:
        return sum(self._ends[left:right]) - sum(self._starts[left:right])
