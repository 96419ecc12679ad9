"""What a sandbox costs: cold and warm tasks of every runtime, beside a bare fork and exec.

All in one run and in turns: each turn measures every row once, warm rows with a burst of tasks one
after another. A task's time is what lenderd waits for it: from the call of LeaseSandbox.run to the
outcome in its hands, on the event loop that lenderd has; of a lease, where the sandbox is told of
tasks ahead, the time from the first call to the last outcome by their number. Cold is from nothing:
the process forked, the plan handed over, the first task run. As root everything but the launchers'
start is done as an ordinary user, as in lenderd. Bare bubblewrap is started with nothing of ours
around it, once with namespaces alone and once with all the walls that our tasks stand behind.

    python bench/sandbox.py [--runs 40] [--quick] [--only WORD]

Writes build/bench/sandbox.json.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import platform
import pwd
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cloudpickle
import rows as bench_rows
import uvloop
import wasmtime

from lender.daemon.privilege import become
from lender.sandbox import selftest
from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import RUNTIMES, Limits, Runtime, SandboxPlan, TaskOutcome
from lender.sandbox.port import Root
from lender.sandbox.walls import bubblewrap, enter, seccomp

RUNS = 40
BURST = 100
ORDINARY_USER = "nobody"
BARE, WALLED = "bubblewrap, namespaces alone", "bubblewrap, all our walls"
FLOOR, ANEW = "fork and exec", "wasm, cold, compiled anew"
AGAIN = "process, cold, behind another"
TRIP, ASKED = "round trip between two processes", "round trip from an event loop"
_LIMITS = Limits(
    cpu=1,
    memory_bytes=512 << 20,
    time_s=60,
    output_bytes=1 << 20,
    scratch_bytes=1 << 20,
    processes=32,
)
_RENDER = Path(__file__).resolve().parents[1] / "workloads" / "render" / "render.wasm"
_RENDERED = ("64", "64", "4", "4")
_HELLO = """(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\08\\00\\00\\00\\05\\00\\00\\00hello")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))))"""
_TRUE = "/bin/true"
# What lenderd's launcher does between two leases is done by then.
_SETTLED_S = 0.1


class Goal(NamedTuple):
    """What the median is to stay below: so many times the median of another row, or so many ms."""

    most: float
    of: str = ""


class Row(NamedTuple):
    """One line of the table; a turn returns its times in milliseconds."""

    name: str
    turn: Callable[[], Awaitable[list[float]]]
    goal: Goal | None = None


class Stand:
    """What lenderd has: launchers, a state folder, and sandboxes made of plans."""

    def __init__(self, folder: Path, launchers: tuple[Launcher, Launcher]) -> None:
        self.folder = folder
        self.launchers = launchers
        self._made = 0
        self._open: list[LeaseSandbox] = []
        self.hello = folder / "hello.wasm"
        self.render = folder / "render.wasm"

    def place_programs(self, render: bytes) -> None:
        """Write the modules where the sandboxes' user reads them."""
        self.hello.write_bytes(bytes(wasmtime.wat2wasm(_HELLO)))
        self.render.write_bytes(render)

    def new(self, name: str) -> Path:
        """A new private folder."""
        self._made += 1
        made = self.folder / f"{name}-{self._made}"
        made.mkdir(mode=0o700)
        return made

    def sandbox(
        self,
        runtime: Runtime,
        program: Path | None = None,
        argv: tuple[str, ...] = (),
        cache: Path | None = None,
        launcher: int = 0,
    ) -> LeaseSandbox:
        """A sandbox that is not prepared yet."""
        plan = SandboxPlan(
            lease=f"L-{self._made}",
            runtime=runtime,
            job="bench",
            task_count=1,
            program=program,
            argv=argv,
            env={},
            inputs={},
            outputs=(),
            limits=_LIMITS,
            scratch=self.new("scratch"),
            module_cache=cache,
        )
        made = LeaseSandbox(plan, self.launchers[launcher], _record, places=self.folder)
        self._open.append(made)
        return made

    async def cold_ms(self, sandbox: LeaseSandbox) -> list[float]:
        """From nothing to the first outcome; closing is not counted."""
        started = time.perf_counter()
        await sandbox.prepare()
        outcome = await sandbox.run(0)
        took_ms = (time.perf_counter() - started) * 1000
        _check(outcome)
        await sandbox.close()
        self._open.remove(sandbox)
        return [took_ms]

    async def cold_again_ms(self, argv: tuple[str, ...]) -> list[float]:
        """The same of a command, a moment after another one: its walls may stand by then."""
        await self.cold_ms(self.sandbox("process", None, argv))
        await asyncio.sleep(_SETTLED_S)
        return await self.cold_ms(self.sandbox("process", None, argv))

    async def tested_ms(self) -> list[float]:
        """The self-test, as lenderd does it at its start."""
        started = time.perf_counter()
        await selftest.check(self.launchers[0], self.folder)
        return [(time.perf_counter() - started) * 1000]

    async def close(self) -> None:
        """End what is left."""
        for sandbox in self._open:
            await sandbox.close()
        for launcher in self.launchers:
            await launcher.close()


async def rows(stand: Stand, stack: contextlib.ExitStack) -> AsyncIterator[Row]:
    """The table's rows, floors first; their fixed parts are made here."""
    yield Row(FLOOR, _in_line(lambda: _spawn([_TRUE])))
    echo = stack.enter_context(_echo())
    yield Row(TRIP, _burst_of(lambda: _round_trip(echo)))
    yield Row(ASKED, lambda: _asked(echo))
    bwrap = bubblewrap.find()
    if bwrap is None:
        print("no bubblewrap: no process, no python")
    else:
        yield Row(BARE, _in_line(lambda: _spawn([bwrap, *_NAMESPACES, _TRUE])))
        walled = stack.enter_context(_walled(bwrap, stand.new("scratch")))
        yield Row(WALLED, _in_line(walled))
        goal = Goal(1.5, WALLED)
        argv = (_TRUE,)
        yield Row(
            "process, cold", lambda: stand.cold_ms(stand.sandbox("process", None, argv)), goal
        )
        yield Row(AGAIN, lambda: stand.cold_again_ms(argv), goal)
        standing = await _prepared(stand.sandbox("process", None, argv))
        yield Row("process, next task of the lease", lambda: _tasks(standing, 1), goal)
    if shutil.which("crun") is not None:
        yield Row("oci, cold", lambda: stand.cold_ms(stand.sandbox("oci", None, (_TRUE,))))
    hello = await _prepared(stand.sandbox("wasm", stand.hello, (), stand.new("modules")))
    yield Row("wasm, warm, one by one", lambda: _tasks(hello, BURST))
    yield Row("wasm, warm, of a lease", lambda: _lease(hello), Goal(0.2))
    if "python" in RUNTIMES and bwrap is not None:
        program = stand.folder / "function.pickle"
        program.write_bytes(_function())
        warm = await _prepared(stand.sandbox("python", program))
        yield Row("python, cold", lambda: stand.cold_ms(stand.sandbox("python", program)))
        yield Row("python, warm, one by one", lambda: _tasks(warm, BURST))
        yield Row("python, warm, of a lease", lambda: _lease(warm), Goal(0.3))
    cache = stand.new("modules")

    def wasm(cache: Path | None, launcher: int = 0) -> Awaitable[list[float]]:
        return stand.cold_ms(stand.sandbox("wasm", stand.render, _RENDERED, cache, launcher))

    yield Row(ANEW, lambda: wasm(None))
    await wasm(cache)
    yield Row("wasm, cold, compiled before", lambda: wasm(cache))
    reused = Goal(0.5, ANEW)
    yield Row("wasm, cold, compiled by another daemon", lambda: wasm(cache, 1), reused)
    yield Row("self-test of all runtimes", stand.tested_ms, Goal(2000))


async def measure(stand: Stand, runs: int, only: str) -> dict[str, tuple[list[float], Goal | None]]:
    """All rows in turns; the first turn warms up and is left out."""
    found: dict[str, tuple[list[float], Goal | None]] = {}
    with contextlib.ExitStack() as stack:
        table = [row async for row in rows(stand, stack)]
        for turn in range(runs + 1):
            for row in table:
                if only in row.name or row.name in {FLOOR, BARE, WALLED}:
                    times = await row.turn()
                    if turn:
                        found.setdefault(row.name, ([], row.goal))[0].extend(times)
    return found


def report(found: dict[str, tuple[list[float], Goal | None]], on: bench_rows.Machine) -> None:
    """Print the table, and the same as one line of JSON."""
    medians = {name: statistics.median(times) for name, (times, _) in found.items()}
    heads = " ".join(f"{head:>7}" for head in ("/fork", "/bare", "/walls"))
    print(f"{'milliseconds':<40} {'n':>5} {'p50':>8} {'p99':>8} {heads}")
    for name, (times, goal) in found.items():
        p50, p99 = medians[name], sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]
        shares = "".join(
            f" {p50 / medians[other]:7.2f}" if other in medians else f" {'':>7}"
            for other in (FLOOR, BARE, WALLED)
        )
        print(
            f"{name:<40} {len(times):>5} {p50:8.3f} {p99:8.3f}{shares}{_judge(p50, goal, medians)}"
        )
    rounded = {name: round(p50, 4) for name, p50 in medians.items()}
    print(json.dumps(rounded))
    bench_rows.write(
        "sandbox",
        (
            bench_rows.Row(
                "floor" if name in {FLOOR, TRIP, ASKED, BARE, WALLED} else "lender",
                name,
                "ms",
                tuple(times),
            )
            for name, (times, _) in found.items()
        ),
        on=on,
    )


