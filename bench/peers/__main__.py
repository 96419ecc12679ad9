"""Other systems on this machine, each with two worker processes, in turns: bench/peers/README.md.

    python -m bench.peers [--runs 5] [--quick] [--only NAME,...] [--list]

Writes build/bench/peers.json after each run of each peer; Ctrl-C ends every process and folder.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from bench import rows
from bench.peers import measures
from bench.peers.guest import Guest, GuestError, adopt, end_all
from bench.peers.known import PEERS, Known
from bench.peers.samples import Samples

START_S = 90.0


def main() -> None:
    """Measure what is installed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="short measures, two runs")
    parser.add_argument("--only", default="", help="names, or how they begin, with commas between")
    parser.add_argument("--list", action="store_true", help="say what could be run here")
    asked = parser.parse_args()
    wanted = _chosen(asked.only)
    if asked.list:
        for known in wanted:
            print(f"{known.name:<22} {known.lacks() or 'installed'}")
        return
    adopt()
    effort = measures.QUICK if asked.quick else measures.Effort()
    on, samples = rows.machine(), Samples()
    late: set[str] = set()
    present = []
    for known in wanted:
        if lacks := known.lacks():
            samples.failed(known.name, lacks)
        else:
            present.append(known)
    runs = min(asked.runs, 2) if asked.quick else asked.runs
    folder = Path(tempfile.mkdtemp(prefix="bench-peers-"))
    folder.chmod(0o711)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    try:
        for run in range(runs):
            for known in present:
                guest = Guest(known, folder / known.module)
                _run(guest, effort, samples, late, f"{run + 1}/{runs}")
                rows.write("peers", samples.rows(), on=on)
    except KeyboardInterrupt:
        print("\nended; rows so far:", file=sys.stderr)
    finally:
        end_all()
        shutil.rmtree(folder, ignore_errors=True)
    for row in samples.rows():
        print(rows.line(row))
    print(rows.write("peers", samples.rows(), on=on))


def _chosen(only: str) -> list[Known]:
    names = [name.strip().lower() for name in only.split(",") if name.strip()]
    chosen = [
        known
        for known in PEERS
        if not names or any(known.name.lower().startswith(name) for name in names)
    ]
    if not chosen:
        raise SystemExit(f"no such peer; there are: {', '.join(known.name for known in PEERS)}")
    return chosen


def _run(
    guest: Guest, effort: measures.Effort, samples: Samples, late: set[str], turn: str
) -> None:
    begun, name = time.monotonic(), guest.known.name
    if name in late:  # that it is late is known now
        effort = replace(effort, recovery_s=0.0)
    print(f"[{turn}] {name}", file=sys.stderr, end="", flush=True)
    try:
        with guest:
            about = guest.ask("about", effort.limit_s)
            samples.describe(name, _words(about), about["durable"])
            guest.ask("start", START_S)
            for finding in measures.all_of(guest, effort):
                samples.add(name, finding)
                if (finding.note or "").startswith(measures.LATE):
                    late.add(name)
                print(".", file=sys.stderr, end="", flush=True)
        samples.ran(name)
    except (GuestError, TimeoutError, OSError, psutil.Error) as error:
        samples.failed(name, str(error) or type(error).__name__)
        print(f" {error}", file=sys.stderr, end="")
    print(f" {time.monotonic() - begun:.0f} s", file=sys.stderr)


def _words(about: dict[str, str]) -> str:
    said = [about["versions"], about["configuration"]]
    if about["no_stop"]:
        said.append(f"stop: {about['no_stop']}")
    if about["no_recovery"]:
        said.append(f"recovery: {about['no_recovery']}")
    return "; ".join(said)


if __name__ == "__main__":
    main()
