"""What every adapter of devices promises: on a phone farm that is played, and on real hardware.

A machine that has none of a kind skips it, and says which.
"""

import os
import re
import shlex
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lender.protocol.devices import KNOWN
from lender.protocol.ids import LABEL_PATTERN
from lender.sensors.devices.adapter import Adapter, Device, labels_of
from lender.sensors.devices.coral_pcie import CoralPcieAdapter
from lender.sensors.devices.coral_usb import CoralUsbAdapter
from lender.sensors.devices.hailo import HailoAdapter
from lender.sensors.devices.host_tools import ANNOUNCED, HostToolsAdapter
from lender.sensors.devices.nvidia import NvidiaAdapter
from lender.sensors.devices.phones import PhoneFarmAdapter

FARM = Path(__file__).parents[1] / "phone_farm.py"
LOOK_S_MAX = 30.0


def promised(adapter: Adapter) -> list[Device]:
    """What it finds, once it was seen to keep to the port."""
    began = time.monotonic()
    found = list(adapter.find())
    assert time.monotonic() - began < LOOK_S_MAX
    for device in found:
        assert device.label == "" or re.fullmatch(LABEL_PATTERN, device.label)
        assert device.name
        assert all(text.isprintable() for text in (device.name, device.fault, device.mend))
        assert bool(device.nodes) <= (device.label in KNOWN), "what is given can be granted"
        if device.usable:
            for node, inside in device.nodes:
                assert stat.S_ISCHR(Path(node).stat().st_mode)
                assert inside.startswith("/dev/")
                assert os.access(node, os.R_OK | os.W_OK)
    return found


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (HailoAdapter, "a Hailo accelerator with its driver and hailortcli"),
        (CoralPcieAdapter, "a Coral Edge TPU on PCIe with its driver"),
        (CoralUsbAdapter, "a Coral Edge TPU on USB that was used once since it was plugged in"),
        (NvidiaAdapter, "an NVIDIA GPU"),
        (lambda: HostToolsAdapter(ANNOUNCED), "Nix, or Docker's socket"),
    ],
    ids=["hailo", "coral-pcie", "coral-usb", "nvidia", "host-tools"],
)
def test_the_real_thing(make: Callable[[], Adapter], what: str) -> None:
    found = promised(make())
    if not any(device.usable or not device.fault for device in found):
        pytest.skip(f"needs {what}")


def test_a_real_farm() -> None:
    command = shlex.split(os.environ.get("LENDER_TEST_PHONES", ""))
    if not command:
        pytest.skip("needs phones: LENDER_TEST_PHONES names the program that tells of them")
    assert labels_of(promised(PhoneFarmAdapter(command))) == ("phone-pool",)


def test_a_farm_that_is_played(tmp_path: Path) -> None:
    phones = tmp_path / "phones"
    adapter = PhoneFarmAdapter([sys.executable, "-ISB", str(FARM), str(phones)])
    phones.write_text("pixel-1 0.9 31 yes\npixel-2 0.8 33.5 yes\nfairphone 0.2 30 yes\n")
    (found,) = promised(adapter)
    assert labels_of([found]) == ("phone-pool",)
    assert (found.attributes["count"], found.attributes["ready"]) == (3, 2)
    phones.write_text("pixel-1 0.9 31 no\npixel-2 0.8 55 yes\n")
    (found,) = promised(adapter)
    assert (found.usable, found.attributes["ready"]) == (False, 0)
    phones.write_text("")
    assert promised(adapter) == []
    phones.write_text("pixel-1 9 31 yes\n")
    (found,) = promised(adapter)
    assert "battery is no number from 0 to 1" in found.fault
    phones.unlink()
    (found,) = promised(adapter)
    assert not found.usable
