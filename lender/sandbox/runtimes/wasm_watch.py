"""The thread that watches a wasm guest: time, output and disk, each with its consequence.

The guest's own thread spends its time inside the engine, with the interpreter's lock released;
this one wakes every few milliseconds while a task runs and sleeps when none does.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lender.sandbox.meters.capture import Capture
from lender.sandbox.meters.clock import RunningTime
from lender.sandbox.plan import LimitName, Limits

_TICK_S = 0.005
_IDLE_TICKS = 20
_DISK_TICKS = 20
# How long after its limit a guest may still sit in a host call before the process ends.
_GRACE_S = 0.1


class Run:
    """One task under watch.

    Attributes:
        index: the task.
        capture: what it wrote.
        started_at: monotonic clock.
        cpu_s: processor time of this process at its start.
        limit: the limit that it hit.
    """

    def __init__(self, index: int, output_bytes: int) -> None:
        self.index = index
        self.capture = Capture(output_bytes)
        self.started_at = time.monotonic()
        self.cpu_s = time.process_time()
        self.limit: LimitName | None = None


class Watch:
    """Watches one run at a time.

    Args:
        limits: of each task.
        drain: takes what the guest wrote.
        exceeds_disk: whether its scratch folder is over its limit.
        interrupt: makes the guest trap as soon as it runs code of its own.
        give_up: reports the run and ends this process; never returns.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        drain: Callable[[Run], None],
        exceeds_disk: Callable[[], bool],
        interrupt: Callable[[], None],
        give_up: Callable[[Run], None],
    ) -> None:
        self._limits = limits
        self._drain = drain
        self._exceeds_disk = exceeds_disk
        self._interrupt = interrupt
        self._give_up = give_up
        self._run: Run | None = None
        self._lock = threading.Lock()
        self._busy = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="watch").start()

    @contextmanager
    def watching(self, run: Run) -> Iterator[None]:
        """Watch inside of the block; after it no interrupt can come any more."""
        self._run = run
        if not self._busy.is_set():
            self._busy.set()
        try:
            yield
        finally:
            with self._lock:
                self._run = None

    def _watch(self) -> None:
        while True:
            self._busy.wait()
            self._watch_until_idle()
            self._busy.clear()
            if self._run is not None:
                self._busy.set()

    def _watch_until_idle(self) -> None:
        seen: Run | None = None
        clock, idle, ticks = RunningTime(0, _TICK_S), 0, 0
        while idle < _IDLE_TICKS:
            time.sleep(_TICK_S)
            with self._lock:
                run = self._run
                idle = idle + 1 if run is None else 0
                if run is None:
                    continue
                if run is not seen:
                    seen, ticks, clock = run, 0, RunningTime(run.started_at, _TICK_S)
                ticks += 1
                self._look(run, clock.advance(time.monotonic()), ticks)

    def _look(self, run: Run, elapsed_s: float, ticks: int) -> None:
        self._drain(run)
        if run.limit is None:
            if run.capture.over:
                run.limit = "output"
            elif elapsed_s > self._limits.time_s:
                run.limit = "time"
            elif ticks % _DISK_TICKS == 0 and self._exceeds_disk():
                run.limit = "disk"
        if run.limit is not None:
            self._interrupt()
            if elapsed_s > self._limits.time_s + _GRACE_S:
                self._give_up(run)
