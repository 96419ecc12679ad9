"""Temperature, throttling, battery and energy: recorded machines, broken ones, and this one."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lender.sensors.battery import BatterySensor, Power
from lender.sensors.energy import EnergySensor
from lender.sensors.temperature import Temperature, TemperatureSensor
from lender.sensors.throttling import ThrottlingSensor

NAN = float("nan")


def record(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content + "\n")
    return folder


def test_this_machine_answers() -> None:
    temperature = TemperatureSensor().read(0)
    assert temperature is None or temperature.limit_c >= 40
    power = BatterySensor().read(0)
    assert power.charge is None or 0 <= power.charge <= 1
    assert isinstance(ThrottlingSensor(command=()).read(0), bool)
    assert EnergySensor().read(1, 1, None).joules_per_cpu_s >= 0


def test_the_sensor_nearest_to_its_own_limit_wins() -> None:
    hot = {
        "coretemp": [("Package", 71.0, 84.0, 100.0), ("Core 0", 69.0, 84.0, 100.0)],
        "nvme": [("Composite", 61.0, 65261.0, 69.0), ("Sensor 1", 90.0, None, None)],
        "acpitz": [("", -273.0, 0.0, 0.0), ("", NAN, 80.0, None)],
    }
    assert TemperatureSensor(lambda: hot).read(0) == Temperature(61.0, 69.0)
    assert TemperatureSensor(dict).read(0) is None


def test_broken_temperatures_are_no_sensor_and_say_so() -> None:
    def broken() -> dict[str, list[tuple[object, ...]]]:
        raise OSError(5, "Input/output error")

    sensor = TemperatureSensor(broken)
    assert sensor.read(0) is None
    assert "Input/output" in sensor.fault


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bubblewrap to stand in for /sys")
def test_psutil_reads_a_recorded_machine(tmp_path: Path) -> None:
    """Real psutil over a recorded /sys with a garbled sensor in it."""
    k10 = record(tmp_path / "class/hwmon/hwmon0", name="coretemp", temp1_label="Package id 0")
    record(k10, temp1_input="78000", temp1_max="84000", temp1_crit="100000")
    record(tmp_path / "class/hwmon/hwmon1", name="bad", temp1_input="\x00hot", temp1_max="1")
    code = "from lender.sensors.temperature import TemperatureSensor as T; print(T().read(0))"
    walls = ("bwrap", "--bind", "/", "/", "--bind", str(tmp_path), "/sys", "--dev", "/dev")
    told = subprocess.run([*walls, sys.executable, "-c", code], capture_output=True, check=False)
    assert told.stdout.decode().strip() == repr(Temperature(78.0, 84.0)), told.stderr


@pytest.mark.parametrize(
    ("content", "throttled", "faulty"),
    [
        ("0", False, False),
        ("50000", False, False),
        ("50005", True, False),
        ("8", True, False),
        ("no", True, True),
    ],
)
def test_the_pis_firmware_tells_by_its_low_bits(
    tmp_path: Path, *, content: str, throttled: bool, faulty: bool
) -> None:
    record(tmp_path, get_throttled=content)
    sensor = ThrottlingSensor(tmp_path / "get_throttled", tmp_path, ())
    assert sensor.source == "firmware"
    assert sensor.read(0) is throttled
    assert bool(sensor.fault) is faulty


def test_vcgencmd_is_never_waited_for_and_started_rarely(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    script = f"echo x >> {starts}; sleep 0.2; echo throttled=0x50004"
    sensor = ThrottlingSensor(tmp_path / "none", tmp_path, ("sh", "-c", script))
    began = time.monotonic()
    assert sensor.read(0) is False
    assert time.monotonic() - began < 30
    deadline = time.monotonic() + 30
    while not sensor.read(9.9):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert starts.read_text() == "x\n"
    sensor.read(10)
    sensor.close()


@pytest.mark.parametrize("command", [("/no/such/vcgencmd",), ("sh", "-c", "echo what"), ("false",)])
def test_a_vcgencmd_that_fails_says_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    sensor = ThrottlingSensor(tmp_path / "none", tmp_path, command)
    deadline = time.monotonic() + 30
    while not sensor.fault:
        assert sensor.read(0) is False
        assert time.monotonic() < deadline
        time.sleep(0.01)
    sensor.close()


def test_a_hung_vcgencmd_is_ended(tmp_path: Path) -> None:
    sensor = ThrottlingSensor(tmp_path / "none", tmp_path, ("sleep", "600"))
    for now in (0.0, 10.0, 20.0):
        assert sensor.read(now) is False
    sensor.close()


def test_growing_counters_are_throttling(tmp_path: Path) -> None:
    one = record(tmp_path / "cpu0/thermal_throttle", core_throttle_count="7")
    record(tmp_path / "cpu1/thermal_throttle", package_throttle_count="2")
    sensor = ThrottlingSensor(tmp_path / "none", tmp_path, ())
    assert sensor.source == "thermal_throttle"
    assert sensor.read(0) is False
    assert sensor.read(5) is False
    record(one, core_throttle_count="8")
    assert sensor.read(6) is False  # not asked again so soon
    assert sensor.read(10) is True
    record(one, core_throttle_count="\x00?")
    assert sensor.read(15) is False


def test_a_desktop_is_on_mains_whatever_its_mouse_says(tmp_path: Path) -> None:
    mouse = {"type": "Battery", "scope": "Device", "status": "Discharging", "capacity": "4"}
    record(tmp_path / "hidpp_battery_0", **mouse)
    assert BatterySensor(tmp_path).read(0) == Power(on_battery=False, charge=None)
    assert BatterySensor(tmp_path / "none").read(0) == Power(on_battery=False, charge=None)


@pytest.mark.parametrize(
    ("adapter", "status", "on_battery"),
    [
        ("1", "Not charging", False),
        ("1", "Discharging", False),
        ("0", "Discharging", True),
        ("0", "Charging", False),
        ("0", "Full", True),
        (None, "Full", False),
        (None, "Unknown", True),
        (None, "\x00\x00", True),
        ("?", "Discharging", True),
    ],
)
def test_a_laptop_tells_where_its_power_comes_from(
    tmp_path: Path, *, adapter: str | None, status: str, on_battery: bool
) -> None:
    if adapter is not None:
        record(tmp_path / "ADP1", type="Mains", online=adapter)
    battery = {"type": "Battery", "status": status, "capacity": "80", "power_now": "9500000"}
    record(tmp_path / "BAT0", **battery)
    power = BatterySensor(tmp_path).read(0)
    assert power == Power(on_battery, 0.8, 9.5 if on_battery else None)


def test_a_broken_battery_is_on_battery_and_empty_and_says_so(tmp_path: Path) -> None:
    record(tmp_path / "BAT0", type="Battery", capacity="plenty", current_now="-2000000")
    (tmp_path / "BAT0" / "voltage_now").write_text("11000000")
    sensor = BatterySensor(tmp_path)
    assert sensor.read(0) == Power(True, 0.0, 22.0)
    assert sensor.fault


def packages(folder: Path, microjoules: int, name: str = "package-0") -> Path:
    record(folder / "intel-rapl", name="control")
    record(folder / "intel-rapl:0:0", name="core", energy_uj=str(microjoules))
    record(folder / "intel-rapl:1", name="psys", energy_uj=str(microjoules))
    zone = record(folder / "intel-rapl:0", name=name, max_energy_range_uj="262143328850")
    record(zone, energy_uj=str(microjoules))
    return folder


def test_rapl_is_shared_out_by_cpu_time_and_survives_its_turn(tmp_path: Path) -> None:
    sensor = EnergySensor(packages(tmp_path, 262_143_000_000), watts_per_core=9)
    packages(tmp_path, 262_143_000_000 + 40)
    packages(tmp_path, 39_671_150)  # 40 J further on, and once around
    energy = sensor.read(busy_s=4, elapsed_s=2, discharge_w=None)
    assert energy.joules_per_cpu_s == pytest.approx(10)
    assert "RAPL" in energy.method
    assert "estimate" in energy.method
    assert sensor.read(0, 0, None) == energy
    packages(tmp_path, 39_671_150 + 10_000_000)
    # Hardly anything ran: the idling is not the guests'.
    assert sensor.read(busy_s=0.1, elapsed_s=2, discharge_w=None).joules_per_cpu_s == 5


def test_broken_rapl_keeps_the_last_answer(tmp_path: Path) -> None:
    sensor = EnergySensor(packages(tmp_path, 0))
    packages(tmp_path, 20_000_000)
    energy = sensor.read(2, 2, None)
    for broken in ("\x00", "", "-5", "9" * 30):
        record(tmp_path / "intel-rapl:0", energy_uj=broken)
        assert sensor.read(2, 2, None) == energy


def test_without_rapl_the_battery_then_the_owners_figure(tmp_path: Path) -> None:
    sensor = EnergySensor(tmp_path, watts_per_core=6)
    assert sensor.read(2, 1, 30.0) == (15, "estimate: battery discharge by share of CPU time")
    assert sensor.read(2, 1, None) == (6, "estimate: 6 W per core")
    assert EnergySensor(tmp_path).read(2, 1, None) == (0, "not measurable")
