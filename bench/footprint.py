"""Memory and CPU of an idle, connected lenderd (and the broker and NATS server beside it).

Starts a fleet of one machine on the loopback, waits until it is calm, and reads /proc for a
while. CPU is user and system time over wall time; memory is RSS and PSS (what would be freed).

    python bench/footprint.py [seconds]

Writes build/bench/footprint.json.
"""

import json
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rows

from deploy.local.fleet import Fleet

CALM_S = 5.0


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    on = rows.machine()
    folder = Path(tempfile.mkdtemp(prefix="lender-footprint-"))
    folder.chmod(0o711)
    try:
        with Fleet(folder, ("desk",)) as fleet:
            time.sleep(CALM_S)
            _report(_processes(fleet), seconds, on)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _processes(fleet: Fleet) -> dict[str, psutil.Process]:
    daemon = psutil.Process(fleet.lenders["desk"].pid)
    broker = psutil.Process(fleet.broker.pid)
    named = {"lenderd": daemon, "broker": broker}
    for child in daemon.children():
        named["launcher"] = child
    for child in broker.children():
        named["nats-server"] = child
    return named


def _report(processes: dict[str, psutil.Process], seconds: float, on: rows.Machine) -> None:
    before = {name: one.cpu_times() for name, one in processes.items()}
    wakeups = {name: one.num_ctx_switches().voluntary for name, one in processes.items()}
    time.sleep(seconds)
    print(f"idle for {seconds:.0f} s, Python {platform.python_version()}, {platform.platform()}")
    print(f"{'process':<12} {'RSS MiB':>8} {'PSS MiB':>8} {'CPU %':>7} {'wakeups/s':>10}")
    found = {}
    for name, one in processes.items():
        memory, now = one.memory_full_info(), one.cpu_times()
        spent_s = now.user + now.system - before[name].user - before[name].system
        woken = (one.num_ctx_switches().voluntary - wakeups[name]) / seconds
        found[name] = {
            "rss_mib": round(memory.rss / 2**20, 1),
            "pss_mib": round(memory.pss / 2**20, 1),
            "cpu_percent": round(100 * spent_s / seconds, 3),
            "wakeups_per_s": round(woken, 1),
        }
        figures = "{rss_mib:>8} {pss_mib:>8} {cpu_percent:>7} {wakeups_per_s:>10}"
        print(f"{name:<12}", figures.format(**found[name]))
    print(json.dumps(found))
    rows.write("footprint", _table(found, seconds), on=on)


def _table(found: dict[str, dict[str, float]], seconds: float) -> list[rows.Row]:
    """For the joint table."""
    units = {"rss_mib": "MiB", "pss_mib": "MiB", "cpu_percent": "%", "wakeups_per_s": "1/s"}
    words = {"rss_mib": "RSS", "pss_mib": "PSS", "cpu_percent": "CPU", "wakeups_per_s": "wakeups"}
    return [
        rows.Row("lender", f"idle {words[key]}, {name}", units[key], (value,), f"{seconds:g} s")
        for name, figures in found.items()
        for key, value in figures.items()
    ]


if __name__ == "__main__":
    main()
