"""Everything that a figure in the README comes from, one after another, and the table of it.

    python -m bench [--quick] [--only NAME,...] [--list]

Each bench writes its rows to build/bench; the table in bench/results is written anew after each.
A bench that takes longer than it may is ended as Ctrl-C would. Ctrl-C ends the one that runs, and
all: the table has what there is. Wants a quiet machine, for up to two hours; a quarter of one with
--quick.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.rows import ROOT

_END_S = 30.0


@dataclass(frozen=True)
class Step:
    """One bench: its arguments for the full measure and the quick one, and how long it may take."""

    name: str
    argv: tuple[str, ...]
    full: tuple[str, ...]
    quick: tuple[str, ...]
    limit_s: float

    def command(self, *, quick: bool) -> list[str]:
        """The command line."""
        return [sys.executable, *self.argv, *(self.quick if quick else self.full)]


STEPS = (
    Step("peers", ("-m", "bench.peers"), ("--runs", "5"), ("--quick", "--runs", "1"), 2400),
    Step("throughput", ("bench/throughput.py",), ("--runs", "5"), ("--quick",), 1200),
    Step("kills", ("bench/kills.py",), ("--runs", "5"), ("--runs", "1"), 300),
    Step(
        "recovery",
        ("bench/recovery.py",),
        ("--jobs", "50000", "--runs", "5"),
        ("--jobs", "2000", "--runs", "1"),
        300,
    ),
    Step("scale", ("bench/scale.py",), ("--runs", "5"), ("--quick",), 2400),
    Step("owner", ("bench/owner.py",), ("--runs", "10"), ("--runs", "2"), 480),
    Step("sandbox", ("bench/sandbox.py",), ("--runs", "10"), ("--quick",), 240),
    Step(
        "comfort",
        ("bench/comfort.py",),
        ("--policy", "defaults", "--pairs", "40"),
        ("--policy", "defaults", "--pairs", "6"),
        360,
    ),
    Step(
        "footprint",
        ("bench/footprint.py",),
        ("--seconds", "30", "--runs", "5"),
        ("--seconds", "5", "--runs", "1"),
        300,
    ),
    Step("startup", ("bench/startup.py",), ("25",), ("5",), 60),
)


def main() -> int:
    """Run them; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="names, with commas between")
    parser.add_argument("--list", action="store_true", help="say what would be run")
    asked = parser.parse_args()
    steps = chosen(asked.only)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    failed: list[str] = []
    try:
        for number, step in enumerate(steps, 1):
            argv = step.command(quick=asked.quick)
            print(f"== [{number}/{len(steps)}] {step.name}: {' '.join(argv[1:])}", flush=True)
            if asked.list:
                continue
            begun = time.monotonic()
            said = run(argv, step.limit_s)
            if said:
                failed.append(step.name)
            print(f"== {step.name}: {said or 'done'}, {time.monotonic() - begun:.0f} s", flush=True)
            subprocess.run([sys.executable, "bench/table.py"], cwd=ROOT, check=False)
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
        return 130
    if failed:
        print(f"not whole: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def chosen(only: str) -> Sequence[Step]:
    """Return the steps of these names; all without any."""
    names = {name for name in only.split(",") if name}
    known = {step.name for step in STEPS}
    if names - known:
        raise SystemExit(f"no such bench; there are: {', '.join(sorted(known))}")
    return [step for step in STEPS if not names or step.name in names]


def run(argv: Sequence[str], limit_s: float) -> str:
    """Run a bench; say what was wrong, or nothing."""
    folders = os.pathsep.join((str(ROOT), str(Path(ROOT, "tests"))))
    # A session of its own: Ctrl-C comes to it once, from us, and it cleans up. So does our death.
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "INT", "--", *argv],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": folders},
        start_new_session=True,
    )
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        _end(process)
        return f"ended after {limit_s:.0f} s"
    except KeyboardInterrupt:
        _end(process)
        raise
    return f"failed with {status}" if status else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
