"""Battery and mains: /sys/class/power_supply on Linux, psutil elsewhere; asked every 5 s at most.

20 µs for each supply where the driver knows by heart; an embedded controller may take a
millisecond. Read here and not by psutil on Linux, which takes the battery of a wireless mouse for
the machine's, and a laptop that is kept at 80 % by its charge limit for unplugged.
Source: Documentation/ABI/testing/sysfs-class-power.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import psutil

from lender.sensors import kernel_file
from lender.sensors.pace import Paced

EVERY_S = 5.0
_SUPPLIES = Path("/sys/class/power_supply") if sys.platform.startswith("linux") else None


class Power(NamedTuple):
    """Where the power comes from.

    Attributes:
        on_battery: not from the mains, or nobody can tell.
        charge: 0 to 1, 0 where it can't be read; None: no battery, as in a desktop.
        discharge_w: what the battery gives; None where it can't be read, or on mains.
    """

    on_battery: bool = False
    charge: float | None = None
    discharge_w: float | None = None


class BatterySensor:
    """The machine's own batteries and its mains.

    Attributes:
        fault: what is wrong with the source, in words; it counts as on battery, and empty.
    """

    def __init__(self, supplies: Path | None = _SUPPLIES) -> None:
        """Take `supplies` as the kernel's folder; None: ask psutil."""
        self._supplies = supplies
        self._paced = Paced(self._ask, EVERY_S)
        self.fault = ""

    def read(self, now: float) -> Power:
        """What it was at the last look."""
        return self._paced.read(now)

    def _ask(self) -> Power:
        if self._supplies is None:
            return _ask_psutil()
        try:
            supplies = sorted(self._supplies.iterdir())
        except OSError:
            return Power()
        kinds = {supply: _word(supply, "type") for supply in supplies}
        own = [s for s in supplies if kinds[s] in ("battery", "ups") and not _is_of_a_device(s)]
        if not own:
            self.fault = ""
            return Power()
        plugged = [s for s in supplies if kinds[s] in ("mains", "usb", "wireless")]
        online = any(kernel_file.number(s / "online") not in (None, 0) for s in plugged)
        # Who knows of no cable asks the battery; one that charges does so from somewhere.
        states = {_word(s, "status") for s in own}
        fed = states == {"charging"} or (
            not plugged and states <= {"charging", "full", "not charging"}
        )
        charges = [kernel_file.number(s / "capacity") for s in own]
        known = [min(100, max(0, c)) / 100 for c in charges if c is not None]
        self.fault = "" if len(known) == len(own) else "the battery's charge can't be read"
        on_battery = not (online or fed)
        return Power(
            on_battery=on_battery,
            charge=sum(known) / len(own),
            discharge_w=_discharge_w(own) if on_battery else None,
        )


def _is_of_a_device(supply: Path) -> bool:
    """A mouse's or a headset's, not the machine's."""
    return _word(supply, "scope") == "device"


def _word(supply: Path, name: str) -> str:
    return (kernel_file.read(supply / name) or b"").decode(errors="replace").strip().lower()


def _discharge_w(batteries: list[Path]) -> float | None:
    """From `power_now`, else current times voltage; drivers disagree about the sign."""
    watts = 0.0
    for battery in batteries:
        power_uw = kernel_file.number(battery / "power_now")
        if power_uw is None:
            current_ua = kernel_file.number(battery / "current_now")
            voltage_uv = kernel_file.number(battery / "voltage_now")
            if current_ua is None or voltage_uv is None:
                continue
            power_uw = current_ua * voltage_uv // 1_000_000
        watts += abs(power_uw) / 1e6
    return watts or None


def _ask_psutil() -> Power:
    ask = getattr(psutil, "sensors_battery", None)
    battery = ask() if ask else None
    if battery is None:
        return Power()
    return Power(battery.power_plugged is not True, min(100.0, max(0.0, battery.percent)) / 100)
