"""Keys by a number, lowest first: what is due when, whose turn it is."""

from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Generic, TypeVar

_SLACK = 64

K = TypeVar("K", bound=tuple[Any, ...] | str | int)


class PriorityMap(Generic[K]):
    """Each key has one number; setting it again moves the key.

    A heap: moved and dropped entries stay in it until they surface, and it is rebuilt when they
    outnumber the living, so that memory is bounded by the keys.
    """

    __slots__ = ("_heap", "_number")

    def __init__(self) -> None:
        self._number: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []

    def __len__(self) -> int:
        return len(self._number)

    def __contains__(self, key: K) -> bool:
        return key in self._number

    def get(self, key: K, default: float) -> float:
        """Return the number of `key`, or `default`."""
        return self._number.get(key, default)

    def items(self) -> list[tuple[K, float]]:
        """Return all keys and their numbers, in no order."""
        return list(self._number.items())

    def set(self, key: K, number: float) -> None:
        """Put `key` at `number`."""
        if self._number.get(key) == number:
            return
        self._number[key] = number
        heappush(self._heap, (number, key))
        if len(self._heap) > 2 * len(self._number) + _SLACK:
            self._heap = [(held, one) for one, held in self._number.items()]
            heapify(self._heap)

    def raise_first(self, number: float) -> None:
        """Put the key that `first` has just returned at `number`, which is higher."""
        key = self._heap[0][1]
        self._number[key] = number
        heapreplace(self._heap, (number, key))

    def drop(self, key: K) -> None:
        """Remove `key`, if it is there."""
        self._number.pop(key, None)

    def first(self) -> tuple[float, K] | None:
        """Return the lowest number and its key, or None when empty."""
        heap, number = self._heap, self._number
        while heap:
            entry = heap[0]
            if number.get(entry[1]) == entry[0]:
                return entry
            heappop(heap)
        return None
