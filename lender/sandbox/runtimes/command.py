"""A task that is a command, from its start to its outcome: time, output, disk, memory, soft stop.

Nothing is started in here. A runtime puts its command behind its walls and gives it as a
`StartedTask`, which holds what differs from one kind of wall to the other; `run` watches it, takes
its output, ends it at its first limit, reaps it, and says how it ended.

Soft stop: SIGTERM to this process, the sandbox's root, is passed on to the processes of the task,
which have `plan.grace_s` of running time left; what is left of them then is killed. It holds for
good: this process is fit for no other task (see `runner.serve`).
"""

import functools
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from lender.sandbox.files import scratch
from lender.sandbox.meters.capture import Capture
from lender.sandbox.meters.clock import RunningTime
from lender.sandbox.meters.disk import DiskWatch
from lender.sandbox.meters.usage import Usage
from lender.sandbox.plan import FILE_MARGIN_BYTES, LimitName, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes.runner import ASKED_TO_END, Reporter

ERROR_CHARS_MAX = 500
NOT_FOUND, NOT_EXECUTABLE = 127, 126

_TICK_S = 0.02
# Once nothing is left that could wake us, the end is near: look for it more often at first.
_SOON_S = 0.001
# The watcher may cost a fiftieth of a core: a sandbox full of processes is looked at less often.
_WATCH_SHARE = 50
_FILE_TOO_LARGE = 128 + signal.SIGXFSZ


class End(NamedTuple):
    """What is known of a task once nothing of it is left.

    Attributes:
        exit_code: as a shell says it (128 and the signal's number); None when no command ended.
        cpu_s: user and system time of all its processes, killed ones included.
        memory_peak_bytes: of its largest process; 0 where the kernel doesn't tell.
        network_attempts_blocked: None where they can't be counted.
    """

    exit_code: int | None
    cpu_s: float
    memory_peak_bytes: int
    network_attempts_blocked: int | None


class SoftStop(Protocol):
    """Whether the sandbox was asked to end its task softly: `Reporter.soft_stop`."""

    @property
    def asked(self) -> bool:
        """It was, for good."""
        ...

    @property
    def fd(self) -> int:
        """Can be read since then."""
        ...


class StartedTask(Protocol):
    """A command behind walls of some kind, just started. Only `run` calls it, from one thread."""

    @property
    def stdout(self) -> int | None:
        """Our end of its standard output, non-blocking. `run` closes it. None: not for `run`."""
        ...

    @property
    def stderr(self) -> int:
        """Our end of its standard error, non-blocking. `run` closes it."""
        ...

    @property
    def wakers(self) -> tuple[int, ...]:
        """More descriptors that end a wait once they can be read; its own to close."""
        ...

    def on_wake(self, fd: int) -> bool:
        """One of `wakers` can be read; False when it is not to be waited for any more."""
        ...

    def tick(self) -> None:
        """Called once in each round of the watcher, every 20 ms or sooner."""
        ...

    def has_ended(self) -> bool:
        """Whether the command is over."""
        ...

    def usage(self) -> Usage:
        """What its processes hold now, cheaply; no processes where they can't be counted."""
        ...

    def memory_bytes(self) -> int:
        """What its processes hold of memory, exactly: decides where `usage` allows for too much."""
        ...

    def unnamed_bytes(self, device: int, file_bytes_max: int) -> int:
        """Disk space on a device of files that only its processes hold: see `usage`."""
        ...

    def terminate(self) -> bool:
        """Send SIGTERM to the processes of the task; False where there was none."""
        ...

    def kill(self) -> None:
        """Kill all of it. Nothing is left to wait for but `reap`."""
        ...

    def reap(self) -> End:
        """Wait until nothing of it is left, and let go of all that belongs to it."""
        ...

    def fault(self, exit_code: int | None, said: str) -> str | None:
        """Why no command ran, in words; None where one did.

        Args:
            exit_code: see `End`.
            said: the tail of its standard error, stripped.
        """
        ...


