"""NVIDIA's GPUs on the PCI bus, and what keeps one from computing.

Whether one can be lent says the driver (`lender.sensors.gpu`); a GPU has no label, but a class of
its own and an amount of memory. This is for owners who wonder why theirs is not offered.
"""

from pathlib import Path
from typing import Final

from lender.sensors.devices import pci
from lender.sensors.devices.adapter import Device

VENDOR: Final = 0x10DE
_DISPLAY: Final = 0x03  # PCI class of VGA and 3D controllers
_BUS: Final = "sys/bus/pci/devices"
_NODES: Final = ("nvidiactl", "nvidia-uvm")
_FAULTS: Final = {
    "": ("no driver has taken it", "install NVIDIA's driver (Debian: nvidia-driver), then reboot"),
    "nouveau": ("its driver is nouveau, which can't compute", "install NVIDIA's own driver"),
    "vfio-pci": ("it was handed to virtual machines (vfio-pci)", ""),
}
_MAKE_NODES = "nvidia-modprobe -u -c 0, as root, and at each boot"


class NvidiaAdapter:
    """Looks below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def find(self) -> list[Device]:
        """See `Adapter`; no label, and no nodes: the GPU's own wall gives those."""
        bus = self._root / _BUS
        return [
            self._device(slot, bus / slot)
            for slot in pci.slots(self._root, VENDOR)
            if (pci.number(bus / slot / "class") or 0) >> 16 == _DISPLAY
        ]

    def _device(self, slot: str, folder: Path) -> Device:
        name, link = f"NVIDIA GPU at {slot}", folder / "driver"
        driver = link.resolve().name if link.exists() else ""
        fault, mend = _FAULTS.get(driver, ("", ""))
        missing = [node for node in _NODES if not (self._root / "dev" / node).exists()]
        if not fault and missing:
            fault, mend = f"/dev/{missing[0]} is missing", _MAKE_NODES
        return Device("", name, fault=fault, mend=mend)
