"""What lending costs the work in the foreground: a compile on every core, and a 60 Hz frame loop.

Each figure is one with lent work beside it against one without (paused), in alternation, in one
run: short turns, because a shared machine drifts. The guests stand on every core before a turn
begins. A compile's slowdown is the median of the pairs; a frame time's p99 is that of the frames
of all turns. Two policies: the defaults, which step back; and none at all, where nothing but the
scheduler stands between the owner and the guests. Two kinds of guests: busy ones, and ones that
copy through as much memory as they may.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from deploy.local.fleet import Fleet, FleetError, Lender, command, wait_until

FRAME_S = 1 / 60
FRAME_WORK_S = 0.004
SETTLED_S = 2.0  # what starts has pages to fill first
CORES = os.cpu_count() or 1
GOALS = {"compile": 2.0, "frames": 10.0}
MEASURES = {"compile": "throughput", "frames": "p99 frame time"}
POLICIES = {
    # The stays are shortened only so that a run takes minutes: guests come back sooner for it.
    "defaults": {"in_use": {"stay_s": 1}, "away": {"stay_s": 1}},
    "none": {"defaults": "dedicated"},
}
GUESTS = {
    "busy": "while :; do :; done",
    "memory": (
        "exec python3 -c 'b = memoryview(bytearray(200 << 20)); h = len(b) // 2\n"
        "while True: b[:h] = b[h:]'"
    ),
}
GUEST_MEMORY = "400M"


class Slowdown(NamedTuple):
    """What the guests cost: the figure without and with them, and how much worse, percent."""

    alone: float
    beside: float
    percent: float
    pairs: list[float]


def main() -> int:
    """Run everything and print a table; 1 where a goal is missed under the default policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12, help="turns with and without (12)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each (5)")
    parser.add_argument("--policy", choices=sorted(POLICIES), help="only this one")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--foreground", choices=sorted(MEASURES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.foreground:
        print(json.dumps(FOREGROUNDS[args.foreground](args.seconds)))
        return 0
    rows = []
    for policy in (args.policy,) if args.policy else POLICIES:
        for guest in GUESTS:
            with lending(policy, guest) as desk:
                rows += [measured(desk, policy, guest, kind, args) for kind in MEASURES]
    if args.json:
        print(json.dumps({"schema": "lender.bench.comfort/1", "cores": CORES, "rows": rows}))
    return int(any(row["policy"] == "defaults" and not row["holds"] for row in rows))


@contextmanager
def lending(policy: str, guest: str) -> Iterator[Lender]:
    """A fleet of one machine that is asked for more work than it has cores."""
    with tempfile.TemporaryDirectory(prefix="lender-comfort-") as folder:
        Path(folder).chmod(0o755)
        env = {"LENDERD_POLICY": json.dumps(POLICIES[policy]), "LENDERD_SLOTS": str(CORES)}
        with Fleet(Path(folder), ("desk",), workloads=("command",), env=env) as fleet:
            argv = [command("lender"), "submit", "--no-wait", "--key", str(fleet.key)]
            argv += ["--url", fleet.url, "--mem", GUEST_MEMORY, "--timeout", "1h"]
            for _ in range(2 * CORES):
                guests = [*argv, "--", "sh", "-c", GUESTS[guest]]
                subprocess.run(guests, check=True, capture_output=True)
            yield fleet.lenders["desk"]


def measured(
    desk: Lender, policy: str, guest: str, kind: str, args: argparse.Namespace
) -> dict[str, object]:
    """Alternate; the order turns with every pair, so that drift hits both alike."""
    turns: dict[bool, list[list[float]]] = {False: [], True: []}
    for pair in range(args.pairs):
        for lent in (pair % 2 == 0, pair % 2 == 1):
            if lent:
                assert desk.owner("resume").returncode == 0
                await_full_lending(desk)
                time.sleep(SETTLED_S)
            else:
                assert desk.owner("pause").returncode == 0
            turns[lent].append(foreground(kind, args.seconds))
    slowdown = SLOWDOWNS[kind](turns[False], turns[True])
    row = {
        "policy": policy,
        "guest": guest,
        "foreground": kind,
        "measure": MEASURES[kind],
        **slowdown._asdict(),
        "goal_percent": GOALS[kind],
        "holds": slowdown.percent < GOALS[kind],
    }
    print(
        f"policy {policy:<8}  guests {guest:<6}  {kind:<7} {MEASURES[kind]:<14}"
        f"  alone {slowdown.alone:9.3f}  beside {slowdown.beside:9.3f}"
        f"  slower by {slowdown.percent:5.1f} %"
        f" (pairs {min(slowdown.pairs):.1f} to {max(slowdown.pairs):.1f})  goal {GOALS[kind]:g} %",
        file=sys.stderr if args.json else sys.stdout,
        flush=True,
    )
    return row


