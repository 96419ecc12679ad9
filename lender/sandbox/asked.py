"""What a sandbox was asked for, and what has come back: first asked, first answered. Pure."""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from lender.sandbox.plan import TaskOutcome


class Asked:
    """The questions of one sandbox that nobody has the answer of yet.

    Args:
        ahead_max: how many tasks it may know of behind the one that it works at.
        known_max: how many may have been asked for behind the one that is waited for, those with
            an answer included.
    """

    def __init__(self, ahead_max: int, known_max: int) -> None:
        self._ahead_max = ahead_max
        self._known_max = known_max
        self._asked = deque[int]()
        self._early = deque[TaskOutcome]()

    @property
    def at_work(self) -> int | None:
        """What it works on: all before it has been answered."""
        here = len(self._early)
        return self._asked[here] if here < len(self._asked) else None

    @property
    def early(self) -> int:
        """Answers that nobody has taken yet."""
        return len(self._early)

    def __len__(self) -> int:
        return len(self._asked)

    def want(self, tasks: Sequence[int]) -> Sequence[int]:
        """What to ask now, so that it finds work whenever it is done with something.

        Args:
            tasks: the one whose answer is waited for next, and those behind it, in their order;
                what was told of them before holds.
        """
        known = len(self._asked)
        left = known - len(self._early)
        # Not one by one: several are one message.
        if left > self._ahead_max // 2:
            return ()
        until = 1 + min(known - left + self._ahead_max, self._known_max)
        more = list(tasks[known:until])
        self._asked += more
        return more

    def hear(self, answers: Sequence[TaskOutcome]) -> bool:
        """It has answered; False when it was not asked for so much."""
        if len(self._early) + len(answers) > len(self._asked):
            return False
        self._early += answers
        return True

    def take(self, most: int | None = None) -> list[TaskOutcome]:
        """What has been answered, in the order of the questions.

        Args:
            most: of them at most; None: all.
        """
        taken = list(islice(self._early, most))
        for queue in (self._asked, self._early):
            if len(queue) == len(taken):
                queue.clear()
            else:
                for _ in taken:
                    queue.popleft()
        return taken

    def forget(self) -> None:
        """Nobody is left who would answer."""
        self._asked.clear()
        self._early.clear()
