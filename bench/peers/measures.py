"""What is measured of a peer, once: each function asks a guest and returns findings."""

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from bench.peers import tasks
from bench.peers.guest import Guest, family, shared_memory, unlink

STOP_S = 30.0
LATE = "not within"
"""How the note of a recovery begins that was not waited for to its end."""
_WARM_UP = 20
_COUNT_MAX = 200_000
_ROLES = ("workers", "servers", "client")


@dataclass(frozen=True)
class Effort:
    """How long to look.

    Attributes:
        tasks_s: about so long are tasks submitted.
        idle_s: so long is an idle peer watched.
        trips: round trips, one after another.
        recovery_s: so long is waited for a killed worker's task; 0 leaves that out.
        limit_s: bound on any one request.
    """

    tasks_s: float = 2.5
    idle_s: float = 3.0
    trips: int = 100
    recovery_s: float = 35.0
    limit_s: float = 90.0


QUICK = Effort(tasks_s=0.7, idle_s=1.0, trips=30, recovery_s=10.0, limit_s=60.0)


@dataclass(frozen=True)
class Finding:
    """One value of one measure."""

    measure: str
    unit: str
    value: float
    note: str | None = None


def all_of(guest: Guest, effort: Effort) -> Iterator[Finding]:
    """Measure a guest that has started; the last measure kills one of its workers."""
    about = guest.ask("about", effort.limit_s)
    guest.ask("run", effort.limit_s, what="noop", count=_WARM_UP)
    guest.ask("run", effort.limit_s, what="true", count=_WARM_UP)
    yield from _idle(guest, effort)
    yield from _round_trips(guest, effort)
    yield from _tasks(guest, effort, "noop", "no-op tasks")
    if about["batches"]:
        yield from _tasks(guest, effort, "batched", "no-op tasks, many to a message")
    yield from _tasks(guest, effort, "true", "tasks that run /bin/true")
    if not about["no_stop"]:
        yield from _stop(guest, effort)
    if effort.recovery_s and not about["no_recovery"]:
        yield from _recovery(guest, effort)


def enough(ask: Callable[[int], float], seconds: float) -> int:
    """Find how many tasks take about that long.

    Args:
        ask: has so many run, and returns the seconds that they took.
        seconds: what the tasks are to take together.
    """
    count = _WARM_UP
    while (took_s := ask(count)) < seconds / 3 and count < _COUNT_MAX:
        count = min(_COUNT_MAX, count * 4)
    return min(_COUNT_MAX, max(_WARM_UP, round(count * seconds / took_s)))


def percentile(values: list[float], percent: int) -> float:
    """Return the value that so many percent do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _tasks(guest: Guest, effort: Effort, what: str, measure: str) -> Iterator[Finding]:
    def ask(count: int) -> float:
        took_s: float = guest.ask("run", effort.limit_s, what=what, count=count)["took_s"]
        return took_s

    count = enough(ask, effort.tasks_s)
    before = _processor_s(guest, effort)
    took_s = ask(count)
    after = _processor_s(guest, effort)
    yield Finding(measure, "1/s", count / took_s)
    if what == "noop":
        for role in _ROLES:
            if role in before and role in after:
                spent_s = after[role] - before[role]
                yield Finding(f"CPU a thousand no-op tasks, {role}", "s", 1000 * spent_s / count)


def _round_trips(guest: Guest, effort: Effort) -> Iterator[Finding]:
    took_s = guest.ask("trips", effort.limit_s, count=effort.trips, pause_s=0.005)["took_s"]
    yield Finding("idle round trip, p50", "ms", 1000 * statistics.median(took_s))
    yield Finding("idle round trip, p99", "ms", 1000 * percentile(took_s, 99))


def _idle(guest: Guest, effort: Effort) -> Iterator[Finding]:
    before = _processor_s(guest, effort)
    time.sleep(effort.idle_s)
    after = _processor_s(guest, effort)
    for role, processes in _processes(guest, effort).items():
        if role != "client" and processes:
            resident = sum(map(_resident_bytes, processes))
            spent_s = after[role] - before[role]
            yield Finding(f"idle memory, {role}", "MiB", resident / 2**20)
            yield Finding(f"idle CPU, {role}", "%", 100 * spent_s / effort.idle_s)


def _stop(guest: Guest, effort: Effort) -> Iterator[Finding]:
    path = guest.folder / "stopped"
    guest.ask("busy", effort.limit_s, path=str(path))
    _wait(lambda: bool(tasks.starts(path)), effort.limit_s)
    beats = path.with_suffix(".beats")
    asked = time.monotonic()
    guest.ask("stop_busy", effort.limit_s)
    last = _last_beat(beats.read_bytes, asked + STOP_S)
    if last is None:
        yield Finding("a busy task is stopped", "ms", 1000 * STOP_S, "it ran on until then")
    else:
        yield Finding("a busy task is stopped", "ms", 1000 * (max(last, asked) - asked))


def _last_beat(read: Callable[[], bytes], end: float) -> float | None:
    """Return when the counter moved last; None where it still does at the end."""
    quiet_s = 0.2
    seen, at = read(), time.monotonic()
    while time.monotonic() < end:
        if (now := read()) != seen:
            seen, at = now, time.monotonic()
        elif time.monotonic() - at > quiet_s:
            return at
        time.sleep(0.0005)
    return None


def _recovery(guest: Guest, effort: Effort) -> Iterator[Finding]:
    path = guest.folder / "killed"
    guest.ask("busy", effort.limit_s, path=str(path))
    _wait(lambda: bool(tasks.starts(path)), effort.limit_s)
    (pid, _), *_rest = tasks.starts(path)
    victims = _worker_of(pid, guest.ask("processes", effort.limit_s)["workers"])
    shared = shared_memory(victims)
    killed = time.monotonic()
    for one in victims:
        os.kill(one.pid, signal.SIGKILL)
    unlink(shared)
    measure = "second start of a killed worker's task"
    try:
        _wait(lambda: len(tasks.starts(path)) > 1, effort.recovery_s)
    except TimeoutError:
        yield Finding(measure, "s", effort.recovery_s, f"{LATE} {effort.recovery_s:g} s")
    else:
        yield Finding(measure, "s", tasks.starts(path)[1][1] - killed)


def _worker_of(pid: int, workers: list[int]) -> list[psutil.Process]:
    """Return the processes to kill: the whole worker, or what alone runs the task."""
    for root in workers:
        members = family([root])
        if any(one.pid == pid for one in members):
            return members
    return [psutil.Process(pid)]


def _processes(guest: Guest, effort: Effort) -> dict[str, list[psutil.Process]]:
    asked = guest.ask("processes", effort.limit_s)
    workers = {one.pid: one for one in family(asked["workers"])}
    servers = {one.pid: one for one in family(asked["servers"]) if one.pid not in workers}
    return {
        "workers": list(workers.values()),
        "servers": list(servers.values()),
        "client": [
            one for one in family([guest.pid]) if one.pid not in workers and one.pid not in servers
        ],
    }


def _processor_s(guest: Guest, effort: Effort) -> dict[str, float]:
    """Return what each role has had of the processor, with children that have ended."""
    spent = {}
    for role, processes in _processes(guest, effort).items():
        if processes:
            spent[role] = sum(map(_spent_s, processes))
    return spent


def _spent_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # a sandbox, say: who waited for it has its time now
        return 0.0
    return sum((times.user, times.system, times.children_user, times.children_system))


def _resident_bytes(process: psutil.Process) -> int:
    try:
        size: int = process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
    return size


def _wait(condition: Callable[[], bool], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.002)