def run(
    task: int,
    plan: SandboxPlan,
    start: Callable[[int], StartedTask],
    soft_stop: SoftStop,
    inputs: Iterable[str] = (),
    reporter: Reporter | None = None,
) -> TaskOutcome:
    """Run one task to its end.

    Args:
        task: its index.
        plan: with its limits, its scratch folder and its grace.
        start: starts it; may raise OSError, ValueError or PrepareFailedError.
        soft_stop: ends it softly; not asked yet.
        inputs: names in the scratch folder that are not the task's: they don't count as disk.
        reporter: hears what comes on standard error, for who watches the task.
    """
    started_at = time.monotonic()
    try:
        started = start(task)
    except (OSError, ValueError, PrepareFailedError) as error:
        return TaskOutcome(task, "failed", error=f"not started: {error}")
    watch = _Watch(started, plan, soft_stop, frozenset(inputs), started_at, reporter)
    watch.until_ended()
    return watch.outcome(task, started.reap())


def checked(argv: list[str]) -> list[str]:
    """The command line of a task.

    Raises:
        PrepareFailedError: it is none.
    """
    if not argv:
        raise PrepareFailedError("no command", invalid=True, field="argv")
    return argv


class _Watch:
    """One running task and all that was seen of it."""

    def __init__(
        self,
        started: StartedTask,
        plan: SandboxPlan,
        soft_stop: SoftStop,
        inputs: frozenset[str],
        started_at: float,
        reporter: Reporter | None,
    ) -> None:
        self._started = started
        self._plan = plan
        self._soft_stop = soft_stop
        self._inputs = inputs
        self._started_at = started_at
        self._reporter = reporter
        self._capture = (
            Capture(plan.limits.output_bytes)
            if reporter is None
            else Capture(plan.limits.output_bytes, reporter.add_log)
        )
        self._clock = RunningTime(started_at, _TICK_S)
        self._disk = DiskWatch(plan.scratch, plan.limits.scratch_bytes, self._disk_bytes)
        self._next_look_s = _TICK_S
        self._processes_max = self._memory_peak_bytes = 0
        self._limit: LimitName | None = None
        # Running time by which a task that was asked to end has to be over.
        self._end_by_s: float | None = None
        self._killed = False

    def until_ended(self) -> None:
        """Until the command ended, or was ended: at a limit, or after its grace."""
        started, poll, pause_s = self._started, select.poll(), _TICK_S
        waited_for = {*self._ends(), *started.wakers}
        for fd in (self._soft_stop.fd, *waited_for):
            poll.register(fd, select.POLLIN)
        while True:
            wait_s = 0 if started.has_ended() else min(pause_s, self._disk.pause_s)
            for fd, _event in poll.poll(wait_s * 1000):
                if not self._take(fd):
                    poll.unregister(fd)
                    waited_for.discard(fd)
                    pause_s = _TICK_S if waited_for else _SOON_S
            pause_s = min(_TICK_S, 2 * pause_s)
            started.tick()
            if self._reporter is not None:
                self._reporter.tell()
            elapsed_s = self._clock.advance(time.monotonic())
            self._limit = self._limit_hit(elapsed_s)
            if started.has_ended():
                return
            if self._limit is not None or self._is_out_of_grace(elapsed_s):
                self._killed = True
                started.kill()
                return

    def outcome(self, task: int, end: End) -> TaskOutcome:
        """How it ended, with what explains it."""
        self._take_the_rest()
        self._memory_peak_bytes = max(self._memory_peak_bytes, end.memory_peak_bytes)
        limit = self._limit or self._limit_behind(end.exit_code)
        terminated = limit is None and self._end_by_s is not None
        return TaskOutcome(
            task=task,
            state="succeeded" if end.exit_code == 0 and not (limit or terminated) else "failed",
            exit_code=None if self._killed else end.exit_code,
            value=self._capture.value,
            stderr_tail=self._capture.stderr_tail,
            limit=limit,
            error=self._error(limit, end.exit_code, terminated=terminated),
            cpu_s=end.cpu_s,
            memory_peak_bytes=self._memory_peak_bytes,
            network_attempts_blocked=end.network_attempts_blocked,
            started_at=self._started_at,
            duration_s=time.monotonic() - self._started_at,
            terminated=terminated,
        )

    def _take_the_rest(self) -> None:
        """What nobody has read of its output; then close it."""
        rest, ends = select.poll(), self._ends()
        for fd in ends:
            rest.register(fd, select.POLLIN)
        # Mostly nothing: one look at both costs less than a read of each that fails.
        for fd, _event in rest.poll(0):
            self._take(fd)
        for fd in ends:
            os.close(fd)

    def _ends(self) -> list[int]:
        """Where its output comes."""
        started = self._started
        return [fd for fd in (started.stdout, started.stderr) if fd is not None]

    def _take(self, fd: int) -> bool:
        """Read what a descriptor holds; False at its end."""
        if fd == self._started.stdout:
            return self._capture.take_stdout(fd)
        if fd == self._started.stderr:
            return self._capture.take_stderr(fd)
        # A soft stop holds for good: it is not waited for again.
        return fd != self._soft_stop.fd and self._started.on_wake(fd)

    def _is_out_of_grace(self, elapsed_s: float) -> bool:
        if self._end_by_s is None and self._soft_stop.asked:
            # Where no process of it runs yet there is none to wait for.
            grace_s = self._plan.grace_s if self._started.terminate() else 0.0
            self._end_by_s = elapsed_s + grace_s
        return self._end_by_s is not None and elapsed_s >= self._end_by_s

    def _limit_hit(self, elapsed_s: float) -> LimitName | None:
        if self._capture.over:
            return "output"
        # Who was asked to end is bound by its grace: it may be writing its checkpoint.
        if elapsed_s > self._plan.limits.time_s and self._end_by_s is None:
            return "time"
        if self._disk.exceeds(elapsed_s):
            return "disk"
        if elapsed_s > self._next_look_s:
            # Processor time: on a busy machine a look takes long and costs no more.
            looked_at = time.thread_time()
            if self._exceeds_memory():
                return "memory"
            cost_s = time.thread_time() - looked_at
            self._next_look_s = elapsed_s + max(_TICK_S, cost_s * _WATCH_SHARE)
        return None

    def _limit_behind(self, exit_code: int | None) -> LimitName | None:
        """The limit that explains an end which the watcher did not bring about."""
        if self._capture.over:
            return "output"
        if exit_code == _FILE_TOO_LARGE or self._exceeds_disk():
            return "disk"
        if exit_code == 0 or self._end_by_s is not None:
            return None
        # The kernel's own high-water mark: it holds also where the watcher came too late.
        if self._memory_peak_bytes > self._plan.limits.memory_bytes:
            return "memory"
        if self._processes_max >= self._plan.limits.processes:
            return "processes"
        return None

    def _exceeds_disk(self) -> bool:
        try:
            return self._disk_bytes() > self._plan.limits.scratch_bytes
        except scratch.TooMuchError:
            return True

    def _disk_bytes(self) -> int:
        folder, limit_bytes = self._plan.scratch, self._plan.limits.scratch_bytes
        used_bytes, place = 0, str(folder)
        if not scratch.holds_only(place, self._inputs):
            used_bytes = scratch.used_bytes(folder, self._inputs)
        return used_bytes + self._started.unnamed_bytes(
            _device(place), limit_bytes + FILE_MARGIN_BYTES
        )

    def _exceeds_memory(self) -> bool:
        found, limit_bytes = self._started.usage(), self._plan.limits.memory_bytes
        self._processes_max = max(self._processes_max, found.processes)
        self._memory_peak_bytes = max(self._memory_peak_bytes, found.memory_bytes)
        return found.bound_bytes > limit_bytes and self._started.memory_bytes() > limit_bytes

    def _error(
        self, limit: LimitName | None, exit_code: int | None, *, terminated: bool
    ) -> str | None:
        if limit is not None:
            return f"hit its {limit} limit"
        if terminated:
            return ASKED_TO_END
        said = self._capture.stderr_tail.decode(errors="replace").strip()
        fault = self._started.fault(exit_code, said)
        return None if fault is None else fault[:ERROR_CHARS_MAX]


@functools.lru_cache(1)
def _device(folder: str) -> int:
    """The working folder's, which stays the same for all tasks."""
    return os.stat(folder).st_dev  # noqa: PTH116 - for a first short task, too
