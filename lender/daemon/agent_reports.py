"""What the agents of users' sessions tell a lenderd that can't see those sessions itself.

Kept in memory, the latest word of each user, and forgotten after `FORGET_S`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lender.sensors.sighting import Sighting

FORGET_S = 90.0
AGENTS_MAX = 64
TEXT_CHARS_MAX = 200
IDLE_S_MAX = 10 * 365 * 86_400.0


class ReportError(ValueError):
    """What an agent said is malformed; the message names the field and what it must be."""


@dataclass(frozen=True, slots=True)
class _Field:
    of: str
    holds: Callable[[Any], bool]
    default: Any


def _idle(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= IDLE_S_MAX


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_CHARS_MAX and value.isprintable()


_FIELDS: Mapping[str, _Field] = {
    "idle_s": _Field(f"null or a number from 0 to {IDLE_S_MAX:.0f}", _idle, None),
    "locked": _Field(
        "null or a boolean", lambda value: value is None or isinstance(value, bool), None
    ),
    "inhibited_by": _Field(f"printable text of at most {TEXT_CHARS_MAX} characters", _text, ""),
    "game": _Field("a boolean", lambda value: isinstance(value, bool), False),
    "source": _Field(f"printable text of at most {TEXT_CHARS_MAX} characters", _text, ""),
}
_ENVELOPE = frozenset({"v", "verb"})


class AgentReports:
    """The latest word of each user's agent.

    A user is believed about his own session alone: `sightings` carry the uid, and `merge` takes a
    long idle time only from those who see everybody who sits here. So what a stranger says can
    make the machine more present, never less.
    """

    def __init__(self) -> None:
        self._latest: dict[int, tuple[float, Sighting]] = {}

    def told(self, request: Mapping[str, Any], peer_uid: int, now: float) -> None:
        """Take one report, which replaces that user's earlier one.

        Args:
            request: `idle_s`, `locked`, `inhibited_by`, `game`, `source`, each optional.
            peer_uid: who says so, by the kernel's word.
            now: `time.monotonic` seconds.

        Raises:
            ReportError: a field is unknown or has no such value, or too many users report.
        """
        said = {name: request.get(name, field.default) for name, field in _FIELDS.items()}
        for name in request:
            if name not in _FIELDS and name not in _ENVELOPE:
                raise ReportError(f"{name!r} is no field; known: {', '.join(_FIELDS)}")
        for name, field in _FIELDS.items():
            if not field.holds(said[name]):
                raise ReportError(f"{name} must be {field.of}")
        self._forget(now)
        if peer_uid not in self._latest and len(self._latest) >= AGENTS_MAX:
            raise ReportError(f"{AGENTS_MAX} users report already")
        idle_s = said["idle_s"]
        sighting = Sighting(
            source=f"agent of uid {peer_uid}" + (f": {said['source']}" if said["source"] else ""),
            uid=peer_uid,
            last_input_at=None if idle_s is None else now - idle_s,
            locked=said["locked"],
            inhibited_by=said["inhibited_by"],
            game=said["game"],
        )
        self._latest[peer_uid] = (now, sighting)

    def sightings(self, now: float) -> list[Sighting]:
        """Return what all agents said within the last `FORGET_S`."""
        self._forget(now)
        return [sighting for _, sighting in self._latest.values()]

    def _forget(self, now: float) -> None:
        self._latest = {
            uid: (at, one) for uid, (at, one) in self._latest.items() if now - at <= FORGET_S
        }
