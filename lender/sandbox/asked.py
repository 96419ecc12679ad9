"""What a sandbox was asked for, and what has come back: first asked, first answered. Pure."""

from collections import deque
from collections.abc import Sequence
from itertools import chain, islice
from typing import Final

from lender.sandbox.frames import Frame

PLAN: Final = -1
"""The first thing that a sandbox is asked: to be ready. Tasks are numbered from 0."""


class Asked:
    """The questions of one sandbox that nobody has the answer of yet.

    Args:
        ahead_max: how many tasks it may know of behind the one that it works at.
        known_max: how many may have been asked for behind the one that is waited for, those with
            an answer included.

    Attributes:
        early_bytes: what the bodies of answers take that nobody has taken yet.
    """

    def __init__(self, ahead_max: int, known_max: int) -> None:
        self._ahead_max = ahead_max
        self._known_max = known_max
        self._asked = deque[int]()
        self._early = deque[Frame]()
        self.early_bytes = 0

    @property
    def at_work(self) -> int | None:
        """What it works on: all before it has been answered."""
        here = len(self._early)
        return self._asked[here] if here < len(self._asked) else None

    def __len__(self) -> int:
        return len(self._asked)

    def want(self, task: int, ahead: Sequence[int] = ()) -> list[int]:
        """What to ask now, so that it finds work whenever it is done with something.

        Args:
            task: the one whose answer is waited for next.
            ahead: those behind it, in their order; what was told of them before holds.
        """
        known = len(self._asked)
        left = known - len(self._early)
        # Not one by one: several are one message.
        if left > self._ahead_max // 2:
            return []
        until = 1 + min(known - left + self._ahead_max, self._known_max)
        more = list(islice(chain((task,), ahead), known, until))
        self._asked += more
        return more

    def hear(self, answer: Frame) -> bool:
        """It has answered; False when it was asked for nothing more."""
        if len(self._early) >= len(self._asked):
            return False
        self._early.append(answer)
        self.early_bytes += len(answer.body)
        return True

    def take(self) -> Frame | None:
        """The next answer, in the order of the questions; None when it has not come."""
        if not self._early:
            return None
        self._asked.popleft()
        answer = self._early.popleft()
        self.early_bytes -= len(answer.body)
        return answer

    def forget(self) -> None:
        """Nobody is left who would answer."""
        self._asked.clear()
        self._early.clear()
        self.early_bytes = 0
