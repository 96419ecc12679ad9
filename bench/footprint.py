"""Memory and CPU of an idle, connected lenderd (and the broker and NATS server beside it).

Each turn starts a fleet of one machine on the loopback, waits until it is calm, and reads /proc for
a while. CPU is what the scheduler gave all threads over wall time (to the nanosecond, where the
kernel counts that; /proc/PID/stat counts in 10 ms); memory is RSS and PSS (what would be freed).

    python bench/footprint.py [--seconds 30] [--runs 5]

Writes build/bench/footprint.json.
"""

import argparse
import platform
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rows

from deploy.local.fleet import Fleet

CALM_S = 5.0
Found = dict[tuple[str, str, str], list[float]]
"""By process, what was read of it, and its unit."""


def main() -> None:
    """Measure so many turns; print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    on = rows.machine()
    print(f"{asked.seconds:g} s each, Python {platform.python_version()}, {platform.platform()}")
    found: Found = defaultdict(list)
    for _ in range(asked.runs):
        folder = Path(tempfile.mkdtemp(prefix="lender-footprint-"))
        folder.chmod(0o711)
        try:
            with Fleet(folder, ("desk",)) as fleet:
                time.sleep(CALM_S)
                _turn(_processes(fleet), asked.seconds, found)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    for row in (table := _table(found, asked.seconds)):
        print(rows.line(row))
    rows.write("footprint", table, on=on)


def _processes(fleet: Fleet) -> dict[str, psutil.Process]:
    daemon = psutil.Process(fleet.lenders["desk"].pid)
    broker = psutil.Process(fleet.broker.pid)
    named = {"lenderd": daemon, "broker": broker}
    for child in daemon.children():
        named["launcher"] = child
    for child in broker.children():
        named["nats-server"] = child
    return named


def _turn(processes: dict[str, psutil.Process], seconds: float, found: Found) -> None:
    before = {name: _spent_s(one) for name, one in processes.items()}
    wakeups = {name: one.num_ctx_switches().voluntary for name, one in processes.items()}
    time.sleep(seconds)
    for name, one in processes.items():
        memory = one.memory_full_info()
        woken = one.num_ctx_switches().voluntary - wakeups[name]
        found[name, "RSS", "MiB"].append(memory.rss / 2**20)
        found[name, "PSS", "MiB"].append(memory.pss / 2**20)
        found[name, "CPU", "%"].append(100 * (_spent_s(one) - before[name]) / seconds)
        found[name, "wakeups", "1/s"].append(woken / seconds)


def _spent_s(process: psutil.Process) -> float:
    """Return what its threads have had of the processor: Documentation/scheduler/sched-stats."""
    threads = [*Path(f"/proc/{process.pid}/task").glob("*/schedstat")]
    if not threads:
        times = process.cpu_times()
        return times.user + times.system
    return sum(int(one.read_text().split()[0]) for one in threads) / 1e9


def _table(found: Found, seconds: float) -> list[rows.Row]:
    """For the joint table."""
    return [
        rows.Row("lender", f"idle {what}, {name}", unit, tuple(values), f"{seconds:g} s")
        for (name, what, unit), values in found.items()
    ]


if __name__ == "__main__":
    main()
