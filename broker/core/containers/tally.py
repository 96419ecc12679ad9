"""How many there are of each name."""

from collections import Counter


class Tally(Counter[str]):
    """Counts by name. A name that is dropped as often as it was added is not in it."""

    def add(self, name: str) -> None:
        """Count one more."""
        self[name] = self.get(name, 0) + 1

    def drop(self, name: str) -> None:
        """Count one less, of a name that is there."""
        left = self[name] - 1
        if left:
            self[name] = left
        else:
            del self[name]
