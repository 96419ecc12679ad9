"""Adapters of devices, each on a tree of files as its kernel driver makes it."""

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from lender.sensors.devices import hailo, phones, tool
from lender.sensors.devices.adapter import Device, first_usable, labels_of
from lender.sensors.devices.coral_pcie import CoralPcieAdapter
from lender.sensors.devices.coral_usb import CoralUsbAdapter
from lender.sensors.devices.hailo import HailoAdapter
from lender.sensors.devices.host_tools import ANNOUNCED, HostToolsAdapter
from lender.sensors.devices.phones import (
    Phone,
    PhoneFarmAdapter,
    PhoneRules,
    PhonesError,
    read_phones,
)

SLOT = "0000:01:00.0"
SAID = b"""Executing on device: 0000:01:00.0
Identifying board
Control Protocol Version: 2
Firmware Version: 4.17.0 (release,app,extended context switch buffer)
Board Name: Hailo-8
Device Architecture: %b
Serial Number: HLDDLBB234500031
"""


def put(root: Path, name: str, content: str = "") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def pci(root: Path, slot: str, vendor: str, device: str) -> None:
    put(root, f"sys/bus/pci/devices/{slot}/vendor", f"{vendor}\n")
    put(root, f"sys/bus/pci/devices/{slot}/device", f"{device}\n")


def a_hailo(root: Path, slot: str = SLOT, node: str = "hailo0") -> None:
    pci(root, slot, "0x1e60", "0x2864")
    folder = f"sys/devices/{slot}/hailo_chardev/{node}"
    put(root, f"{folder}/board_location", slot)
    link = root / "sys/class/hailo_chardev" / node
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(root / folder)
    put(root, f"dev/{node}")


