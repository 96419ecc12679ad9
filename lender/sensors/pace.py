"""Asks a slow source no more often than it is worth."""

from collections.abc import Callable
from typing import Generic, TypeVar

Reading = TypeVar("Reading")


class Paced(Generic[Reading]):
    """A source that is asked at most every `every_s` seconds; between, its last answer stands."""

    def __init__(self, source: Callable[[], Reading], every_s: float) -> None:
        self._source = source
        self._every_s = every_s
        self._next_at = float("-inf")
        self._last: Reading

    def read(self, now: float) -> Reading:
        """The answer as of `now`, seconds of any steady clock."""
        if now >= self._next_at:
            self._last = self._source()
            self._next_at = now + self._every_s
        return self._last
