"""What the owner waits for a verb: `lender status` and `lender pause` as commands, wall time.

Beside them, in the same run and in turns, the floors: a bare interpreter, one that imports
argparse, and one that imports what such a verb needs of the standard library. A lenderd that lends
nothing answers; `lender resume`, not measured, follows each pause.

    python bench/startup.py [runs]

Writes build/bench/startup.json.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rows

from deploy.local.fleet import Fleet, Lender, command

RUNS = 25
NEEDED = "import json, pathlib, socket"
"""What no verb that reads the state folder and speaks to lenderd does without."""


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    on = rows.machine()
    folder = Path(tempfile.mkdtemp(prefix="lender-startup-"))
    folder.chmod(0o711)
    try:
        with Fleet(folder, ("desk",)) as fleet:
            _report(_measure(fleet.lenders["desk"], runs), runs, on)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(desk: Lender, runs: int) -> dict[str, list[float]]:
    # Without an option, as it is typed: argparse is for those who give one.
    environment = {**os.environ, "LENDER_STATE": str(desk.state)}
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import argparse'": [sys.executable, "-c", "import argparse"],
        f"python -c '{NEEDED}'": [sys.executable, "-c", NEEDED],
        "lender status": [command("lender"), "status"],
        "lender pause": [command("lender"), "pause"],
    }
    took: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, argv in commands.items():
            started = time.perf_counter()
            subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=True)
            if turn:  # the first one compiles and fills the page cache
                took[name].append(1000 * (time.perf_counter() - started))
        subprocess.run(
            [command("lender"), "resume"], env=environment, stdout=subprocess.DEVNULL, check=True
        )
    return took


def _report(took: dict[str, list[float]], runs: int, on: rows.Machine) -> None:
    print(
        f"{runs} runs, Python {platform.python_version()}, {platform.platform()}, load {on['load']}"
    )
    print(f"{'command':<30} {'median ms':>10} {'least ms':>10} {'most ms':>10} {'over pass':>10}")
    floor_ms = statistics.median(took["python -c pass"])
    found = {}
    for name, times in took.items():
        median_ms = statistics.median(times)
        found[name] = {
            "median_ms": round(median_ms, 1),
            "min_ms": round(min(times), 1),
            "max_ms": round(max(times), 1),
            "over_floor_ms": round(median_ms - floor_ms, 1),
        }
        figures = "{median_ms:>10} {min_ms:>10} {max_ms:>10} {over_floor_ms:>10}"
        print(f"{name:<30}", figures.format(**found[name]))
    print(json.dumps(found))
    rows.write(
        "startup",
        (
            rows.Row("lender" if name.startswith("lender") else "floor", name, "ms", tuple(times))
            for name, times in took.items()
        ),
        on=on,
    )


if __name__ == "__main__":
    main()
