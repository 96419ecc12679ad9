"""The PCI devices of a vendor, by the kernel's folder: also those that have no driver."""

from collections.abc import Iterator
from pathlib import Path

from lender.sensors import kernel_file

_DEVICES_MAX = 1024


def slots(root: Path, vendor: int, devices: frozenset[int] | None = None) -> Iterator[str]:
    """Yield the addresses of a vendor's devices, such as `0000:01:00.0`.

    Args:
        root: of the file system.
        vendor: its number.
        devices: their numbers; None: any.
    """
    try:
        found = sorted((root / "sys/bus/pci/devices").iterdir())[:_DEVICES_MAX]
    except OSError:
        return
    for folder in found:
        if number(folder / "vendor") != vendor:
            continue
        if devices is None or number(folder / "device") in devices:
            yield folder.name


def number(path: Path) -> int | None:
    """Return the hexadecimal number that a file of sysfs holds; None where it holds none."""
    try:
        return int((kernel_file.read(path) or b"").decode("ascii"), 16)
    except ValueError:
        return None
