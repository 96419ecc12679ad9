"""Python's search for garbage, such that what waits makes no job dearer.

CPython frees by counting references; its collector looks only for what refers to itself in a
circle. By itself it looks through all that is old each time a quarter more has grown old: beside a
million jobs that is seconds in which nobody is heard, for nothing, since the core makes no circles.
What makes some is around it: connections that end, exceptions that hold their own frames. Most of
that is young. So the young are looked through as ever, in larger portions, and the old only once
memory has become several times what it was, by which is bounded what is not found until then. Where
the collector looks through the old in small parts (Python 3.14) it finds most before.

Measured in docs/decisions/0034.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from typing import Final

import psutil

YOUNG: Final = 10_000
"""Objects more than before until the youngest are looked through."""

_MIDDLE = 10
_NEVER = 2**31 - 1
"""Times that the middle ones are looked through, before the old ones are."""

GROWTH: Final = 4.0
"""All is looked through when memory has become so many times what it was after the last look."""

LOOK_S: Final = 1.0
"""Between two readings of it."""


def resident_bytes() -> int:
    """Return how much memory this process has."""
    return int(psutil.Process().memory_info().rss)


class Garbage:
    """When this process looks through all of its objects."""

    def __init__(
        self,
        memory_bytes: Callable[[], int] = resident_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look through all of it now, and from now on as is said above."""
        self._memory_bytes = memory_bytes
        self._clock = clock
        self._most_bytes, self._look_at = 0, 0.0
        gc.set_threshold(YOUNG, _MIDDLE, _NEVER)
        self._collect()

    def look(self) -> float:
        """Look through everything if it is time; returns the seconds that it took."""
        now = self._clock()
        if now < self._look_at:
            return 0.0
        self._look_at = now + LOOK_S
        if self._memory_bytes() < self._most_bytes:
            return 0.0
        self._collect()
        return self._clock() - now

    @contextlib.contextmanager
    def held_off(self) -> Iterator[None]:
        """Look for none meanwhile: a replay makes millions of objects that stay."""
        gc.disable()
        try:
            yield
        finally:
            gc.freeze()
            gc.enable()
            self._bound()

    def _collect(self) -> None:
        gc.unfreeze()
        gc.collect()
        self._bound()

    def _bound(self) -> None:
        self._most_bytes = int(GROWTH * self._memory_bytes())
        self._look_at = self._clock() + LOOK_S
