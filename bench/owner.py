"""How fast the owner's word is carried out: pause -> all frozen, revoke -> all dead.

The real `lender pause` and `lender revoke` stop real sandboxes of a stand-in lenderd (see
owner_stand.py) that is idle, at full load (its event loop has more messages than it can take),
stopped by SIGSTOP, or idle beside an owner's load on every core. Two times are taken of each verb:
its own, from its entry to the verified stop, and the whole command, with the interpreter's start.
After every pause all threads are looked at in /proc: none may have used processor time since.
After every revoke none of those processes may be left. The floors, in the same run, in alternation:
plain SIGSTOP to one process, and, with --floor, nothing but the kernel's own cgroup.freeze and
cgroup.kill of an equal sandbox, until cgroup.events says that it is done, and a bare interpreter
started beside it. Published for comparison:
BOINC 7.20.5 pauses in 696 ms (median), 1027 ms (max), measured on the same kind of machine.

    python bench/owner.py [--runs 200] [--quick] [--sweep] [--floor] [--only NAME,...]
                          [--lenderd STATE,...]

Writes build/bench/owner.json.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import rows
from owner_stand import WORKLOADS

from lender.daemon.control_client import UnreachableError, ask
from lender.sandbox.processes import cgroup, tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords
from lender.state.folder import StateFolder

DAEMONS = ("idle", "full", "stopped", "beside")
LENDER = Path(sys.executable).with_name("lender")
GOAL_MS = {"pause": 20.0, "revoke": 50.0}
_BOUND_S = 60.0
_WATCH_S = 0.05
_WORK_S = 0.15
_SPIN = ("sh", "-c", "while :; do :; done")


class Measured:
    """The times of one workload beside one state of the daemon, in milliseconds."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self.faults: list[str] = []

    def add(self, name: str, ms: float) -> None:
        """Add one time."""
        self.times.setdefault(name, []).append(ms)


class Bench:
    """A stand-in lenderd with its state folder, restarted when a revoke has ended it."""

    def __init__(self, folder: Path, way: str) -> None:
        self.state = StateFolder(folder / "state")
        self.state.path.mkdir(mode=0o711)
        self._way = way
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers."""
        if self._process is not None:
            # A revoke that ends a silent lenderd leaves it to us to reap.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.01)
            if self._process.poll() is None:
                return
        script = Path(__file__).with_name("owner_stand.py")
        self.state.control_socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(self.state.path), self._way], start_new_session=True
        )
        _until(lambda: self._says("resume"), "the stand-in answers")

    def begin(self, workload: str) -> tuple[AttemptRecord, set[tree.Root]]:
        """Start a sandbox and wait until all of it runs; its record and its processes."""
        self.start()
        _until(lambda: self._says("work", workload=workload), "the work is taken")
        wanted = WORKLOADS[workload][2]
        met: set[tree.Root] = set()

        def stands() -> bool:
            for record in self._records():
                # They begin sooner the less they are looked at.
                if record.cgroup is not None and len(cgroup.pids(record.cgroup)) < wanted:
                    return False
                met.clear()
                met.update(tree.members(record.roots))
                return len(met) >= wanted
            return False

        _until(stands, f"{wanted} processes of {workload}")
        return self._records()[0], met

    def busy(self, on: bool) -> None:  # noqa: FBT001 - what it becomes
        """Have the stand-in's event loop be busy without end, or no longer."""
        _until(lambda: self._says("busy", on=on), "the stand-in is busy")

    def signal(self, number: signal.Signals) -> None:
        """Signal the stand-in itself, and nothing below it."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def lender(self, *verb: str) -> tuple[float, dict[str, object]]:
        """Run a verb; milliseconds of the whole command, and what it printed."""
        argv = [str(LENDER), verb[0], "--json", "--state", str(self.state.path), *verb[1:]]
        started = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, timeout=_BOUND_S, check=False)
        wall_ms = (time.perf_counter() - started) * 1000
        said = done.stdout or done.stderr
        return wall_ms, json.loads(said) if said else {"verified": False}

    def close(self) -> None:
        """End it and all that hangs below it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for record in self._records():
            tree.kill(record.roots)
        if self._way != "sweep" and (top := cgroup.mount()) is not None:
            for left in top.rglob(cgroup.name_for(self.state.path)):
                cgroup.wait_until(left, "populated 0", time.monotonic() + _BOUND_S)
                for below in sorted(left.rglob("*"), reverse=True):
                    if below.is_dir():
                        below.rmdir()
                left.rmdir()

    def _records(self) -> tuple[AttemptRecord, ...]:
        return AttemptRecords(self.state.attempts).read_all().records

    def _says(self, verb: str, **more: str | bool) -> bool:
        try:
            return bool(ask(self.state.control_socket, {"verb": verb, **more}, 5.0)["ok"])
        except UnreachableError:
            return False


