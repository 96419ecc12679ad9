"""What the house says by MQTT, and the conditions under which its owner lends.

A condition only ever holds back: while it does not hold, or is not known, nothing lent runs.
docs/decisions/0035-home-automation.md.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, NoReturn

from lender.core.policy import Condition, Finding, Rung
from lender.core.signals import OutsideReading

SIGNAL_BYTES_MAX: Final = 16 * 1024
_TEXT_CHARS_MAX: Final = 64
_NUMBER: Final = re.compile(
    r"[+-]?(?:[0-9]{1,32}(?:\.[0-9]{0,32})?|\.[0-9]{1,32})(?:[eE][+-]?[0-9]{1,3})?"
)

UNHEARD: Final = "nothing was heard of it yet"


class SignalFault(ValueError):  # noqa: N818 - a fault of what came, not of ours
    """What came can't be read; the text says why, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a condition's value comes from.

    Attributes:
        name: of the condition.
        key: where it stands in a JSON document, `now.price` or `prices.0`; empty: it is all of it.
        numeric: it is a number; else a short text.
        expires_s: it counts for so long after it was heard.
    """

    name: str
    key: str
    numeric: bool
    expires_s: float


class OutsideWatch:
    """Keeps what was heard last of each source, until it expires. Times are the core's seconds."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = {one.name: one for one in sources}
        self._heard: dict[str, _Word] = {}

    def heard(self, now: float, name: str, payload: bytes, *, retained: bool) -> None:
        """Take up a message.

        A retained one is as old as nobody knows: it counts if it is the first, or says something
        else than what was heard. Else each reconnect would renew what a dead sensor has said once.
        """
        source = self._sources[name]
        try:
            word = _Word(now, decode_signal(payload, source.key, numeric=source.numeric))
        except SignalFault as fault:
            word = _Word(now, None, f"what came can't be read: {fault}")
        before = self._heard.get(name)
        if not retained or before is None or before._replace(at=now) != word:
            self._heard[name] = word

    def read(self, now: float) -> tuple[OutsideReading, ...]:
        """Return what is known at `now`, one reading for each source."""
        return tuple(self._reading(now, source) for source in self._sources.values())

    def _reading(self, now: float, source: Source) -> OutsideReading:
        word = self._heard.get(source.name)
        if word is None:
            return OutsideReading(source.name, None, UNHEARD)
        if now - word.at > source.expires_s:
            return OutsideReading(source.name, None, f"nothing new for {source.expires_s:g} s")
        return OutsideReading(source.name, word.value, word.fault)


class _Word(NamedTuple):
    at: float
    value: float | str | None
    fault: str = ""


def decode_signal(payload: bytes, key: str, *, numeric: bool) -> float | str:
    """Read a value.

    Args:
        payload: of a message that anybody may have sent.
        key: see `Source.key`.
        numeric: it has to be a finite number; else a text of at most 64 printable characters.

    Raises:
        SignalFault: it is none.
    """
    if len(payload) > SIGNAL_BYTES_MAX:
        raise SignalFault(f"it is over {SIGNAL_BYTES_MAX} bytes")
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise SignalFault("it is not UTF-8") from None
    value = _picked(text, key) if key else text.strip()
    return _number(value) if numeric else _text(value)


def unmet(condition: Condition, reading: OutsideReading, *, back: bool) -> Finding | None:
    """Return why a condition keeps everything from running; None while it holds.

    Args:
        condition: the owner's.
        reading: of its source.
        back: hold it against the twin for the way back.
    """
    said = f"{condition.name}: {{}}".format
    finding = Finding(f"mqtt {condition.name}", Rung.FROZEN, "", 1.0, 0.0)
    if reading.value is None:
        return replace(finding, text=said(reading.fault))
    if isinstance(reading.value, str):
        if reading.value in condition.equals:
            return None
        wanted = " or ".join(condition.equals)
        return replace(finding, text=said(f"it is {reading.value}, lends at {wanted}"))
    value, limit = reading.value, condition.below or condition.above
    assert limit is not None, "a number is asked for by a threshold alone"
    threshold = limit.back if back else limit.at
    over = condition.below is not None
    if value <= threshold if over else value >= threshold:
        return None
    words = f"lends {'up to' if over else 'from'} {threshold:g}"
    if not back:
        words = f"{'over' if over else 'under'} {threshold:g}"
    text = said(f"{value:g}, {words}")
    return replace(finding, text=text, value=value, limit=limit.at, clears_at=limit.back)


def _picked(text: str, key: str) -> Any:  # noqa: ANN401 - whatever the document holds
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise SignalFault("it is no JSON that can be read") from None
    for part in key.split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif (
            isinstance(found, list) and re.fullmatch("[0-9]{1,4}", part) and int(part) < len(found)
        ):
            found = found[int(part)]
        else:
            raise SignalFault(f"it has no {key}")
    return found


def _no_number(_constant: str) -> NoReturn:
    raise ValueError("JSON has no such number")


def _number(value: object) -> float:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    elif isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
    if not math.isfinite(number):
        raise SignalFault("it is no finite number")
    return number


def _text(value: object) -> str:
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str) or len(value) > _TEXT_CHARS_MAX or not value.isprintable():
        raise SignalFault(f"it is no text of at most {_TEXT_CHARS_MAX} characters")
    return value
