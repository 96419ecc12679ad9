"""The temperature sensor that is nearest to its own limit (psutil: hwmon, thermal zones).

About 40 µs for each sensor of the machine, and some embedded controllers take milliseconds: asked
every 5 s at most. Virtual machines and macOS have none.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import psutil

from lender.sensors.pace import Paced

EVERY_S = 5.0
# Drivers that don't know tell 0, -273 or 65261 °C: no such limit is one.
_LIMITS_C = (40.0, 150.0)
_READINGS_C = (-50.0, 200.0)


class Temperature(NamedTuple):
    """A sensor and the limit that its driver tells for it (`high`, else `critical`), in °C."""

    celsius: float
    limit_c: float


def _psutil() -> Mapping[str, list[tuple[object, ...]]]:
    ask = getattr(psutil, "sensors_temperatures", None)
    return ask() if ask else {}


class TemperatureSensor:
    """Asks all sensors.

    Attributes:
        fault: what is wrong with the source, in words; it counts as no sensor: throttling and
            pressure still tell.
    """

    def __init__(self, ask: Callable[[], Mapping[str, list[tuple[object, ...]]]] = _psutil) -> None:
        self._ask = ask
        self._paced = Paced(self._nearest, EVERY_S)
        self.fault = ""

    def read(self, now: float) -> Temperature | None:
        """The sensor nearest to its limit; None without one that has a limit."""
        return self._paced.read(now)

    def _nearest(self) -> Temperature | None:
        try:
            entries = [entry for group in self._ask().values() for entry in group]
        except (OSError, ValueError, RuntimeError) as error:
            self.fault = f"temperatures can't be read: {error}"
            return None
        self.fault = ""
        known = [t for t in map(_parse, entries) if t is not None]
        return min(known, key=lambda t: t.limit_c - t.celsius, default=None)


def _parse(entry: tuple[object, ...]) -> Temperature | None:
    """From psutil's label, current, high, critical."""
    _, current, *limits = entry
    limit_c = next((x for x in limits if isinstance(x, float) and _is_in(x, _LIMITS_C)), None)
    if limit_c is None or not isinstance(current, float) or not _is_in(current, _READINGS_C):
        return None
    return Temperature(current, limit_c)


def _is_in(value: float, bounds: tuple[float, float]) -> bool:
    return math.isfinite(value) and bounds[0] <= value <= bounds[1]
