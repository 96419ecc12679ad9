"""Says of lenders that send more than is taken up."""

import logging
import time
from collections import Counter

logger = logging.getLogger(__name__)

TELL_S = 10.0
"""Between two lines of the log about it, whoever is concerned."""


class LeftOut:
    """Counts what was left out of each, and tells of it at once, and then now and then."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._tell_at = 0.0

    def note(self, lender: str) -> None:
        """Note that a word of a lender was left out."""
        self._counts[lender] += 1
        now = time.monotonic()
        if now < self._tell_at:
            return
        self._tell_at = now + TELL_S
        counts, self._counts = self._counts, Counter()
        for one, count in counts.items():
            logger.warning(
                "lender %s sends more than is taken up: %d of its messages were left out; a sound"
                " one repeats what matters, one that goes on had better lose its key",
                one,
                count,
            )
