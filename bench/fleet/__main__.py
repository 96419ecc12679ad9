"""The broker's core with a simulated fleet: utilization, waits and wasted work over days.

    PYTHONPATH=.:tests python -m bench.fleet [--lenders N] [--tasks N] [--days N] [--seed N]

The defaults take an hour or more; a tenth of the lenders, a thirtieth of the tasks and one day some
minutes. Tasks are of several kinds, their loads in proportion to `--tasks`: for fewer lenders or
days ask for fewer of them.
"""

import argparse
import cProfile
import os
import platform
import pstats
from pathlib import Path

from bench.fleet import report
from bench.fleet.simulation import Settings, run

OUT = Path(__file__).resolve().parents[2] / "build"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench.fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Settings()
    parser.add_argument("--lenders", type=int, default=usual.lenders)
    parser.add_argument("--tasks", type=int, default=usual.tasks)
    parser.add_argument("--days", type=float, default=usual.days, help="from a Thursday on")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the pictures")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    args = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {platform.platform()}, load {os.getloadavg()[0]:.2f}"
    )
    profiler = cProfile.Profile() if args.profile else None
    if profiler is not None:
        profiler.enable()
    outcome = run(
        Settings(args.lenders, args.tasks, args.days, args.seed),
        lambda line: print(line, flush=True),
    )
    if profiler is not None:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(50)
    found = report.figures(outcome)
    print("\n".join(["", *report.table(found)]))
    for path in report.write(outcome, found, args.out):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
