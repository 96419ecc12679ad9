"""Which lenders keep a pull waiting in the empty queue of a class, as far as is known."""

from collections import deque

from broker.core.leasing.leases import Lease


class Stands:
    """Lenders by class, and the leases that were left to them."""

    def __init__(self) -> None:
        self._until: dict[str, dict[str, float]] = {}
        self.left: dict[str, deque[tuple[float, Lease]]] = {}
        """Of each class those left lately, and when, in this order; most were taken since."""
        self.turn = 0
        """So many lenders were looked at for some that may stand."""

    def of(self, now: float, class_token: str) -> list[str]:
        """Return the lenders that stand in the queue of a class."""
        until = self._until.get(class_token, {})
        for lender in [one for one, at in until.items() if at <= now]:
            del until[lender]
        return list(until)

    def put(self, class_token: str, lender: str, until: float) -> None:
        """Note that a lender is counted on until then."""
        self._until.setdefault(class_token, {})[lender] = until

    def drop(self, class_token: str, lender: str) -> None:
        """Note that a lender stands there no more."""
        del self._until[class_token][lender]

    def forget(self, class_token: str) -> None:
        """Count on nobody any more."""
        self._until.pop(class_token, None)

    def shift(self, by_s: float) -> None:
        """Move what was noted by the clock, after the clock itself has been moved."""
        for until in self._until.values():
            for lender in until:
                until[lender] += by_s
        for token, left in self.left.items():
            self.left[token] = deque((at + by_s, lease) for at, lease in left)
