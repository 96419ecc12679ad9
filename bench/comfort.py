"""What lending costs the work in the foreground: a compile on every core, and a 60 Hz frame loop.

The foreground works without a break while the guests beside it are frozen and let go in
alternation, half a second each (without, with, with, without, ...): a shared machine drifts by
more than what is measured, but not within a second. What ended in a window counts for it. A
compile's slowdown is the median of the pairs of windows; a frame time's p99 is that of the frames
of all windows. Behind each figure: where it lies with 95 % confidence, by drawing the pairs anew
(bootstrap). Frozen guests keep their memory: the figure without them is one beside their memory,
not beside their work.

Two policies: the defaults, which step back from a busy owner by themselves; and none at all, where
nothing but the scheduler stands between the owner and the guests, as in the first moments of a
compile. Two kinds of guests: busy ones, and ones that copy through as much memory as they may.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import rows as bench_rows

from deploy.local.fleet import Fleet, FleetError, Lender, command, wait_until
from lender.sandbox.processes import cgroup

FRAME_S = 1 / 60
FRAME_WORK_S = 0.004
SETTLED_S = 2.0  # what starts has pages to fill first
DRAWS = 1000
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


Ended = list[tuple[float, float]]
"""What the foreground did: when each piece ended (CLOCK_MONOTONIC), and its time in ms."""


class Window(NamedTuple):
    """A stretch of time in which the guests ran, or stood still."""

    lent: bool
    begin: float
    end: float


class Slowdown(NamedTuple):
    """What the guests cost: the figure without and with them, how much worse, percent.

    `low` and `high`: where that percentage lies with 95 % confidence.
    """

    alone: float
    beside: float
    percent: float
    low: float
    high: float


def main() -> int:
    """Run everything and print a table; 1 where a goal is missed under the default policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100, help="windows with and without (100)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of each (0.5)")
    parser.add_argument("--policy", choices=sorted(POLICIES), help="only this one")
    parser.add_argument("--guests", choices=sorted(GUESTS), help="only these")
    parser.add_argument("--measure", choices=sorted(MEASURES), help="only this one")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--foreground", choices=sorted(MEASURES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.foreground:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the bench was interrupted
        print(json.dumps(FOREGROUNDS[args.foreground](args.seconds)))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the fleet ends with this process
    rows, on = [], bench_rows.machine()
    for policy in (args.policy,) if args.policy else POLICIES:
        for guest in (args.guests,) if args.guests else GUESTS:
            with lending(policy, guest) as desk:
                kinds = (args.measure,) if args.measure else MEASURES
                rows += [measured(desk, policy, guest, kind, args) for kind in kinds]
    bench_rows.write("comfort", [_row(row) for row in rows], on=on)
    if args.json:
        print(json.dumps({"schema": "lender.bench.comfort/2", "cores": CORES, "rows": rows}))
    return 0


def _row(row: dict[str, Any]) -> bench_rows.Row:
    """For the joint table."""
    return bench_rows.Row(
        "lender",
        f"{row['foreground']}, {row['measure']}: slower beside {row['guest']} guests, "
        f"policy {row['policy']}",
        "%",
        (row["percent"],),
        f"95 % between {row['low']:.1f} and {row['high']:.1f}; goal {row['goal_percent']:g}",
    )


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
    """Have the foreground work while the guests come and go."""
    await_full_lending(desk)
    time.sleep(SETTLED_S)
    with foreground(kind, 2 * args.pairs * args.seconds + SETTLED_S) as result:
        time.sleep(SETTLED_S / 2)
        windows = alternate(guests_of(desk), args.pairs, args.seconds)
        ended = result()
    slowdown = SLOWDOWNS[kind](*pieces(windows, ended))
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
        f"  slower by {slowdown.percent:5.1f} % ({slowdown.low:.1f} to {slowdown.high:.1f})"
        f"  goal {GOALS[kind]:g} %",
        file=sys.stderr if args.json else sys.stdout,
        flush=True,
    )
    return row


def guests_of(desk: Lender) -> Path:
    """The cgroup that holds all of its sandboxes.

    Raises:
        SystemExit: there is none.
    """
    top = cgroup.mount()
    found = [] if top is None else [*top.rglob(cgroup.name_for(desk.state))]
    if not found:
        raise SystemExit("lenderd has no cgroup here: run as root, or under systemd")
    return found[0] / cgroup.JOBS


