"""What a trial saw, and how to tell where that does not depend on the system."""

import json
from typing import NamedTuple

from lender.sandbox.plan import TaskOutcome


class Seen(NamedTuple):
    """What was seen of a sandbox.

    Attributes:
        walls: those that don't stand, in words.
        entered: the files have a second wall.
    """

    walls: list[str]
    entered: bool


def of_probe(outcome: TaskOutcome) -> Seen:
    """What a probe says, see `linux_probe` and `mac_probe`.

    Raises:
        ValueError, TypeError: that is not what they say.
    """
    return Seen(**json.loads(outcome.value.removeprefix(b"b")))


def of_module(outcome: TaskOutcome) -> list[str]:
    """The walls of a wasm module are its engine's: it works, or it does not."""
    return [] if outcome.value == b"ok" else [f"unexpected answer {outcome.value[:80]!r}"]
