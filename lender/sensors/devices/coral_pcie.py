"""Coral's Edge TPU on PCIe or M.2: the Apex driver's nodes (coral.ai, "PCIe parameters")."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lender.sensors import kernel_file
from lender.sensors.devices import pci
from lender.sensors.devices.adapter import Attribute, Device, not_allowed

VENDOR: Final = 0x1AC1
DEVICES: Final = frozenset({0x089A})
LABEL: Final = "accel-coral-pcie"

_NODE: Final = re.compile(r"apex_[0-9]{1,3}")
_CLASS: Final = "sys/class/apex"
_MILLI: Final = 1000.0
_INSTALL: Final = "install the driver gasket-dkms (package of Coral's), then reboot"


class CoralPcieAdapter:
    """Looks below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def find(self) -> list[Device]:
        """See `Adapter`. A device without a driver has no node, so they are counted."""
        found = list(self._nodes())
        bare = len(list(pci.slots(self._root, VENDOR, DEVICES))) - len(found)
        fault = Device(LABEL, "Coral PCIe", fault="no driver has taken it", mend=_INSTALL)
        return [*map(self._device, found), *[fault] * max(0, bare)]

    def _nodes(self) -> Iterator[str]:
        try:
            names = sorted(path.name for path in (self._root / _CLASS).iterdir())
        except OSError:
            return
        yield from filter(_NODE.fullmatch, names)

    def _device(self, node: str) -> Device:
        outside, folder = self._root / "dev" / node, self._root / _CLASS / node
        attributes: dict[str, Attribute] = {}
        temperature = kernel_file.number(folder / "temp")
        if temperature is not None:
            attributes["temperature_c"] = temperature / _MILLI
        fault = not_allowed(outside)
        return Device(
            LABEL,
            f"Coral PCIe at {node}",
            attributes,
            ((str(outside), f"/dev/{node}"),),
            ((str(folder.resolve()), f"/{_CLASS}/{node}"),),
            fault,
            "add lenderd's user to the group apex, then start lenderd again" if fault else "",
        )
