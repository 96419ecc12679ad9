"""No class starves, however busy the others are and however few slots there are."""

import random
from collections import Counter

from core_world import START
from hypothesis import given, settings
from hypothesis import strategies as st

from lender.core.pulling import Pulls

CLASSES = ("a", "b", "c", "d")
ROUNDS = 100


@settings(max_examples=40)
@given(
    count=st.integers(2, 4),
    slots=st.integers(1, 3),
    order=st.randoms(use_true_random=False) | st.just(None),
)
def test_every_class_with_work_gets_its_turns(
    count: int, slots: int, order: random.Random | None
) -> None:
    """Every class always has work, and the server serves the pulls in any order, or always in
    the order of their names; in each round one lease ends.
    """
    classes = CLASSES[:count]
    allowed = frozenset(classes)
    pulls = Pulls("")
    pulls.opened(START, classes, allowed, None)
    running: list[str] = []
    served_in = Counter[str]()
    for number in range(ROUNDS):
        now = START + number
        begun = pulls.next(now, allowed, slots - len(running))
        messages = [pull.work_class for pull in begun for _ in range(pull.batch)]
        if order is not None:
            order.shuffle(messages)
        for work_class in messages:
            pulls.brought(now, work_class)
            if len(running) < slots:
                running.append(work_class)
                pulls.served(work_class)
                served_in[work_class] = number
            else:
                pulls.turned_away(work_class)
        for pull in begun:
            pulls.ended(now, pull.work_class, refused=False)
        del running[:1]
        assert all(number - served_in[one] <= 2 * count + slots for one in classes), served_in
