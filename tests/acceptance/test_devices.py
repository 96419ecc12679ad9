"""A job that asks for an accelerator runs where it is, once its owner lets it, and nowhere else."""

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import open_folder

from deploy.local.fleet import Fleet, Lender, wait_until

__all__ = ["open_folder"]  # a fixture
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can make device nodes")

STAND_IN = Path(__file__).parents[1] / "lenderd_with_devices.py"
SLOT = "0000:01:00.0"
READS = "head -c 3 /dev/hailo0 | wc -c; cat /sys/class/hailo_chardev/hailo0/board_location"
PHONES = """{"phone": "pixel-1", "battery": 0.9, "temperature_c": 31, "charging": true}
{"phone": "pixel-2", "battery": 0.1, "temperature_c": 30, "charging": true}
"""
HAILORTCLI = """#!/bin/sh
echo "Board Name: Hailo-8"
echo "Device Architecture: HAILO8"
"""


class PiFleet(Fleet):
    """Two machines: `pi` finds what lies below `root`, `desk` has nothing."""

    root: Path

    def _begin(self, lender: Lender) -> None:
        if lender.name == "pi":
            lender.argv = [sys.executable, str(STAND_IN), str(self.root), *lender.argv[1:]]
        super()._begin(lender)


@pytest.fixture
def fleet(open_folder: Path) -> Iterator[PiFleet]:
    """The Pi's Hailo is a /dev/zero of that name."""
    root = open_folder / "root"
    chardev = root / "sys/class/hailo_chardev/hailo0"
    for folder in (chardev, root / "dev", root / "usr/bin"):
        folder.mkdir(parents=True)
    (chardev / "board_location").write_text(SLOT)
    (root / "usr/bin/hailortcli").write_text(HAILORTCLI)
    (root / "usr/bin/hailortcli").chmod(0o755)
    plug_in(root)
    # The program of a farm, as its owner might have written it.
    (root / "phones").write_text(PHONES)
    env = {"LENDERD_PHONES": json.dumps({"command": ["/bin/cat", str(root / "phones")]})}
    made = PiFleet(open_folder / "fleet", ("desk", "pi"), workloads=("command",), env=env)
    made.root = root
    with made:
        yield made


def plug_in(root: Path) -> None:
    os.mknod(root / "dev/hailo0", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (root / "dev/hailo0").chmod(0o666)


def test_an_accelerator_is_lent_where_it_is_and_by_its_owners_word(fleet: PiFleet) -> None:
    pi, desk = fleet.lenders["pi"], fleet.lenders["desk"]
    for lender in (pi, desk):
        wait_until(lambda one=lender: bool(one.status().get("devices")), "devices were found")
    shown = pi.owner("status").stdout
    assert f"Devices  Hailo-8 at {SLOT} (accel-hailo8) · lent to nobody" in shown
    assert [one["label"] for one in desk.status()["devices"]] == ["phone-pool"]

    asks = ("submit", "--label", "accel-hailo8")
    job = fleet.submit(*asks, "--no-wait", "--", "sh", "-c", READS).stdout.strip()
    said = fleet.submit("why", job).stdout
    assert "2 would match without the label accel-hailo8" in said, "it is told to nobody yet"

    words = ("grant", f"demo={fleet.submitter}", "--workload", "command", "--cpu", "2")
    words += ("--mem", "2G", "--when", "always", "--expires", "1d", "--replace", "--yes")
    agreed = pi.owner(*words, "--device", "accel-hailo8")
    assert "asks for accel-hailo8 uses it itself" in agreed.stdout
    assert fleet.submit("get", "--wait", job).stdout == f"3\n{SLOT}"
    logged = pi.owner("log", job).stdout
    assert "device: accel-hailo8" in logged
    assert desk.owner("log", job).returncode != 0, "the other machine never saw it"

    (fleet.root / "dev/hailo0").unlink()
    wait_until(lambda: bool(pi.status()["devices"][0]["fault"]), "it was unplugged")
    doctor = pi.owner("doctor").stdout
    assert "hailo0 is missing" in doctor
    assert "phone-pool is told as a label; no job is given it" in doctor
    later = fleet.submit(*asks, "--no-wait", "--", "sh", "-c", READS).stdout.strip()
    why = "2 would match without the label accel-hailo8"
    wait_until(lambda: why in fleet.submit("why", later).stdout, "nobody has it any more")
    plug_in(fleet.root)
    assert fleet.submit("get", "--wait", later).stdout == f"3\n{SLOT}"

    on_phones = ("submit", "--label", "phone-pool", "--no-wait", "--", "ls", "/dev/bus")
    tried = fleet.submit("get", "--wait", fleet.submit(*on_phones).stdout.strip())
    assert tried.returncode == 2, "ls itself ran, and was given no phone"
    assert "/dev/bus" in tried.stderr
    (fleet.root / "phones").write_text(PHONES.replace("true", "false"))
    wait_until(lambda: bool(pi.status()["devices"][1]["fault"]), "no phone is charged any more")
