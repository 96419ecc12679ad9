"""Hailo accelerators, such as the Raspberry Pi's AI HAT+: the driver's class folder, hailortcli.

The driver's class folder tells which node is which board (`hailortcli scan` says the same, without
the node). What kind a board is, its firmware alone knows: `hailortcli fw-control identify` asks it,
once for each board, since it may be at work later. A board of unknown kind is not offered:
models are compiled for one kind.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lender.sensors import kernel_file
from lender.sensors.devices import pci, tool
from lender.sensors.devices.adapter import Device, not_allowed

VENDOR: Final = 0x1E60
IDENTIFY_S: Final = 5.0
IDENTIFY_BYTES_MAX: Final = 16 << 10

_LABELS: Final = {
    b"HAILO8": "accel-hailo8",
    b"HAILO8L": "accel-hailo8l",
    b"HAILO10H": "accel-hailo10h",
}
_NAMES: Final = {
    "accel-hailo8": "Hailo-8",
    "accel-hailo8l": "Hailo-8L",
    "accel-hailo10h": "Hailo-10H",
}
_ARCHITECTURE: Final = re.compile(
    rb"^Device Architecture:[ \t]*([A-Z0-9_]{1,32})[ \t\r]*$", re.MULTILINE
)
_NODE: Final = re.compile(r"hailo[0-9]{1,3}")
_SLOT: Final = re.compile(rb"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_CLASS: Final = "sys/class/hailo_chardev"
_NO_DRIVER = "no driver has taken it"
_INSTALL = "on Raspberry Pi OS: apt install hailo-all, then reboot; elsewhere Hailo's PCIe driver"


def architecture(said: bytes) -> str | None:
    """Return the label of what `hailortcli fw-control identify` says; None: it is none we know.

    Two answers that differ are none.
    """
    told = set(_ARCHITECTURE.findall(said[:IDENTIFY_BYTES_MAX]))
    return _LABELS.get(told.pop()) if len(told) == 1 else None


class HailoAdapter:
    """Looks below `root`, and asks `program` (None: where it is installed) what a board is."""

    def __init__(self, root: Path = Path("/"), program: str | None = None) -> None:
        self._root = root
        self._program = program
        self._kinds: dict[str, str] = {}

    def find(self) -> list[Device]:
        """See `Adapter`."""
        found = list(self._boards())
        taken = {slot for slot, _ in found}
        self._kinds = {slot: kind for slot, kind in self._kinds.items() if slot in taken}
        bare = [slot for slot in pci.slots(self._root, VENDOR) if slot not in taken]
        return [
            *(self._device(slot, node) for slot, node in found),
            *(Device("", f"Hailo at {slot}", fault=_NO_DRIVER, mend=_INSTALL) for slot in bare),
        ]

    def _boards(self) -> Iterator[tuple[str, str]]:
        """The boards that have a driver: where each is on the PCI bus, and its node."""
        folder = self._root / _CLASS
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError:
            return
        for name in filter(_NODE.fullmatch, names):
            slot = (kernel_file.read(folder / name / "board_location") or b"").strip()
            if _SLOT.fullmatch(slot):
                yield slot.decode(), name

    def _device(self, slot: str, node: str) -> Device:
        outside, where = self._root / "dev" / node, f"Hailo at {slot}"
        if fault := not_allowed(outside):
            mend = f"let lenderd's user read and write {outside} (a udev rule for hailo_chardev)"
            return Device("", where, fault=fault, mend=mend)
        try:
            label = self._kinds.get(slot) or self._identify(slot)
        except tool.ToolError as error:
            mend = "install HailoRT's hailortcli (apt install hailo-all), or end what holds it"
            return Device("", where, fault=f"can't tell its kind: {error}", mend=mend)
        if label is None:
            return Device("", where, fault="it is of a kind that this version does not know")
        self._kinds[slot] = label
        link = f"/{_CLASS}/{node}"
        folder = str((self._root / _CLASS / node).resolve())
        nodes = ((str(outside), f"/dev/{node}"),)
        return Device(label, f"{_NAMES[label]} at {slot}", {}, nodes, ((folder, link),))

    def _identify(self, slot: str) -> str | None:
        program = self._program or tool.where("hailortcli")
        if program is None:
            raise tool.ToolError("hailortcli is not installed")
        argv = (program, "fw-control", "identify", "-s", slot)
        return architecture(tool.printed(argv, IDENTIFY_S, IDENTIFY_BYTES_MAX))
