"""What an owner is told of devices: in status, by doctor, before a grant, in a receipt."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lender.cli import device_words, receipt_words
from lender.cli.checks import devices
from lender.cli.consent_words import agreement, terms
from lender.cli.owner import Told
from lender.core.consent import Consent, Grant
from lender.daemon.settings import DaemonSettings
from lender.state.consent_files import grant_fields, load_consent
from lender.state.folder import StateFolder
from lender.state.grant_writing import write_grant

NOW = 1_800_000_000.0
GRANT = Grant("G-1", "U" + "A" * 55, "command", None, 4, 2 << 30, NOW + 3600, NOW)
LENT = replace(GRANT, devices=("accel-coral-usb", "accel-hailo8"))
HAILO = {
    "label": "accel-hailo8",
    "name": "Hailo-8 at 0000:01:00.0",
    "attributes": {},
    "fault": "",
    "mend": "",
    "given": True,
}
PHONES = {
    "label": "phone-pool",
    "name": "phones",
    "attributes": {
        "count": 5,
        "ready": 3,
        "charging": 4,
        "battery_min": 0.5,
        "temperature_c": 36.2,
    },
    "fault": "",
    "given": False,
}
BARE = {"label": "", "name": "Hailo at 0000:02:00.0", "fault": "no driver", "mend": "install it"}


def told(*found: dict[str, Any]) -> Told:
    return Told("answered", {"devices": list(found)})


def test_status_says_what_becomes_of_each() -> None:
    assert device_words.lines({}) is None
    assert device_words.lines({"devices": [HAILO, PHONES, BARE]}) == [
        (
            "Hailo-8 at 0000:01:00.0 (accel-hailo8) · "
            "lent to nobody: lender grant … --device accel-hailo8"
        ),
        (
            "phones (phone-pool) · 3 of 5 phones ready · battery 50 % or more · 36 °C · "
            "a label alone, no job is given it"
        ),
        "! Hailo at 0000:02:00.0: no driver (lender doctor)",
    ]
    status = {"devices": [HAILO], "grants": [grant_fields(LENT, "")]}
    (line,) = device_words.lines(status) or ()
    assert line.endswith(" · free")
    running = [{"job": "J-1", "devices": []}, {"job": "J-2", "devices": ["accel-hailo8"]}]
    (line,) = device_words.lines({**status, "running": running}) or ()
    assert line.endswith(" · used by J-2")


def test_status_says_what_becomes_of_gpus() -> None:
    status: dict[str, Any] = {"machine": {"gpus": [{"id": "GPU-1", "vram_free_bytes": 7 << 30}]}}
    said = "GPU 0 (GPU-1) · 7 GiB of its memory free · "
    assert device_words.lines(status) == [f"{said}lent to nobody: lender grant … --gpu"]
    status["grants"] = [grant_fields(replace(GRANT, vram_bytes=1 << 30), "")]
    assert device_words.lines(status) == [f"{said}lent"]


def test_doctor_says_why_a_gpu_is_not_offered(tmp_path: Path) -> None:
    assert not list(devices.gpus(tmp_path))
    for number, class_ in enumerate(("0x030200", "0x040300")):  # the second is its sound
        folder = tmp_path / f"sys/bus/pci/devices/0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text("0x10de\n")
        (folder / "class").write_text(f"{class_}\n")
    link = tmp_path / "sys/bus/pci/devices/0000:00:00.0/driver"

    def told_of(driver: str) -> devices.Check:
        place = tmp_path / "sys/bus/pci/drivers" / driver
        place.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(place)
        (found,) = devices.gpus(tmp_path)
        return found

    (bare,) = devices.gpus(tmp_path)
    assert (bare.level, "no driver has taken it" in bare.text) == ("info", True)
    assert "nouveau, which can't compute" in told_of("nouveau").text
    assert told_of("vfio-pci").mend == ""
    assert "nvidia-modprobe" in told_of("nvidia").mend
    (tmp_path / "dev").mkdir()
    for node in ("nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / node).touch()
    assert told_of("nvidia").level == "ok"


def test_doctor_says_what_a_device_needs() -> None:
    hailo, phones, bare = devices.devices(told(HAILO, PHONES, BARE))
    assert (hailo.name, hailo.level) == ("device.accel-hailo8", "ok")
    assert "lender grant … --device accel-hailo8" in hailo.text
    assert "no job is given it" in phones.text
    assert (bare.name, bare.level, bare.mend) == ("device.unknown", "warning", "install it")


def test_doctor_looks_itself_where_no_lenderd_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sys/class/apex/apex_0"
    folder.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (found,) = devices.devices(Told("absent", {}), tmp_path)
    assert (found.level, "apex_0 is missing" in found.text) == ("warning", True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not list(devices.devices(Told("absent", {}), tmp_path)), "root may open everything"


def test_the_words_of_a_grant_name_the_device() -> None:
    text = agreement(LENT, "alice", {}, [])
    assert "a Coral Edge TPU (USB), a Hailo-8 accelerator" in text
    assert "asks for accel-coral-usb or accel-hailo8 uses it itself" in text
    assert "Nobody wipes its memory" in text
    assert "no GPU, a Coral Edge TPU (USB), a Hailo-8 accelerator, no network" in terms(LENT)
    plain = agreement(GRANT, "alice", {}, [])
    assert "accel" not in plain
    assert "driver" not in plain


def test_a_grants_file_keeps_it_and_an_older_one_allows_none(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.create()
    later = replace(GRANT, id="G-2", devices=("accel-of-a-later-version",))
    for grant in (replace(LENT, id="G-0"), GRANT, later):
        write_grant(state, grant, "shown")
    reading = load_consent(state)
    assert reading.ignored == ()
    assert reading.consent == Consent((replace(LENT, id="G-0"), GRANT, later))
    assert "devices" not in (state.grants / "G-1.toml").read_text()


@pytest.mark.parametrize(
    "written",
    ['"accel-hailo8"', "[1]", '["hailo8"]', '["/dev/sda"]', '["accel-"]', '["accel-a\\u0000"]'],
)
def test_a_file_with_something_else_allows_nothing(tmp_path: Path, written: str) -> None:
    state = StateFolder(tmp_path / "state")
    state.create()
    path = write_grant(state, LENT, "shown")
    said = 'devices = ["accel-coral-usb", "accel-hailo8"]'
    assert said in path.read_text()
    path.write_text(path.read_text().replace(said, f"devices = {written}"))
    reading = load_consent(state)
    assert reading.consent.grants == ()
    assert "devices" in reading.ignored[0].reason


def test_a_receipt_names_the_device_that_was_used() -> None:
    receipt = {"job": "J-1", "grant": "G-1", "outcome": "succeeded", "ended_at": NOW, "gpu_s": 0}
    said = receipt_words.in_full({**receipt, "devices": ["accel-hailo8"]}, {}, {})
    assert any("device: accel-hailo8" in line for line in said)
    assert not any("device" in line for line in receipt_words.in_full(receipt, {}, {}))


def test_settings_say_no_device_by_name() -> None:
    with pytest.raises(ValueError, match="accel-hailo8 can't be said: it is found"):
        DaemonSettings(labels=["ssd", "accel-hailo8"])
    with pytest.raises(ValueError, match="whole path of a program"):
        DaemonSettings.model_validate({"phones": {"command": ["phones"]}})
    said = {"phones": {"command": ["/opt/phones"], "battery_min": 0.8}, "announce": ["nix"]}
    settings = DaemonSettings.model_validate(said)
    assert settings.phones is not None
    assert settings.phones.rules.battery_min == 0.8