def measure(bench: Bench, workload: str, daemon: str, runs: int, *, floor: bool) -> Measured:
    """Pause, resume and revoke the same sandbox, and another one in the next run."""
    found = Measured()
    load = os.cpu_count() or 1 if daemon == "beside" else 0
    with _victim() as victim:
        for _ in range(runs):
            record, met = bench.begin(workload)
            found.add("SIGSTOP", _sigstop_ms(victim))
            if daemon == "full":
                bench.busy(True)
            # The load comes last: beside it the work would take minutes to begin.
            with _load(load):
                if daemon == "stopped":
                    bench.signal(signal.SIGSTOP)
                wall_ms, said = bench.lender("pause")
                _note(found, "pause", said, said.get("stopped_ms"), wall_ms)
                met |= set(tree.members(record.roots))
                found.faults += _moved(met)
                bench.signal(signal.SIGCONT)
                bench.lender("resume")
                time.sleep(_WORK_S)  # it goes on, and the next word is one of its own
                if daemon == "stopped":
                    bench.signal(signal.SIGSTOP)
                wall_ms, said = bench.lender("revoke", "--all")
                _note(found, "revoke", said, said.get("killed_ms"), wall_ms)
                found.faults += [f"{r.pid} lives after a revoke" for r in met if tree.alive(r)]
                bench.signal(signal.SIGCONT)
            if floor:
                _measure_floor(found, bench, workload, load)
            if daemon == "full":
                bench.busy(False)
    return found


def _measure_floor(found: Measured, bench: Bench, workload: str, load: int) -> None:
    """What the kernel alone takes for the same, asked by a program that runs already."""
    record, _ = bench.begin(workload)
    assert record.cgroup is not None, "a floor without cgroups is another one"
    with _load(load):
        # What a command takes that does nothing, started beside the same work.
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        found.add("floor: command", (time.perf_counter() - started) * 1000)
        for name, file, event in (
            ("floor: freeze", "cgroup.freeze", "frozen 1"),
            ("floor: kill", "cgroup.kill", "populated 0"),
        ):
            started = time.perf_counter()
            cgroup.order(record.cgroup, file, "1")
            cgroup.wait_until(record.cgroup, event, time.monotonic() + _BOUND_S)
            found.add(name, (time.perf_counter() - started) * 1000)
            cgroup.order(record.cgroup, "cgroup.freeze", "0")
            time.sleep(_WORK_S)


def _note(
    found: Measured, verb: str, said: dict[str, object], own_ms: object, wall_ms: float
) -> None:
    if said.get("verified") is not True or not isinstance(own_ms, float | int):
        found.faults.append(f"{verb}: not verified: {said}")
    else:
        found.add(verb, float(own_ms))
    found.add(f"{verb}, command", wall_ms)


def _moved(met: set[tree.Root]) -> list[str]:
    """Who used processor time or vanished between two looks: nobody who stands still does."""
    before = _cpu(met)
    time.sleep(_WATCH_S)
    after = _cpu(met)
    moved = [thread for thread, spent in before.items() if after.get(thread) != spent]
    return [
        f"{thread} ran after a pause: {before[thread]}, {after.get(thread)}" for thread in moved
    ]