def throughput(alone: list[list[float]], beside: list[list[float]]) -> Slowdown:
    """Sources per second: the median of the pairs' slowdowns."""
    before, after = ([turn[0] for turn in turns] for turns in (alone, beside))
    pairs = [100 * (a / b - 1) for a, b in zip(before, after, strict=True)]
    return Slowdown(
        statistics.median(before), statistics.median(after), statistics.median(pairs), pairs
    )


def p99_frame_time(alone: list[list[float]], beside: list[list[float]]) -> Slowdown:
    """Milliseconds: of the frames of all turns, because a single turn has only a few bad ones."""
    before, after = (p99([ms for turn in turns for ms in turn]) for turns in (alone, beside))
    pairs = [100 * (p99(b) / p99(a) - 1) for a, b in zip(alone, beside, strict=True)]
    return Slowdown(before, after, 100 * (after / before - 1), pairs)


def p99(values: list[float]) -> float:
    """Return the value that one in a hundred is above."""
    return sorted(values)[int(0.99 * len(values))]


def await_full_lending(desk: Lender) -> None:
    """Wait for the guests; where the machine is too busy for them, say why."""
    try:
        wait_until(lambda: fully_lent(desk), "lent work on every core", within_s=90.0)
    except FleetError as error:
        raise SystemExit(
            f"{error}; a quiet machine is needed:\n{desk.owner('why').stdout}"
        ) from None


def fully_lent(desk: Lender) -> bool:
    """Whether lent work runs on every core."""
    running = desk.status().get("running")
    return isinstance(running, list) and sum(one["state"] == "running" for one in running) == CORES


def foreground(kind: str, seconds: float) -> list[float]:
    """Run it as a person's own command would run: in a session of its own, at usual priority."""
    argv = [sys.executable, __file__, "--foreground", kind, "--seconds", str(seconds)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, start_new_session=True)
    return [float(value) for value in json.loads(done.stdout)]


def compiled(seconds: float) -> list[float]:
    """Compile, on every core; returns sources per second, once."""
    readers = []
    for _ in range(CORES):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, str(_compile_until(time.monotonic() + seconds)).encode())
            os._exit(0)
        os.close(writer)
        readers.append(reader)
    total = sum(int(os.read(reader, 64)) for reader in readers)
    for _ in readers:
        os.wait()
    return [total / seconds]


def _compile_until(deadline: float) -> int:
    source = "\n".join(
        f"def f{n}(a, b=[{n}, {n + 1}], *c, **d):\n"
        f"    return [x * {n} for x in range(a) if x % {n + 2}] + sorted(b) + list(c)"
        for n in range(40)
    )
    done = 0
    while time.monotonic() < deadline:
        compile(source, "bench", "exec")
        zlib.compress(source.encode())
        done += 1
    return done


def frames(seconds: float) -> list[float]:
    """Draw at 60 Hz with 4 ms of work each; returns their times, ms.

    A frame's time is from the moment that it is due until it is drawn.
    """
    count = _work_of(FRAME_WORK_S)
    begin, times_s = time.monotonic(), []
    for number in range(int(seconds / FRAME_S)):
        due = begin + number * FRAME_S
        time.sleep(max(0.0, due - time.monotonic()))
        _work(count)
        times_s.append(time.monotonic() - due)
    return [1000 * time_s for time_s in times_s]


def _work_of(seconds: float) -> int:
    count = 10_000
    took_s = []
    for _ in range(20):
        begin = time.monotonic()
        _work(count)
        took_s.append(time.monotonic() - begin)
    return int(count * seconds / min(took_s))


def _work(count: int) -> int:
    total = 0
    for number in range(count):
        total += number & 7
    return total


FOREGROUNDS = {"compile": compiled, "frames": frames}
SLOWDOWNS = {"compile": throughput, "frames": p99_frame_time}

if __name__ == "__main__":
    sys.exit(main())
