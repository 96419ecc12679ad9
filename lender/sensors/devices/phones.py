"""Phones that hang on this machine, as a program of the owner's tells: JSON, a line for each.

    {"phone": "pixel-7-03", "battery": 0.93, "temperature_c": 31.5, "charging": true}

That program knows the farm (adb, or whatever drives it); we run it, and believe of it what it says
in this form. A phone is counted while its owner's conditions hold. Only the label `phone-pool` is
offered, and only while one phone can be used: no sandbox is given a phone.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from lender.sensors.devices import tool
from lender.sensors.devices.adapter import Attribute, Device

LABEL: Final = "phone-pool"
ANSWER_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 64 << 10
PHONES_MAX: Final = 256
_LINE_BYTES_MAX: Final = 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_FIELDS: Final = {"phone", "battery", "temperature_c", "charging"}
_COLDEST_C, _HOTTEST_C = -40.0, 150.0


class PhonesError(ValueError):
    """What the owner's program printed is not in the form that it promised; the text says where."""


class Phone(NamedTuple):
    """One phone; battery is 0 to 1."""

    name: str
    battery: float
    temperature_c: float
    charging: bool


class PhoneRules(NamedTuple):
    """When a phone may be lent."""

    battery_min: float = 0.5
    temperature_c_max: float = 40.0
    charging: bool = True

    def allow(self, phone: Phone) -> bool:
        """Tell whether a phone may be lent as it is now."""
        cool = phone.temperature_c <= self.temperature_c_max
        powered = phone.charging or not self.charging
        return cool and powered and phone.battery >= self.battery_min


def read_phones(said: bytes) -> tuple[Phone, ...]:
    """Return the phones that a program's output tells of.

    Raises:
        PhonesError: one line of it is none; nothing of it is believed then.
    """
    if len(said) > ANSWER_BYTES_MAX:
        raise PhonesError(f"more than {ANSWER_BYTES_MAX} bytes")
    phones = tuple(_phones(said))
    if len(phones) > PHONES_MAX:
        raise PhonesError(f"more than {PHONES_MAX} phones")
    if len({phone.name for phone in phones}) < len(phones):
        raise PhonesError("a phone is named twice")
    return phones


class PhoneFarmAdapter:
    """Runs the owner's program, `command`, and counts by `rules`."""

    def __init__(self, command: Sequence[str], rules: PhoneRules | None = None) -> None:
        self._command = command
        self._rules = rules or PhoneRules()

    def find(self) -> list[Device]:
        """See `Adapter`: one device for all phones together, or none where there are none."""
        try:
            phones = read_phones(tool.printed(self._command, ANSWER_S, ANSWER_BYTES_MAX))
        except (tool.ToolError, PhonesError) as error:
            mend = "see `phones` in lenderd.toml, and what its command prints"
            return [Device(LABEL, "phones", fault=str(error), mend=mend)]
        if not phones:
            return []
        ready = sum(map(self._rules.allow, phones))
        fault = "" if ready else "none is charged, charging and cool enough"
        return [Device(LABEL, "phones", _attributes(phones, ready), fault=fault)]


def _phones(said: bytes) -> Iterator[Phone]:
    for number, line in enumerate(said.splitlines(), 1):
        if line.strip():
            try:
                yield _phone(line)
            except ValueError as error:
                raise PhonesError(f"line {number}: {error}") from error


def _phone(line: bytes) -> Phone:
    if len(line) > _LINE_BYTES_MAX:
        raise ValueError(f"longer than {_LINE_BYTES_MAX} bytes")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    if type(fields) is not dict or fields.keys() != _FIELDS:
        raise ValueError(f"is no object with the fields {', '.join(sorted(_FIELDS))}")
    name, charging = fields["phone"], fields["charging"]
    if type(name) is not str or _NAME.fullmatch(name) is None:
        raise ValueError(f"phone has not the form {_NAME.pattern}")
    if type(charging) is not bool:
        raise ValueError("charging is neither true nor false")
    battery = _number(fields, "battery", 0.0, 1.0)
    return Phone(name, battery, _number(fields, "temperature_c", _COLDEST_C, _HOTTEST_C), charging)


def _number(fields: dict[str, Any], name: str, least: float, most: float) -> float:
    value = fields[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # which NaN is not, either
        raise ValueError(f"{name} is no number from {least:g} to {most:g}")
    return float(value)


def _attributes(phones: Sequence[Phone], ready: int) -> dict[str, Attribute]:
    return {
        "count": len(phones),
        "ready": ready,
        "charging": sum(phone.charging for phone in phones),
        "battery_min": min(phone.battery for phone in phones),
        "temperature_c": max(phone.temperature_c for phone in phones),
    }