def program(folder: Path, script: str) -> str:
    """A program that is a script of the shell's."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def hailortcli(folder: Path, architecture: bytes = b"HAILO8", more: str = "") -> str:
    """A stand-in that answers as the real one does, and counts how often it was asked."""
    (folder / "said").write_bytes(SAID % architecture)
    expected = '[ "$1 $2 $3" = "fw-control identify -s" ] || exit 2'
    return program(folder, f"{expected}\necho $4 >> {folder}/asked\n{more}\ncat {folder}/said")


def usb(root: Path, port: str, ids: tuple[str, str], devnum: int = 7) -> None:
    folder = f"sys/bus/usb/devices/{port}"
    put(root, f"{folder}/idVendor", f"{ids[0]}\n")
    put(root, f"{folder}/idProduct", f"{ids[1]}\n")
    put(root, f"{folder}/busnum", "2\n")
    put(root, f"{folder}/devnum", f"{devnum}\n")
    put(root, f"dev/bus/usb/002/{devnum:03d}")


def test_a_machine_without_any_has_none(tmp_path: Path) -> None:
    for adapter in (HailoAdapter, CoralPcieAdapter, CoralUsbAdapter):
        assert list(adapter(tmp_path).find()) == []


@pytest.mark.parametrize(
    ("architecture", "label", "name"),
    [
        (b"HAILO8", "accel-hailo8", "Hailo-8 at 0000:01:00.0"),
        (b"HAILO8L", "accel-hailo8l", "Hailo-8L at 0000:01:00.0"),
        (b"HAILO10H", "accel-hailo10h", "Hailo-10H at 0000:01:00.0"),
    ],
)
def test_a_hailo_is_what_its_firmware_says(
    tmp_path: Path, architecture: bytes, label: str, name: str
) -> None:
    root = tmp_path / "root"
    a_hailo(root)
    (found,) = HailoAdapter(root, hailortcli(tmp_path, architecture)).find()
    assert (found.label, found.name, found.usable) == (label, name, True)
    assert found.nodes == ((f"{root}/dev/hailo0", "/dev/hailo0"),)
    ((folder, link),) = found.folders
    assert folder == f"{root}/sys/devices/{SLOT}/hailo_chardev/hailo0"
    assert link == "/sys/class/hailo_chardev/hailo0"


def test_a_hailo_is_asked_once_until_it_goes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    a_hailo(root)
    adapter = HailoAdapter(root, hailortcli(tmp_path))
    asked = tmp_path / "asked"
    for _ in range(3):
        assert labels_of(adapter.find()) == ("accel-hailo8",)
    assert asked.read_text().split() == [SLOT]
    link = root / "sys/class/hailo_chardev/hailo0"
    link.unlink()
    (found,) = adapter.find()
    assert (found.usable, found.fault) == (False, "no driver has taken it")
    link.symlink_to(root / f"sys/devices/{SLOT}/hailo_chardev/hailo0")
    assert labels_of(adapter.find()) == ("accel-hailo8",)
    assert asked.read_text().split() == [SLOT, SLOT]


@pytest.mark.parametrize(
    ("more", "architecture", "fault"),
    [
        ("exit 1", b"HAILO8", "failed (1)"),
        ("head -c 100000 /dev/zero", b"HAILO8", "says more than 16384 bytes"),
        ("", b"HAILO99", "a kind that this version does not know"),
        ("", b"HAILO8\nDevice Architecture: HAILO8L", "a kind that this version does not know"),
    ],
)
def test_a_hailo_of_unknown_kind_is_not_offered(
    tmp_path: Path, more: str, architecture: bytes, fault: str
) -> None:
    root = tmp_path / "root"
    a_hailo(root)
    (found,) = HailoAdapter(root, hailortcli(tmp_path, architecture, more)).find()
    assert not found.usable
    assert fault in found.fault


def test_a_tool_that_hangs_costs_its_time_and_leaves_nothing(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hanging = program(tmp_path, f"sleep 600 &\necho $$ $! > {pids}\nwait")
    with pytest.raises(tool.ToolError, match="gave no answer in time"):
        tool.printed((hanging,), 1.0, 100)
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    deadline = time.monotonic() + 20
    while any(map(_runs, started)):  # who was killed may take a moment to be gone
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_tool_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(tool.ToolError, match="can't be run"):
        tool.printed((str(tmp_path / "nothing"),), 2.0, 100)
    assert tool.where("sh") is not None
    assert tool.where("no-such-program") is None
    closed = program(tmp_path, "exec sleep 600 >&-")
    with pytest.raises(tool.ToolError, match="gave no answer in time"):
        tool.printed((closed,), 0.3, 100)


def test_what_a_hailo_needs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_hailo(tmp_path)
    pci(tmp_path, "0000:02:00.0", "0x1e60", "0x2864")
    pci(tmp_path, "0000:03:00.0", "0x8086", "0x1234")
    monkeypatch.setattr(tool, "where", lambda _: None)
    taken, bare = HailoAdapter(tmp_path).find()
    assert "hailortcli is not installed" in taken.fault
    assert bare.name == "Hailo at 0000:02:00.0"
    assert (bare.fault, "hailo-all" in bare.mend) == ("no driver has taken it", True)
    (tmp_path / "dev/hailo0").unlink()
    assert "hailo0 is missing" in HailoAdapter(tmp_path).find()[0].fault


def test_names_that_are_no_boards_are_passed_over(tmp_path: Path) -> None:
    a_hailo(tmp_path)
    put(tmp_path, "sys/class/hailo_chardev/hailo0; rm/board_location", SLOT)
    put(tmp_path, "sys/class/hailo_chardev/hailo1/board_location", "--help")
    put(tmp_path, "sys/bus/pci/devices/0000:09:00.0/vendor", "not a number\n")
    assert len(HailoAdapter(tmp_path, "/bin/false").find()) == 1


def test_who_may_not_open_a_node_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "sys/class/apex/apex_0/temp", "41250\n")
    put(tmp_path, "dev/apex_0")
    (found,) = CoralPcieAdapter(tmp_path).find()
    assert found.usable
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    (found,) = CoralPcieAdapter(tmp_path).find()
    assert "can't be opened by this user" in found.fault
    assert "group apex" in found.mend


def test_a_coral_on_pcie(tmp_path: Path) -> None:
    pci(tmp_path, SLOT, "0x1ac1", "0x089a")
    (found,) = CoralPcieAdapter(tmp_path).find()
    assert (found.fault, "gasket-dkms" in found.mend) == ("no driver has taken it", True)
    put(tmp_path, "sys/class/apex/apex_0/temp", "41250\n")
    put(tmp_path, "dev/apex_0")
    (found,) = CoralPcieAdapter(tmp_path).find()
    assert (found.label, found.usable) == ("accel-coral-pcie", True)
    assert found.attributes == {"temperature_c": 41.25}
    assert found.nodes == ((f"{tmp_path}/dev/apex_0", "/dev/apex_0"),)
    assert found.folders == ((f"{tmp_path}/sys/class/apex/apex_0", "/sys/class/apex/apex_0"),)
    put(tmp_path, "sys/class/apex/apex_0/temp", "hot\n")
    assert CoralPcieAdapter(tmp_path).find()[0].attributes == {}


def test_a_coral_on_usb_is_given_once_it_has_its_firmware(tmp_path: Path) -> None:
    usb(tmp_path, "2-1", ("1a6e", "089a"))
    usb(tmp_path, "1-1", ("046d", "c31c"))
    put(tmp_path, "sys/bus/usb/devices/2-1:1.0/idVendor", "18d1\n")
    (bare,) = CoralUsbAdapter(tmp_path).find()
    assert not bare.usable
    assert "no firmware yet" in bare.fault
    usb(tmp_path, "2-1", ("18d1", "9302"), devnum=8)
    (found,) = CoralUsbAdapter(tmp_path).find()
    assert (found.label, found.usable) == ("accel-coral-usb", True)
    assert found.nodes == ((f"{tmp_path}/dev/bus/usb/002/008", "/dev/bus/usb/002/008"),)
    (tmp_path / "dev/bus/usb/002/008").unlink()
    (gone,) = CoralUsbAdapter(tmp_path).find()
    assert "is missing" in gone.fault
    put(tmp_path, "sys/bus/usb/devices/2-1/devnum", "../../../null")
    (strange,) = CoralUsbAdapter(tmp_path).find()
    assert "does not tell its number" in strange.fault


def test_what_an_owner_lets_be_announced_is_told_where_it_is(tmp_path: Path) -> None:
    assert list(HostToolsAdapter((), tmp_path).find()) == []
    (tmp_path / "nix/store").mkdir(parents=True)
    found = HostToolsAdapter(ANNOUNCED, tmp_path).find()
    assert labels_of(found) == ("nix",)
    assert [one.fault for one in found] == [
        "",
        "there is no /run/docker.sock",
        "there is no /dev/nvidiactl",
    ]
    put(tmp_path, "run/docker.sock")
    put(tmp_path, "dev/dxg")
    found = HostToolsAdapter(ANNOUNCED, tmp_path).find()
    assert labels_of(found) == ("nix", "docker", "nix-gpu")
    assert not any(one.nodes for one in found), "no sandbox is given any of it"


LINE = b'{"phone": "pixel-1", "battery": 0.9, "temperature_c": 30, "charging": true}\n'
PIXEL = Phone("pixel-1", 0.9, 30.0, charging=True)


def test_a_line_is_a_phone() -> None:
    assert read_phones(b"") == ()
    assert read_phones(LINE + b"\n" + LINE.replace(b"-1", b"-2")) == (
        PIXEL,
        PIXEL._replace(name="pixel-2"),
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (LINE * 2, "a phone is named twice"),
        (b"x" * 70_000, "more than 65536 bytes"),
        (LINE.replace(b"pixel-1", b"x" * 1000), "line 1: longer than 1024 bytes"),
        (LINE + b"hello", "line 2: is not JSON"),
        (b"[" * 1000, "line 1: is not JSON"),
        (b"\xff{}", "line 1: is not JSON"),
        (b"[]", "line 1: is no object with the fields"),
        (b"{}", "line 1: is no object with the fields"),
        (LINE.replace(b'"phone"', b'"imei": 1, "phone"'), "line 1: is no object with the fields"),
        (LINE.replace(b"pixel-1", b"\\u001b[2J"), "line 1: phone has not the form"),
        (LINE.replace(b'"pixel-1"', b"1"), "line 1: phone has not the form"),
        (LINE.replace(b"true", b"1"), "line 1: charging is neither"),
        (LINE.replace(b"0.9", b"90"), "line 1: battery is no number from 0 to 1"),
        (LINE.replace(b"0.9", b"true"), "line 1: battery is no number"),
        (LINE.replace(b"0.9", b"NaN"), "line 1: battery is no number"),
        (LINE.replace(b"30", b"9" * 400), "line 1: temperature_c is no number from -40 to 150"),
    ],
)
def test_nothing_is_believed_of_what_is_not_in_that_form(said: bytes, why: str) -> None:
    with pytest.raises(PhonesError) as error:
        read_phones(said)
    assert str(error.value).startswith(why)


def test_no_more_phones_than_one_could_have() -> None:
    line = b'{"phone":"%d","battery":1,"temperature_c":1,"charging":true}\n'
    with pytest.raises(PhonesError, match="more than 256 phones"):
        read_phones(b"".join(line % n for n in range(257)))


@pytest.mark.parametrize(
    "changed", [{"battery": 0.49}, {"temperature_c": 40.1}, {"charging": False}]
)
def test_a_phone_is_counted_while_its_owners_conditions_hold(changed: dict[str, Any]) -> None:
    assert PhoneRules().allow(PIXEL)
    assert not PhoneRules().allow(PIXEL._replace(**changed))
    assert PhoneRules(0.0, 100.0, charging=False).allow(PIXEL._replace(**changed))


def test_a_farm_is_one_device_of_as_many_phones_as_are_ready(tmp_path: Path) -> None:
    low = LINE.replace(b"-1", b"-2").replace(b"0.9", b"0.1").replace(b"30", b"35")
    (tmp_path / "said").write_bytes(LINE + low)
    farm = program(tmp_path, f"cat {tmp_path}/said")
    (found,) = PhoneFarmAdapter([farm]).find()
    assert (found.label, found.usable, found.nodes) == ("phone-pool", True, ())
    assert found.attributes == {
        "count": 2,
        "ready": 1,
        "charging": 2,
        "battery_min": 0.1,
        "temperature_c": 35.0,
    }
    (found,) = PhoneFarmAdapter([farm], PhoneRules(battery_min=0.95)).find()
    assert not found.usable
    assert list(PhoneFarmAdapter([program(tmp_path, ":")]).find()) == []
    (found,) = PhoneFarmAdapter([program(tmp_path, "echo no")]).find()
    assert (found.usable, found.fault) == (False, "line 1: is not JSON")
    (found,) = PhoneFarmAdapter([program(tmp_path, "exit 3")]).find()
    assert not found.usable


def test_a_lease_gets_the_first_that_can_be_used() -> None:
    broken = Device("accel-hailo8", "first", fault="no")
    good = Device("accel-hailo8", "second")
    unknown = Device("", "third")
    assert labels_of((broken, good, good, unknown)) == ("accel-hailo8",)
    assert first_usable((broken, good), "accel-hailo8") is good
    assert first_usable((broken,), "accel-hailo8") is None


def test_the_stand_in_says_what_is_read(tmp_path: Path) -> None:
    assert hailo.architecture(SAID % b"HAILO8") == "accel-hailo8"
    assert hailo.architecture((SAID % b"HAILO8").replace(b"\n", b"\r\n")) == "accel-hailo8"
    assert hailo.architecture(b"x" * hailo.IDENTIFY_BYTES_MAX + SAID % b"HAILO8") is None
    assert phones.LABEL == "phone-pool"
    assert stat.S_ISREG(Path(hailortcli(tmp_path)).stat().st_mode)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
