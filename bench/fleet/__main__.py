"""The broker's core with a simulated fleet: utilization, waits and wasted work over days.

    PYTHONPATH=.:tests python -m bench.fleet [--lenders N] [--tasks N] [--days N] [--seed N]

Tasks are of several kinds, their loads in proportion to `--tasks`: for fewer lenders or days ask
for fewer of them. Ctrl-C and SIGTERM end it, with the pictures of what there is.
"""

import argparse
import cProfile
import os
import platform
import pstats
import signal
import time
from pathlib import Path
from types import FrameType

from bench.fleet import report
from bench.fleet.owners import HOUR_S
from bench.fleet.simulation import Progress, Settings, run

OUT = Path(__file__).resolve().parents[2] / "build"

TELL_S = 10.0


class Teller:
    """Prints how far it is, now and then; and knows whether somebody wants it to end."""

    def __init__(self) -> None:
        self.stopped = False
        self._began = self._told = time.monotonic()

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Let it end after the ten simulated minutes that are under way."""
        self.stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def tell(self, progress: Progress) -> None:
        """Print a line, unless there was one just now."""
        now, part = time.monotonic(), progress.now_s / progress.end_s
        if now < self._told + TELL_S and part < 1.0:
            return
        self._told = now
        took_s = now - self._began
        print(
            f"{part:6.1%} {progress.now_s / HOUR_S:6.1f} h simulated,"
            f" {progress.tasks_done:>10,} tasks done, {progress.leases:>9,} leases,"
            f" {progress.leases_out:>6,} out; {took_s / 60:5.1f} min,"
            f" {took_s / part * (1.0 - part) / 60:5.1f} more",
            flush=True,
        )


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
    teller = Teller()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, teller.stop)
    settings = Settings(args.lenders, args.tasks, args.days, args.seed)
    outcome = run(settings, teller.tell, lambda: teller.stopped)
    if profiler is not None:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(50)
    found = report.figures(outcome)
    print("\n".join(["", *report.table(found)]))
    for path in report.write(outcome, found, args.out):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
