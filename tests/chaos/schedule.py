"""Which faults strike when, and for how long: drawn from a seed, the same each time."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal[
    "kill", "stop", "cut", "refuse", "half-open", "part", "delay", "pause", "drain", "revoke"
]

GAP_S = 2.0
"""Between two faults, on average."""

QUIET_S = 6.0
"""At the end: what was struck last is back by then, more or less."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at_s: seconds after the beginning.
        kind: kill and stop (SIGKILL, SIGSTOP) strike a process; cut, refuse, half-open, part and
            delay a line; pause, drain and revoke are words of an owner.
        target: name of a process, whose line has the same name.
        lasts_s: until the process is started again or goes on, the line is sound again, the owner
            resumes or grants again.
        detail: which ways of a line, or how.
    """

    at_s: float
    kind: Kind
    target: str
    lasts_s: float
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.kind} {self.target}{detail} for {self.lasts_s:.1f} s"


class Cast(NamedTuple):
    """Who may be struck, by name."""

    lenders: Sequence[str]
    brokers: Sequence[str]
    nodes: Sequence[str]
    submitters: Sequence[str]


class _Draw(NamedTuple):
    weight: int
    kind: Kind
    room: str
    """A field of Cast."""
    lasts_s: tuple[float, float]
    details: tuple[str, ...] = ("",)


_WAYS = ("both ways", "up", "down")
_DRAWS = (
    _Draw(6, "kill", "lenders", (0.0, 6.0)),
    _Draw(3, "kill", "brokers", (0.0, 6.0)),
    _Draw(3, "kill", "nodes", (0.0, 8.0)),
    _Draw(3, "stop", "brokers", (1.0, 10.0)),
    _Draw(1, "stop", "nodes", (1.0, 6.0)),
    _Draw(5, "cut", "lenders", (0.0, 0.0)),
    _Draw(3, "cut", "brokers", (0.0, 0.0)),
    _Draw(2, "cut", "submitters", (0.0, 0.0)),
    _Draw(3, "refuse", "lenders", (1.0, 8.0)),
    _Draw(1, "refuse", "brokers", (1.0, 6.0)),
    _Draw(5, "half-open", "lenders", (1.0, 20.0), _WAYS),
    _Draw(3, "half-open", "brokers", (1.0, 20.0), _WAYS),
    _Draw(1, "half-open", "submitters", (1.0, 10.0), _WAYS),
    _Draw(3, "part", "lenders", (1.0, 10.0), _WAYS),
    _Draw(2, "part", "brokers", (1.0, 10.0), _WAYS),
    _Draw(3, "delay", "lenders", (5.0, 20.0)),
    _Draw(2, "delay", "brokers", (5.0, 20.0)),
    _Draw(6, "pause", "lenders", (0.5, 15.0)),
    _Draw(3, "drain", "lenders", (0.5, 10.0)),
    _Draw(5, "revoke", "lenders", (0.0, 10.0)),
)
_OWNERS: frozenset[Kind] = frozenset({"pause", "drain", "revoke"})
_AFTER_NODE_S = 12.0
"""One node is struck at a time: a majority of three is two. For its way back into the cluster."""

_AFTER_S = 3.0
"""What was struck is left alone for so long."""


def schedule(seed: int, duration_s: float, cast: Cast, gap_s: float = GAP_S) -> list[Fault]:
    """Return the faults, in the order of their beginning; none beginning in the last seconds.

    Processes and lines on the one hand and owners on the other are struck independently.
    """
    chance = random.Random(seed)
    free_at: dict[tuple[str, bool], float] = {}
    faults: list[Fault] = []
    at_s = 0.0
    while (at_s := at_s + chance.expovariate(1 / gap_s)) < duration_s - QUIET_S:
        (draw,) = chance.choices(_DRAWS, [one.weight for one in _DRAWS])
        room: Sequence[str] = getattr(cast, draw.room)
        target, detail = chance.choice(room), chance.choice(draw.details)
        lasts_s = chance.uniform(*draw.lasts_s)
        is_node = draw.room == "nodes"
        key = ("nodes" if is_node else target, draw.kind in _OWNERS)
        if free_at.get(key, 0.0) > at_s:
            continue
        free_at[key] = at_s + lasts_s + (_AFTER_NODE_S if is_node else _AFTER_S)
        faults.append(Fault(at_s, draw.kind, target, lasts_s, detail))
    return faults
