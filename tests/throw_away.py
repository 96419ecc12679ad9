"""Users that nobody else is: each process of a test run has some of its own."""

import os

EACH = 4


def user(number: int) -> int:
    """A uid, and a gid of the same value; within what a container maps."""
    assert 0 <= number < EACH
    return 40_000 + os.getpid() % 5_000 * EACH + number
