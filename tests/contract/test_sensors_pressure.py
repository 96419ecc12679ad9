"""Pressure of others: the real kernel, recorded files, and files that make no sense."""

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lender.sensors.metering import Leased
from lender.sensors.pressure import Pressure, PressureSensor, cgroup_mount, own_cgroup

GARBLED = (b"", b"\x00\xff", b"some", b"some avg10=x avg60=0 avg300=0 total=1", b"full " * 9999)


def some(total_us: int, average: float = 0.0) -> str:
    line = f"avg10={average:.2f} avg60=0.00 avg300=0.00 total={total_us}\n"
    return f"some {line}full {line}"


def record(folder: Path, suffix: str = "", average: float = 0.0, **totals_us: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("cpu", "memory", "io"):
        (folder / f"{name}{suffix}").write_text(some(totals_us.get(name, 0), average))


@pytest.mark.skipif(not Path("/proc/pressure").exists(), reason="a kernel without PSI")
def test_the_kernel_tells_a_percentage() -> None:
    sensor = PressureSensor()
    for now in (0.0, 1.0):
        pressure = sensor.read(now, ())
        assert all(percent is not None and 0 <= percent <= 100 for percent in pressure)
    assert sensor.fault == ""


def test_a_kernel_without_psi_tells_nothing(tmp_path: Path) -> None:
    sensor = PressureSensor(tmp_path / "none", tmp_path)
    assert sensor.read(0, ()) == Pressure(None, None, None)
    assert sensor.read(1, (Leased(),), (0.5,)) == Pressure(None, None, None)


def test_the_share_is_taken_between_two_readings(tmp_path: Path) -> None:
    record(tmp_path, average=3.25, cpu=1_000_000)
    sensor = PressureSensor(tmp_path, tmp_path)
    assert sensor.read(10, ()) == Pressure(3.25, 3.25, 3.25)
    record(tmp_path, average=99, cpu=1_500_000, io=20_000)
    assert sensor.read(12, ()) == Pressure(25, 0, 1)
    assert sensor.read(12.01, ()) == Pressure(25, 0, 1)


@pytest.mark.parametrize("content", GARBLED)
def test_garbled_files_err_for_the_owner_and_say_so(tmp_path: Path, content: bytes) -> None:
    record(tmp_path)
    sensor = PressureSensor(tmp_path, tmp_path)
    sensor.read(0, ())
    (tmp_path / "memory").write_bytes(content)
    assert sensor.read(1, ()) == Pressure(0, 100, 0)
    assert "memory" in sensor.fault
    record(tmp_path)
    sensor.read(2, ())
    assert sensor.read(3, ()) == Pressure(0, 0, 0)
    assert sensor.fault == ""


def test_others_cgroups_are_asked_where_everybody_has_one(tmp_path: Path) -> None:
    psi, tree = tmp_path / "psi", tmp_path / "cgroup"
    ours = tree / "system.slice" / "lenderd.service"
    elsewhere = (tree / "init.scope", tree / "user.slice", tree / "system.slice" / "sshd.service")

    def tell(seconds: int, *, theirs: int, own: int) -> None:
        for folder in (psi, *elsewhere, ours, ours / "lease", tree / "system.slice"):
            record(folder, "" if folder == psi else ".pressure")
        record(psi, cpu=seconds * 1_000_000, io=seconds * 900_000)
        record(tree / "user.slice", ".pressure", cpu=theirs)
        record(ours / "lease", ".pressure", cpu=own, io=seconds * 900_000)

    tell(1, theirs=0, own=0)
    sensor = PressureSensor(psi, tree)
    leased = (Leased((), ours / "lease"),)
    assert sensor.read(1, leased) == Pressure(0, 0, 0)
    # Ours wait all the time, and so does the machine; the owner waited for 40 ms.
    tell(2, theirs=40_000, own=1_000_000)
    assert sensor.read(2, leased) == Pressure(4, 0, 0)
    assert PressureSensor(psi, tree, own=ours).read(1, (Leased((1,)),)) == Pressure(0, 0, 0)


def test_without_others_cgroups_what_ours_waited_is_taken_off(tmp_path: Path) -> None:
    psi, lease = tmp_path / "psi", tmp_path / "lease"
    record(psi)
    sensor = PressureSensor(psi, tmp_path)
    sensor.read(0, ())
    record(psi, cpu=600_000, memory=500_000)
    record(lease, ".pressure", cpu=200_000)
    pressure = sensor.read(1, (Leased((), lease),))
    # 50 of the 60 % are the others': half of the time, and our 20 % of the other half.
    assert pressure == (pytest.approx(50), pytest.approx(50), 0)
    record(psi, cpu=1_200_000, memory=500_000)
    assert sensor.read(2, (Leased((1,)),), (0.2,)).cpu == pytest.approx(50)
    record(psi, cpu=1_800_000, memory=500_000)
    assert sensor.read(3, (Leased((1,)),), (7.0,)).cpu == 0


def test_only_a_cgroup_named_for_lender_is_its_own(tmp_path: Path) -> None:
    line = tmp_path / "cgroup"
    line.write_text("1:cpu:/x\n0::/system.slice/lenderd.service/daemon\n")
    root = Path("/sys/fs/cgroup")
    assert own_cgroup(line, root) == root / "system.slice/lenderd.service"
    line.write_text("0::/user.slice/user-1000.slice/session-2.scope\n")
    assert own_cgroup(line, root) is None
    line.write_bytes(b"\xff\x00")
    assert own_cgroup(line, root) is None
    assert own_cgroup(tmp_path / "none", root) is None


def test_cgroups_are_found_where_they_are_mounted(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_bytes(b"x\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /c/u cgroup2 rw 0 0\n")
    assert cgroup_mount(mounts) == Path("/c/u")
    assert cgroup_mount(tmp_path / "none") == Path("/sys/fs/cgroup")


@pytest.fixture
def cgroups() -> Iterator[Path]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    folder = next((Path(m[1]) for m in mounts if m[2] == "cgroup2"), None)
    if folder is None or not os.access(folder, os.W_OK) or not (folder / "cpu.pressure").exists():
        pytest.skip("no cgroup v2 with PSI that may be written")
    root = folder / f"lender-psi-test-{os.getpid()}"
    names = ("init.scope", "user.slice", "lender.slice")
    for made in (root, *(root / name for name in names)):
        made.mkdir()
    yield root
    (root / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + 10
    for made in (*(root / name for name in names), root):
        while (made / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        made.rmdir()


def test_our_own_crowding_is_not_the_owners_trouble(cgroups: Path) -> None:
    """Real cgroups: ours wait for a CPU all the time, nobody in the owner's waits."""
    ours = cgroups / "lender.slice"
    crowd = 2 * (os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:
        for _ in range(crowd):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.enter_context(busy)
            stack.callback(busy.kill)
            (ours / "cgroup.procs").write_text(str(busy.pid))
        sensor = PressureSensor(cgroups=cgroups)
        sensor.read(0.0, (Leased((), ours),))
        start = time.monotonic()
        machine = PressureSensor()
        machine.read(0.0, ())
        time.sleep(1)
        elapsed_s = time.monotonic() - start
        whole = machine.read(elapsed_s, ()).cpu
        theirs = sensor.read(elapsed_s, (Leased((), ours),)).cpu
    assert whole is not None
    assert whole > 50
    assert theirs is not None
    assert math.isclose(theirs, 0.0)
