"""What reading the machine costs: each hardware sensor, the whole reading, and psutil beside it.

Prints the median and the 99th percentile of many readings, in microseconds. Paced sensors are
asked afresh each time; the column "a second" says what they take beside running work at their
own pace. Trees are of processes that sleep; programs are searched among 300 more processes.

    python bench/sensors.py [readings]
"""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lender.sensors import battery, memory, programs, temperature, throttling
from lender.sensors.cpu import CpuSensor
from lender.sensors.energy import EnergySensor
from lender.sensors.gpu import GpuMeter
from lender.sensors.machine import MachineSensors
from lender.sensors.metering import Leased, Meter
from lender.sensors.pressure import PressureSensor

BUSY_S = 1.0
FAMILY = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_DFL)
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        signal.pause()
print(flush=True)
signal.pause()
"""


def main() -> None:
    readings = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {platform.platform()}, load {load:.2f}")
    print(f"{'sensor':<36} {'median µs':>10} {'p99 µs':>10} {'a second':>10}")
    rows: dict[str, dict[str, float]] = {}

    def row(name: str, ask: Callable[[float], object], every_s: float = BUSY_S) -> None:
        median_us, p99_us = _cost(ask, readings)
        share = median_us / 1e6 / max(every_s, BUSY_S)
        rows[name] = {"median_us": round(median_us, 1), "p99_us": round(p99_us, 1)}
        print(f"{name:<36} {median_us:>10.1f} {p99_us:>10.1f} {100 * share:>9.4f}%")

    cpu, free, pressure = CpuSensor(), memory.MemorySensor(), PressureSensor()
    row("cpu", lambda now: cpu.read(now, 0))
    row("memory", free.read)
    row("pressure", lambda now: pressure.read(now, ()))
    row("temperature", temperature.TemperatureSensor().read, temperature.EVERY_S)
    slow = throttling.ThrottlingSensor(command=())
    row(f"throttling ({slow.source or 'no source'})", slow.read, throttling.EVERY_S)
    row("battery", battery.BatterySensor().read, battery.EVERY_S)
    energy = EnergySensor()
    row("energy", lambda _: energy.read(1, 1, None))
    if (gpu := GpuMeter.open()) is not None:
        row("gpu", lambda now: gpu.read(now, ()))
    with _family(300):
        row("programs, 300 processes", programs.ProgramSensor(("none",)).read, programs.EVERY_S)
    for size in (3, 100, 500):
        with _family(size) as root:
            meter, leased = Meter(), {"a": Leased((root,))}
            row(f"metering, {size + 1} processes", lambda _, m=meter, one=leased: m.read(one))
            row(f"psutil, {size + 1} processes", lambda _, pid=root: _psutil(pid))
    with _family(3) as root:
        # Paced sensors keep their pace here: this is what the daemon pays.
        sensors = MachineSensors()
        row("whole reading, nothing lent", lambda _: sensors.read({}, (os.getpid(),)))
        four = {str(n): Leased((root,)) for n in range(4)}
        sensors = MachineSensors()
        fresh = iter(range(sys.maxsize))
        row(
            "whole reading, 4 leases",
            lambda _: sensors.read({**four, str(next(fresh)): Leased()}, (os.getpid(),)),
        )
    print(json.dumps(rows))


def _cost(ask: Callable[[float], object], readings: int) -> tuple[float, float]:
    took: list[float] = []
    for turn in range(readings):
        # A hundred seconds later for every sensor that keeps a pace.
        now = time.monotonic() + 100.0 * turn
        began = time.perf_counter()
        ask(now)
        took.append(1e6 * (time.perf_counter() - began))
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


def _psutil(root: int) -> None:
    """What the tree scan was before: all of /proc, and a class for each process."""
    top = psutil.Process(root)
    for process in (top, *top.children(recursive=True)):
        process.cpu_times()


@contextlib.contextmanager
def _family(size: int) -> Iterator[int]:
    """A process with `size` children, all asleep."""
    command = [sys.executable, "-S", "-c", FAMILY, str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            os.killpg(process.pid, 9)


if __name__ == "__main__":
    main()
