"""Coral's Edge TPU on USB: its node on the bus, once it has its firmware.

It comes up as 1a6e:089a; the first program that uses it loads its firmware, and it leaves the bus
and comes back as 18d1:9302 under another number, for as long as it has power. A sandbox sees one
node, so one without its firmware can't be given to it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lender.sensors import kernel_file
from lender.sensors.devices.adapter import Device, not_allowed
from lender.sensors.devices.pci import number

READY: Final = (0x18D1, 0x9302)
BARE: Final = (0x1A6E, 0x089A)
LABEL: Final = "accel-coral-usb"

_PORT: Final = re.compile(r"[0-9]{1,3}-[0-9]{1,3}(\.[0-9]{1,3}){0,6}")
_BUS: Final = "sys/bus/usb/devices"
_NUMBER_MAX: Final = 999
_NO_FIRMWARE = "it has no firmware yet: the first program that uses it loads it"
_USE_IT = "run any inference on it once, as yourself, after it was plugged in"
_RULE = "install libedgetpu1-std (its udev rule), and add lenderd's user to the group plugdev"


class CoralUsbAdapter:
    """Looks below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def find(self) -> list[Device]:
        """See `Adapter`."""
        return [self._device(folder) for folder in self._folders()]

    def _folders(self) -> Iterator[Path]:
        try:
            found = sorted((self._root / _BUS).iterdir())
        except OSError:
            return
        for folder in found:
            if _PORT.fullmatch(folder.name) and _ids(folder) in (READY, BARE):
                yield folder

    def _device(self, folder: Path) -> Device:
        name = f"Coral USB at {folder.name}"
        if _ids(folder) == BARE:
            return Device(LABEL, name, fault=_NO_FIRMWARE, mend=_USE_IT)
        numbers = [kernel_file.number(folder / one) for one in ("busnum", "devnum")]
        if not all(one is not None and 0 < one <= _NUMBER_MAX for one in numbers):
            return Device(LABEL, name, fault="the kernel does not tell its number on the bus")
        inside = "/dev/bus/usb/" + "/".join(f"{one:03d}" for one in numbers)
        outside = self._root / inside.removeprefix("/")
        fault = not_allowed(outside)
        return Device(
            LABEL,
            name,
            {},
            ((str(outside), inside),),
            ((str(folder.resolve()), f"/{_BUS}/{folder.name}"),),
            fault,
            _RULE if fault else "",
        )


def _ids(folder: Path) -> tuple[int | None, int | None]:
    return number(folder / "idVendor"), number(folder / "idProduct")
