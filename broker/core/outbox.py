"""Effects in order: what may leave at once, and what only after a commit."""

from collections import deque
from collections.abc import Iterable

from broker.core.effects import Commit, Effect, Record


class Outbox:
    """Collects effects; those that tell of a result wait until it is durable.

    Commits land in order, so that an effect that is held back until the newest commit is out
    has everything that was decided before it durable as well.
    """

    def __init__(self) -> None:
        self._ready: list[Effect] = []
        self._in_flight: deque[tuple[int, list[Effect]]] = deque()
        self._tokens = 0

    def emit(self, effect: Effect) -> None:
        """Let `effect` leave now."""
        self._ready.append(effect)

    def commit(self, records: Iterable[Record]) -> int:
        """Commit `records` atomically; returns the commit's token."""
        self._tokens += 1
        self._in_flight.append((self._tokens, []))
        self._ready.append(Commit(self._tokens, tuple(records)))
        return self._tokens

    def after_commit(self, effect: Effect) -> None:
        """Let `effect` leave once everything committed so far is durable."""
        if self._in_flight:
            self._in_flight[-1][1].append(effect)
        else:
            self._ready.append(effect)

    def committed(self, token: int) -> None:
        """Release what waited for this commit.

        Raises:
            RuntimeError: tokens came back out of order, which is the service's mistake.
        """
        if not self._in_flight or self._in_flight[0][0] != token:
            raise RuntimeError(f"Committed({token}) is not the oldest commit in flight")
        self._ready += self._in_flight.popleft()[1]

    def drain(self) -> list[Effect]:
        """Return and forget the effects that may leave."""
        ready, self._ready = self._ready, []
        return ready
