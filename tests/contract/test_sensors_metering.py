"""What leases use: real process trees, real cgroups, and the same counted twice never."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lender.sensors import processes
from lender.sensors.cpu import CpuSensor
from lender.sensors.metering import Leased, Meter

BUSY = "while True: pass"
# Starts one child after another; each burns a while, dies, and is waited for.
FORKING = """
import os, time
while True:
    pid = os.fork()
    if pid == 0:
        until = time.process_time() + 0.05
        while time.process_time() < until: pass
        os._exit(0)
    os.waitpid(pid, 0)
"""


@contextlib.contextmanager
def python(code: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def used_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return round(times.user + times.system + times.children_user + times.children_system, 2)


def test_a_leases_cpu_time_is_what_the_kernel_says() -> None:
    meter = Meter()
    with python(BUSY) as pid:
        leased = {"a": Leased((pid,))}
        meter.read(leased)
        wait_for(lambda: used_s(pid) > 0.3)
        before_s = used_s(pid)
        metered = meter.read(leased)["a"]
        # The kernel counts hundredths; the sums that we and the meter make of them differ beyond.
        assert before_s <= round(metered.cpu_s, 2) <= used_s(pid)
        assert metered.memory_peak_bytes >= metered.memory_bytes > 1 << 20
        assert meter.grown_s <= metered.cpu_s


def test_time_of_children_that_died_is_counted_once() -> None:
    meter = Meter()
    with python(FORKING) as pid:
        leased = {"a": Leased((pid,))}
        looks = 0
        while used_s(pid) < 1.0:
            meter.read(leased)
            looks += 1
            time.sleep(0.01)
        before_s = used_s(pid)
        metered = meter.read(leased)["a"]
        assert looks > 3
        # A child that is alive now has not been added to its parent's time yet.
        assert before_s - 0.1 <= metered.cpu_s <= used_s(pid) + 0.1


def test_a_lease_keeps_its_account_over_a_new_sandbox() -> None:
    meter = Meter()
    with python(BUSY) as pid:
        wait_for(lambda: used_s(pid) > 0.2)
        first = meter.read({"a": Leased((pid,))})["a"]
    assert meter.read({"a": Leased()})["a"].cpu_s == first.cpu_s
    with python(BUSY) as pid:
        wait_for(lambda: used_s(pid) > 0.2)
        assert meter.read({"a": Leased((pid,))})["a"].cpu_s >= first.cpu_s + 0.2
    assert meter.read({}) == {}
    assert meter.read({"a": Leased()})["a"].cpu_s == 0


def test_our_own_time_is_taken_off_the_machines() -> None:
    meter, cpu = Meter(), CpuSensor()
    with python(BUSY) as pid, python(BUSY) as other:
        leased = {"a": Leased((pid,)), "b": Leased((other,))}
        meter.read(leased)
        cpu.read(time.monotonic() + 1, 0)
        with_ours, without_ours = CpuSensor(), CpuSensor()
        start_s = used_s(pid) + used_s(other)
        wait_for(lambda: used_s(pid) + used_s(other) > start_s + 1)
        meter.read(leased)
        now = time.monotonic()
        assert without_ours.read(now, meter.grown_s).others < with_ours.read(now, 0).others


def test_before_anything_is_known_every_core_is_the_owners() -> None:
    cpu = CpuSensor()
    assert cpu.read(time.monotonic(), 0).others == psutil.cpu_count()
    assert cpu.read(time.monotonic(), 0).busy_s == 0


def test_processes_that_are_gone_count_as_nothing() -> None:
    with python(BUSY) as pid:
        pass
    assert processes.tree(pid) == []
    assert Meter().read({"a": Leased((pid, 2**22 + 1))}, own_pids=(pid,))["a"].cpu_s == 0


def test_a_tree_holds_the_children_of_every_thread() -> None:
    code = (
        "import subprocess, sys, threading\n"
        "run = lambda: subprocess.run(['sleep', '60'])\n"
        "threading.Thread(target=run, daemon=True).start(); run()"
    )
    with python(code) as pid:
        wait_for(lambda: len(processes.tree(pid)) == 3)


def test_waiting_for_a_cpu_is_seen_in_every_thread() -> None:
    code = (
        "import os, threading\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "def burn():\n"
        "    while True: pass\n"
        "one = threading.Thread(target=burn, daemon=True); one.start(); one.join()"
    )
    meter = Meter()
    with python(code) as one, python(code) as other:
        leased = {"a": Leased((one,)), "b": Leased((other,))}
        meter.read(leased)
        waited_s = 0.0
        deadline = time.monotonic() + 30
        while waited_s < 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            meter.read(leased)
            waited_s += min(meter.delayed_s.values())


def test_psutil_sees_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of macOS, and of kernels without CONFIG_PROC_CHILDREN."""
    with python("import subprocess; subprocess.run(['sleep', '60'])") as pid:
        wait_for(lambda: len(processes.tree(pid)) == 2)
        seen = processes.tree(pid)
        monkeypatch.setattr(processes, "_HAS_CHILDREN_LISTS", False)
        others = processes.tree(pid)
        assert {p.pid for p in others} == {p.pid for p in seen}
        assert all(p.memory_bytes > 0 for p in others)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    folder = next((Path(m[1]) for m in mounts if m[2] == "cgroup2"), None)
    if folder is None or not os.access(folder, os.W_OK):
        pytest.skip("no cgroup v2 that may be written")
    made = folder / f"lender-test-{os.getpid()}"
    made.mkdir()
    yield made
    (made / "cgroup.kill").write_text("1")
    wait_for(lambda: not (made / "cgroup.procs").read_text())
    made.rmdir()


def test_a_cgroup_is_metered_by_the_kernel(cgroup: Path) -> None:
    meter = Meter()
    with python(FORKING) as pid:
        (cgroup / "cgroup.procs").write_text(str(pid))
        leased = {"a": Leased((), cgroup)}
        meter.read(leased)
        start = meter.read(leased)["a"].cpu_s
        start_s = used_s(pid)
        wait_for(lambda: used_s(pid) > start_s + 0.5)
        metered = meter.read(leased)["a"]
        assert metered.cpu_s >= start + 0.4
        assert pid in meter.pids["a"]
        assert metered.memory_bytes > 1 << 20


def test_a_cgroup_that_began_anew_takes_nothing_back(tmp_path: Path) -> None:
    meter = Meter()
    stat = tmp_path / "cpu.stat"
    stat.write_text("usage_usec 5000000\nuser_usec 1\nsystem_usec 1\n")
    (tmp_path / "memory.current").write_text("1048576\n")
    (tmp_path / "memory.peak").write_text("4194304\n")
    first = meter.read({"a": Leased((), tmp_path)})["a"]
    assert (first.cpu_s, first.memory_bytes, first.memory_peak_bytes) == (5, 1 << 20, 4 << 20)
    stat.write_text("usage_usec 2000000\nuser_usec 1\nsystem_usec 1\n")
    assert meter.read({"a": Leased((), tmp_path)})["a"].cpu_s == 7


def test_a_garbled_cgroup_falls_back_to_the_tree(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_bytes(b"\x00usage_usec x\n")
    with python(BUSY) as pid:
        wait_for(lambda: used_s(pid) > 0.1)
        assert Meter().read({"a": Leased((pid,), tmp_path)})["a"].cpu_s >= 0.1
