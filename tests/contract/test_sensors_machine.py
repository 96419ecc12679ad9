"""Memory, exclusive programs, and all hardware sensors together on the real machine."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lender.sensors import kernel_file, memory
from lender.sensors.machine import MachineSensors
from lender.sensors.memory import Memory, MemorySensor
from lender.sensors.metering import Leased
from lender.sensors.pace import Paced
from lender.sensors.programs import ProgramSensor

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def test_available_memory_is_what_psutil_says() -> None:
    ours, theirs = MemorySensor().read(0), MemorySensor(None).read(0)
    assert 0 < ours.available_bytes <= memory.total_bytes() == psutil.virtual_memory().total
    assert abs(ours.available_bytes - theirs.available_bytes) < psutil.virtual_memory().total / 4


def test_swap_in_is_a_rate(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    (tmp_path / "vmstat").write_text("nr_free_pages 1\npswpin 1000\npswpout 5\n")
    sensor = MemorySensor(tmp_path)
    assert sensor.read(0) == Memory(2 << 20, 0)
    (tmp_path / "vmstat").write_text("nr_free_pages 1\npswpin 1500\npswpout 5\n")
    assert sensor.read(2) == Memory(2 << 20, 250 * PAGE_BYTES)
    assert sensor.fault == ""


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"MemAvailable:", b"MemAvailable: x kB"])
def test_memory_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "meminfo").write_bytes(content)
    (tmp_path / "vmstat").write_bytes(content)
    sensor = MemorySensor(tmp_path)
    assert sensor.read(0) == Memory(0, 0)
    assert sensor.fault


def test_a_running_program_of_the_owners_list_is_found(tmp_path: Path) -> None:
    program = tmp_path / "Very-Long-Game-Name"
    shutil.copy(shutil.which("sleep") or "", program)
    sensor = ProgramSensor(("nothing-like-this", "very-long-game-name"))
    assert sensor.read(0) == ""
    with subprocess.Popen([program, "60"]) as running:
        try:
            wait_until_exec(running.pid)
            assert sensor.read(5) == ""  # not asked again so soon
            assert sensor.read(10) == "very-long-game-name"
            assert sensor.read(20, ours={running.pid}) == ""
            by_psutil = ProgramSensor(("very-long-game-name",), None)
            assert by_psutil.read(0) == "very-long-game-name"
        finally:
            running.kill()
    assert sensor.read(30) == ""


def wait_until_exec(pid: int) -> None:
    deadline = time.monotonic() + 30
    while b"ery-" not in (kernel_file.read(f"/proc/{pid}/comm") or b""):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_hidden_and_missing_process_lists_say_so(tmp_path: Path) -> None:
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "comm").write_bytes(b"\xff\xfe\x00 )\n")
    hidden = ProgramSensor(("steam",), tmp_path)
    assert hidden.read(0) == ""
    assert "hidepid" in hidden.fault
    missing = ProgramSensor(("steam",), tmp_path / "none")
    assert missing.read(0) == "steam"
    assert missing.fault


def test_a_slow_source_is_asked_at_its_own_pace() -> None:
    answers = iter(range(10))
    paced = Paced(lambda: next(answers), every_s=5)
    assert [paced.read(now) for now in (0, 1, 4.9, 5, 9, 30)] == [0, 0, 0, 1, 1, 2]


def test_broken_files_never_raise(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    assert kernel_file.read(tmp_path) is None
    assert kernel_file.read(tmp_path / "none") is None
    assert kernel_file.number(tmp_path / "pipe") is None
    assert len(kernel_file.read(tmp_path / "endless") or b"") < 2 << 20
    assert kernel_file.read("a\0b") is None


def test_the_whole_machine_is_read_and_each_lease_metered() -> None:
    sensors = MachineSensors(exclusive_programs=("nothing-like-this",), watts_per_core=6)
    untold = MachineSensors()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            leased = {"lease": Leased((busy.pid,))}
            first = sensors.read(leased, own_pids=(os.getpid(),))
            assert first.signals.cpu_others == psutil.cpu_count()
            deadline = time.monotonic() + 30
            while psutil.Process(busy.pid).cpu_times().user < 0.5:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            reading, theirs = sensors.read(leased), untold.read({})
        finally:
            busy.kill()
    signals = reading.signals
    # Who is not told that it is ours takes it for the owner's.
    assert 0 <= signals.cpu_others < theirs.signals.cpu_others <= (psutil.cpu_count() or 1)
    assert signals.memory_available_bytes > 0
    assert signals.joules_per_cpu_s > 0
    assert "estimate" in signals.energy_method
    assert reading.metered["lease"].cpu_s >= 0.5
    assert reading.metered["lease"].memory_peak_bytes > 0
    assert sensors.read({}).metered == {}
    sensors.close()
