"""The adapters of what a grant can name: they look at the kernel's files, whoever asks."""

import sys
from pathlib import Path

from lender.sensors.devices.adapter import Adapter
from lender.sensors.devices.coral_pcie import CoralPcieAdapter
from lender.sensors.devices.coral_usb import CoralUsbAdapter
from lender.sensors.devices.hailo import HailoAdapter


def accelerators(root: Path) -> list[Adapter]:
    """Return them; none where the kernel is not Linux."""
    if sys.platform != "linux":
        return []
    return [HailoAdapter(root), CoralPcieAdapter(root), CoralUsbAdapter(root)]