def alternate(guests: Path, pairs: int, seconds: float) -> list[Window]:
    """Freeze them and let them go; the order turns with every pair, so that drift hits both."""
    windows = []
    try:
        for pair in range(pairs):
            for lent in (pair % 2 == 1, pair % 2 == 0):
                assert cgroup.order(guests, "cgroup.freeze", "0" if lent else "1")
                begin = time.monotonic()
                time.sleep(seconds)
                windows.append(Window(lent, begin, time.monotonic()))
    finally:
        cgroup.order(guests, "cgroup.freeze", "0")
    return windows


def pieces(windows: list[Window], ended: Ended) -> tuple[list[list[float]], list[list[float]]]:
    """What ended in each window, a list for each pair: without guests, and beside them."""
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    for window in windows:
        inside = [ms for at, ms in ended if window.begin <= at - ms / 1000 and at < window.end]
        found[window.lent].append(inside)
    return found[False], found[True]


def throughput(alone: list[list[float]], beside: list[list[float]]) -> Slowdown:
    """Sources per second of busy time: the median of the pairs' slowdowns."""
    before, after = ([1000 / statistics.fmean(one) for one in turns] for turns in (alone, beside))
    pairs = [100 * (a / b - 1) for a, b in zip(before, after, strict=True)]
    low, high = confidence(len(pairs), lambda drawn: statistics.median(pairs[n] for n in drawn))
    return Slowdown(
        statistics.median(before), statistics.median(after), statistics.median(pairs), low, high
    )


def p99_frame_time(alone: list[list[float]], beside: list[list[float]]) -> Slowdown:
    """Milliseconds: of the frames of all windows, because one has only a few bad ones."""

    def p99_of(turns: list[list[float]], drawn: range | list[int]) -> float:
        return p99([ms for n in drawn for ms in turns[n]])

    def percent(drawn: range | list[int]) -> float:
        return 100 * (p99_of(beside, drawn) / p99_of(alone, drawn) - 1)

    every = range(len(alone))
    low, high = confidence(len(alone), percent)
    return Slowdown(p99_of(alone, every), p99_of(beside, every), percent(every), low, high)


def confidence(pairs: int, figure: Callable[[list[int]], float]) -> tuple[float, float]:
    """Where the figure lies in 95 of 100 draws of the pairs (Efron, 1979)."""
    draw = random.Random(0)
    found = sorted(figure(draw.choices(range(pairs), k=pairs)) for _ in range(DRAWS))
    return found[int(0.025 * DRAWS)], found[int(0.975 * DRAWS)]


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


@contextmanager
def foreground(kind: str, seconds: float) -> Iterator[Callable[[], Ended]]:
    """Run it as a person's own command would run: in a session of its own, at usual priority."""
    argv = [sys.executable, __file__, "--foreground", kind, "--seconds", str(seconds)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield lambda: json.loads(process.communicate()[0])
        finally:
            process.kill()


def compiled(seconds: float) -> Ended:
    """Compile, on every core."""
    readers = []
    for _ in range(CORES):
        reader, writer = os.pipe()
        if os.fork() == 0:
            with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w") as pipe:
                json.dump(_compile_until(time.monotonic() + seconds), pipe)
            os._exit(0)
        os.close(writer)
        readers.append(reader)
    ended: Ended = []
    for reader in readers:
        with os.fdopen(reader) as pipe:
            ended += json.load(pipe)
        os.wait()
    return ended


def _compile_until(deadline: float) -> Ended:
    source = "\n".join(
        f"def f{n}(a, b=[{n}, {n + 1}], *c, **d):\n"
        f"    return [x * {n} for x in range(a) if x % {n + 2}] + sorted(b) + list(c)"
        for n in range(40)
    )
    ended: Ended = []
    now = time.monotonic()
    while now < deadline:
        begin = now
        compile(source, "bench", "exec")
        zlib.compress(source.encode())
        now = time.monotonic()
        ended.append((now, 1000 * (now - begin)))
    return ended


def frames(seconds: float) -> Ended:
    """Draw at 60 Hz with 4 ms of work each.

    A frame's time is from the moment that it is due until it is drawn.
    """
    count = _work_of(FRAME_WORK_S)
    ended: Ended = []
    begin = time.monotonic()
    for number in range(int(seconds / FRAME_S)):
        due = begin + number * FRAME_S
        time.sleep(max(0.0, due - time.monotonic()))
        _work(count)
        now = time.monotonic()
        ended.append((now, 1000 * (now - due)))
    return ended


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
