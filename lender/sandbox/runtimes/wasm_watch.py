"""The thread that watches a wasm guest: time, output, disk, and whether it is to end.

The guest's own thread spends its time inside the engine, with the interpreter's lock released;
this one wakes every few milliseconds while tasks run and sleeps when none does.
"""

import os
import select
import threading
import time
from collections.abc import Callable

from lender.sandbox.meters.capture import Capture
from lender.sandbox.meters.clock import RunningTime
from lender.sandbox.meters.disk import DiskWatch
from lender.sandbox.plan import LimitName, Limits
from lender.sandbox.runtimes.runner import SoftStop
from lender.sandbox.walls import confine

_TICK_S = 0.005
_IDLE_TICKS = 20
# How long a guest that is to end may still sit in a host call before the process ends.
_GRACE_S = 0.1


class Run:
    """One task under watch, and the next ones after it.

    Attributes:
        index: the task.
        capture: what it wrote.
        started_at: monotonic clock; no two tasks start at the same time.
        limit: the limit that it hit.
        terminated: it was asked to end.
        over_at_s: running time when one of the two was seen.
    """

    __slots__ = ("capture", "index", "limit", "over_at_s", "started_at", "terminated")

    def __init__(self, index: int, capture: Capture) -> None:
        self.index = index
        self.capture = capture
        self.started_at = time.monotonic()
        self.limit: LimitName | None = None
        self.terminated = False
        self.over_at_s: float | None = None


class Watch:
    """Watches one run at a time.

    Args:
        limits: of each task.
        soft_stop: ends the task that runs.
        drain: takes what the guest wrote, and tells of it and of those before it.
        watch_disk: begins to watch the scratch folder, for one run.
        interrupt: makes the guest trap as soon as it runs code of its own.
        give_up: reports the run and ends this process; never returns.

    Attributes:
        lock: held while a run is looked at, and to be held to go from one task to the next: what
            was seen of the one is nothing that the other did.
    """

    def __init__(
        self,
        limits: Limits,
        soft_stop: SoftStop,
        *,
        drain: Callable[[Run], None],
        watch_disk: Callable[[], DiskWatch],
        interrupt: Callable[[], None],
        give_up: Callable[[Run], None],
    ) -> None:
        self._limits = limits
        self._asked_to_end = False
        self._word = select.poll()
        self._word.register(soft_stop.fd, select.POLLIN)
        self._drain = drain
        self._watch_disk = watch_disk
        self._disk = watch_disk()
        self._interrupt = interrupt
        self._give_up = give_up
        self._run: Run | None = None
        self._launcher = os.getppid()
        self.lock = threading.Lock()
        self._busy = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="watch").start()

    def begin(self, run: Run) -> None:
        """Watch from here to `end`."""
        self._run = run
        if not self._busy.is_set():
            self._busy.set()

    def end(self) -> None:
        """No interrupt can come any more."""
        with self.lock:
            self._run = None

    def _watch(self) -> None:
        while True:
            self._busy.wait()
            self._watch_until_idle()
            self._busy.clear()
            if self._run is not None:
                self._busy.set()

    def _watch_until_idle(self) -> None:
        seen_at: float | None = None
        clock, idle = RunningTime(0, _TICK_S), 0
        while idle < _IDLE_TICKS:
            self._wait_a_tick()
            with self.lock:
                run = self._run
                idle = idle + 1 if run is None else 0
                if run is None:
                    continue
                if run.started_at != seen_at:
                    seen_at, clock = run.started_at, RunningTime(run.started_at, _TICK_S)
                    self._disk = self._watch_disk()
                self._look(run, clock.advance(time.monotonic()))

    def _wait_a_tick(self) -> None:
        """Less, when the word to end comes: it comes once, and nothing is begun after it."""
        if self._asked_to_end:
            time.sleep(_TICK_S)
        else:
            self._asked_to_end = bool(self._word.poll(_TICK_S * 1000))

    def _look(self, run: Run, elapsed_s: float) -> None:
        if confine.is_orphan(self._launcher):
            os._exit(1)  # where the kernel has no signal for it
        self._drain(run)
        if run.over_at_s is None:
            run.limit = self._limit_hit(run, elapsed_s)
            run.terminated = run.limit is None and self._asked_to_end
            if run.limit is None and not run.terminated:
                return
            run.over_at_s = elapsed_s
        self._interrupt()
        if elapsed_s > run.over_at_s + _GRACE_S:
            self._give_up(run)

    def _limit_hit(self, run: Run, elapsed_s: float) -> LimitName | None:
        if run.capture.over:
            return "output"
        if elapsed_s > self._limits.time_s:
            return "time"
        if self._disk.exceeds(elapsed_s):
            return "disk"
        return None