def _cpu(met: set[tree.Root]) -> dict[str, str]:
    """Time on the processor of every thread: nanoseconds where the kernel counts them."""
    found = {}
    for root in met:
        for thread in _threads(Path(f"/proc/{root.pid}")):
            with contextlib.suppress(OSError):
                fields = _stat(thread)
                exact = thread / "schedstat"
                spent = exact.read_text().split()[0] if exact.exists() else ""
                if fields[0] not in "ZX":
                    found[str(thread)] = f"{fields[11]} {fields[12]} {spent}"
    return found


def _threads(process: Path) -> list[Path]:
    """Where each of its threads is shown.

    What was looked up below a process is undone when it ends: a look into the task folders of
    hundreds would be measured as a part of their end.
    """
    with contextlib.suppress(OSError):
        alone = int(_stat(process)[17]) == 1
        return [process] if alone else list((process / "task").iterdir())
    return []


def _stat(place: Path) -> list[str]:
    return (place / "stat").read_text().rsplit(")", 1)[1].split()


def _sigstop_ms(victim: int) -> float:
    started = time.perf_counter()
    os.kill(victim, signal.SIGSTOP)
    root = tree.identify(victim)
    while not tree.stopped(root):
        time.sleep(0.00005)
    took_ms = (time.perf_counter() - started) * 1000
    os.kill(victim, signal.SIGCONT)
    return took_ms


@contextlib.contextmanager
def _victim() -> Iterator[int]:
    with subprocess.Popen(["sleep", "86400"], start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def _load(count: int) -> Iterator[None]:
    """The owner's own work: a busy process for each core, in a session of its own."""
    spinners = [subprocess.Popen(_SPIN, process_group=0) for _ in range(count)]
    try:
        yield
    finally:
        for process in spinners:
            process.kill()
            process.wait()


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _BOUND_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_BOUND_S:.0f} s: {what}")
        time.sleep(0.01)


def _print(workload: str, daemon: str, found: Measured) -> None:
    for name, times in found.times.items():
        times.sort()
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        goal = GOAL_MS.get(name)
        mark = "" if goal is None else f"  {'ok' if p99 < goal else 'MISSED'} (goal {goal:.0f})"
        figures = f"{statistics.median(times):9.2f} {p99:9.2f} {times[-1]:9.2f}"
        print(f"{workload:<8} {daemon:<8} {name:<16} {figures}{mark}", flush=True)
    for fault in found.faults[:5]:
        print(f"{workload:<8} {daemon:<8} FAULT {fault}", flush=True)


def _rows(workload: str, daemon: str, found: Measured) -> list[rows.Row]:
    """For the joint table; the floors are the kernel's."""
    return [
        rows.Row(
            "kernel" if name == "SIGSTOP" or name.startswith("floor") else "lender",
            f"{name}: {workload}, lenderd {daemon}",
            "ms",
            tuple(round(ms, 3) for ms in times),
            f"{len(found.faults)} faults" if found.faults else None,
        )
        for name, times in found.times.items()
    ]


def main() -> None:
    """Print the table; exit with 1 where a stop was not verified or not true."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="5 runs each")
    parser.add_argument("--sweep", action="store_true", help="without cgroups")
    parser.add_argument("--floor", action="store_true", help="and what the kernel alone takes")
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--lenderd", default=",".join(DAEMONS), help="its states")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="lender-owner-"))
    folder.chmod(0o711)
    runs, faults, started = 5 if args.quick else args.runs, 0, time.monotonic()
    table: list[rows.Row] = []
    on = rows.machine()
    bench = Bench(folder, "sweep" if args.sweep else "cgroup")
    print(f"{runs} runs each, load average {os.getloadavg()[0]:.1f} at the start; milliseconds")
    print(f"{'workload':<8} {'lenderd':<8} {'what':<16} {'p50':>9} {'p99':>9} {'max':>9}")
    try:
        for workload in args.only.split(","):
            for daemon in args.lenderd.split(","):
                found = measure(bench, workload, daemon, runs, floor=args.floor)
                faults += len(found.faults)
                _print(workload, daemon, found)
                table += _rows(workload, daemon, found)
                rows.write("owner", table, on=on)
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{faults} faults, {time.monotonic() - started:.0f} s in all")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