def _judge(p50: float, goal: Goal | None, medians: dict[str, float]) -> str:
    if goal is None or (goal.of and goal.of not in medians):
        return ""
    most = goal.most * medians[goal.of] if goal.of else goal.most
    words = f"{goal.most:g} x {goal.of}" if goal.of else f"{goal.most:g} ms"
    return f"  {'ok' if p50 <= most else 'MISSED'} (goal {words})"


_NAMESPACES = ("--unshare-all", "--die-with-parent", "--ro-bind", "/", "/")


def _spawn(argv: list[str], given: dict[int, int] | None = None) -> None:
    """Start a program, with our descriptors at its numbers, and wait for its end."""
    actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in (given or {}).items()]
    pid = os.posix_spawn(argv[0], argv, {}, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise RuntimeError(f"{argv} ended with {status}")


@contextlib.contextmanager
def _walled(bwrap: str, scratch: Path) -> Iterator[Callable[[], None]]:
    """Bubblewrap with the options that the process runtime gives it."""
    code = seccomp.program()
    fds = {"seccomp": 4} if code is not None else {}
    words = bubblewrap.options(str(scratch), {}, {}, _LIMITS, fds, enter.options())
    command = enter.command([_TRUE], bubblewrap.resource_limits(_LIMITS))
    argv = [bwrap, "--args", "3", "--", *command]
    files = {3: _memory_file(words)} | ({4: _memory_file(code)} if code is not None else {})

    def start() -> None:
        for fd in files.values():
            os.lseek(fd, 0, os.SEEK_SET)
        _spawn(argv, files)

    try:
        yield start
    finally:
        for fd in files.values():
            os.close(fd)


def _memory_file(content: bytes) -> int:
    """Its number is out of the way of those that the program is given."""
    made = os.memfd_create("bench")
    os.write(made, content)
    fd = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(made)
    return fd


@contextlib.contextmanager
def _echo() -> Iterator[socket.socket]:
    """A process that sends back what it gets."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            while data := theirs.recv(1 << 16):
                theirs.sendall(data)
        finally:
            os._exit(0)
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        os.waitpid(pid, 0)


def _round_trip(echo: socket.socket) -> None:
    echo.sendall(b"x" * 300)
    echo.recv(1 << 16)


async def _asked(echo: socket.socket) -> list[float]:
    """As lenderd asks its sandboxes: the answer comes by the loop, into a future."""
    loop, took = asyncio.get_running_loop(), []
    waiting: list[asyncio.Future[bytes]] = []
    loop.add_reader(echo, lambda: waiting.pop().set_result(echo.recv(1 << 16)))
    for _ in range(BURST):
        started = time.perf_counter()
        answer = loop.create_future()
        waiting.append(answer)
        echo.sendall(b"x" * 300)
        await answer
        took.append((time.perf_counter() - started) * 1000)
    loop.remove_reader(echo)
    echo.setblocking(True)  # the loop has changed that
    return took


def _function() -> bytes:
    return bytes(cloudpickle.dumps(lambda _task: "hello"))


def _in_line(do: Callable[[], None], times: int = 1) -> Callable[[], Awaitable[list[float]]]:
    async def turn() -> list[float]:
        took = []
        for _ in range(times):
            started = time.perf_counter()
            do()
            took.append((time.perf_counter() - started) * 1000)
        return took

    return turn


def _burst_of(do: Callable[[], None]) -> Callable[[], Awaitable[list[float]]]:
    return _in_line(do, BURST)


async def _tasks(sandbox: LeaseSandbox, count: int) -> list[float]:
    took = []
    for task in range(count):
        started = time.perf_counter()
        outcome = await sandbox.run(task)
        took.append((time.perf_counter() - started) * 1000)
        _check(outcome)
    return took


async def _lease(sandbox: LeaseSandbox) -> list[float]:
    """As lenderd runs them: what is next is known; the mean of a burst, its first wait included."""
    tasks = range(BURST)
    started = time.perf_counter()
    for task in tasks:
        _check(await sandbox.run(task, tasks[task + 1 :]))
    return [(time.perf_counter() - started) * 1000 / BURST]


async def _prepared(sandbox: LeaseSandbox) -> LeaseSandbox:
    await sandbox.prepare()
    return sandbox


def _check(outcome: TaskOutcome) -> None:
    if outcome.state != "succeeded":
        raise RuntimeError(f"a task failed: {outcome}")


async def _record(_roots: tuple[Root, ...]) -> None:
    """Nobody revokes a bench."""


async def _run(folder: Path, runs: int, only: str) -> None:
    on, user = bench_rows.machine(), pwd.getpwnam(ORDINARY_USER)
    ids = (user.pw_uid, user.pw_gid) if os.geteuid() == 0 else None
    render = _RENDER.read_bytes()
    one = await Launcher.start(drop_to=ids, preload=RUNTIMES, spare=True)
    other = await Launcher.start(drop_to=ids, preload=RUNTIMES, spare=True)
    await asyncio.to_thread(bool)  # loads what the interpreter may keep where only root reads
    if ids is not None:
        _give(bench_rows.FOLDER / "sandbox.json", ids)
        become(ids, folder)
    stand = Stand(folder, (one, other))
    try:
        stand.place_programs(render)
        report(await measure(stand, runs, only), on)
    finally:
        await stand.close()


def _give(path: Path, ids: tuple[int, int]) -> None:
    """Have a file that they may write, where they may make none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.chown(path, *ids)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--quick", action="store_true", help="5 runs")
    parser.add_argument("--only", default="", help="rows with this in their name, and the floors")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    runs = 5 if args.quick else args.runs
    load = os.getloadavg()[0]
    print(
        f"{runs} turns, Python {platform.python_version()}, {platform.platform()}, load {load:.2f}"
    )
    folder = Path(tempfile.mkdtemp(prefix="lender-sandbox-"))
    folder.chmod(0o711)
    try:
        uvloop.run(_run(folder, runs, args.only))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
