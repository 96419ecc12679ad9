"""Labels that stand for a device which a sandbox can be given: `accel-hailo8`, `accel-coral-usb`.

A job that requires such a label asks for the device itself. So a machine has the label by what
was found in it alone, its owner's grants name it, and one lease at a time has it.

Standard library only: the owner's verbs read it without the daemon.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

PREFIX = "accel-"
DEVICE_PATTERN = r"accel-[a-z0-9][a-z0-9-]{0,31}"

KNOWN: Mapping[str, str] = MappingProxyType(
    {
        "accel-hailo8": "a Hailo-8 accelerator",
        "accel-hailo8l": "a Hailo-8L accelerator",
        "accel-hailo10h": "a Hailo-10H accelerator",
        "accel-coral-pcie": "a Coral Edge TPU (PCIe or M.2)",
        "accel-coral-usb": "a Coral Edge TPU (USB)",
    }
)
"""What this version can find, in words for an owner."""


def devices_of(labels: Iterable[str]) -> tuple[str, ...]:
    """Return those of `labels` that stand for a device, each once, in order of the alphabet."""
    return tuple(sorted({label for label in labels if label.startswith(PREFIX)}))


def parse_devices(text: str) -> tuple[str, ...]:
    """Read the names of devices with commas between them.

    Raises:
        ValueError: one of them is none that this version knows.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in KNOWN:
            raise ValueError(f"{name!r} is no device: {', '.join(KNOWN)}")
    return devices_of(names)


def check_device(name: str) -> str:
    """Return the name of a device, which a later version may know.

    Raises:
        ValueError: it can be none.
    """
    if re.fullmatch(DEVICE_PATTERN, name) is None:
        raise ValueError(f"{name!r} is no device: it has the form {DEVICE_PATTERN}")
    return name
