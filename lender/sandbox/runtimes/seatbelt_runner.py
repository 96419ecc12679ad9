"""The process runtime on macOS: each task is one process inside sandbox-exec, watched from outside.

Written from documentation and not yet run on a Mac; `seatbelt` says what its walls rest on.

How it differs from Linux: there is no /work, the scratch folder has its own path and is the task's
HOME, TMPDIR and working folder; inputs are copies in it; a task can't start processes, and its
threads are not counted; memory is watched only (ri_phys_footprint), so a fast bomb is over its
limit for a moment; tries to reach a network are refused but not counted.
"""

import contextlib
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from lender.sandbox.files import scratch
from lender.sandbox.meters.capture import Capture
from lender.sandbox.meters.clock import RunningTime
from lender.sandbox.plan import LimitName, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import libproc
from lender.sandbox.runtimes.runner import Reporter
from lender.sandbox.walls import confine, seatbelt

_TICK_S = 0.02
_DISK_S = 0.1
# Once nobody can write to us any more, the end is near: look for it more often at first.
_SOON_S = 0.001
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_SET_UP_FAILED = range(os.EX_USAGE, os.EX_CONFIG + 1)
_ERROR_CHARS_MAX = 500


def start(plan: SandboxPlan, _reporter: Reporter) -> "SeatbeltRunner":
    """The runtime on this Mac.

    Raises:
        PrepareFailedError: see `SeatbeltRunner`.
    """
    return SeatbeltRunner(plan, libproc.load().footprint_bytes)


class SeatbeltRunner:
    """Runs one plan's tasks.

    Args:
        plan: what to run.
        footprint_bytes: what a process holds of memory.

    Raises:
        PrepareFailedError: no command, an input can't be read, no sandbox-exec.
    """

    def __init__(self, plan: SandboxPlan, footprint_bytes: Callable[[int], int]) -> None:
        if not Path(seatbelt.SANDBOX_EXEC).is_file():
            raise PrepareFailedError(f"{seatbelt.SANDBOX_EXEC} is missing")
        if not plan.argv:
            raise PrepareFailedError("no command", invalid=True, field="argv")
        self._plan = plan._replace(scratch=plan.scratch.resolve())
        self._inputs = scratch.Inputs(self._plan.scratch, plan.inputs)
        self._inputs.restore()
        self._footprint_bytes = footprint_bytes

    def run(self, task: int) -> TaskOutcome:
        """Run one task to its end."""
        started_at = time.monotonic()
        try:
            self._inputs.restore()
            child = self._spawn(task)
        except (OSError, ValueError, PrepareFailedError) as error:
            return TaskOutcome(task, "failed", error=f"not started: {error}")
        command = _Command(child, self._plan, self._inputs.names, self._footprint_bytes, started_at)
        command.watch()
        return command.outcome(task)

    def _spawn(self, task: int) -> "_Child":
        """Fork and become sandbox-exec in the child.

        Raises:
            OSError: no process, or no descriptor.
            ValueError: a word holds a zero byte.
        """
        plan = self._plan
        inputs = [str(plan.scratch / name) for name in sorted(self._inputs.names)]
        argv = seatbelt.command(str(plan.scratch), inputs, plan.env_of(task), plan.argv_of(task))
        limits = seatbelt.resource_limits(plan.limits)
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            theirs.callback(os.close, stdin)
            readers, writers = [], []
            for _ in ("stdout", "stderr"):
                reader, writer = os.pipe()
                ours.callback(os.close, reader)
                theirs.callback(os.close, writer)
                os.set_blocking(reader, False)
                readers.append(reader)
                writers.append(writer)
            pid = os.fork()
            if pid == 0:
                _become(argv, [stdin, *writers], limits, plan.scratch)
            ours.pop_all()
        return _Child(pid, *readers)


class _Child(NamedTuple):
    """A started sandbox-exec, which becomes the command: its process, our ends of its pipes."""

    pid: int
    stdout: int
    stderr: int


class _Command:
    """One running command and all that was seen of it."""

    def __init__(
        self,
        child: _Child,
        plan: SandboxPlan,
        inputs: frozenset[str],
        footprint_bytes: Callable[[int], int],
        started_at: float,
    ) -> None:
        self._child = child
        self._plan = plan
        self._inputs = inputs
        self._footprint_bytes = footprint_bytes
        self._capture = Capture(plan.limits.output_bytes)
        self._started_at = started_at
        self._clock = RunningTime(started_at, _TICK_S)
        self._launcher = os.getppid()
        self._limit: LimitName | None = None
        self._next_disk_s = _DISK_S
        self._exit_code: int | None = None
        self._ended = False
        self._cpu_s = 0.0
        self._memory_peak_bytes = 0

    def watch(self) -> None:
        """Until the command ended, or was ended at a limit."""
        poll, pause_s = select.poll(), _TICK_S
        readable = {self._child.stdout, self._child.stderr}
        for fd in readable:
            poll.register(fd, select.POLLIN)
        while not self._has_ended() and self._limit is None:
            for fd, _event in poll.poll(pause_s * 1000):
                if not self._take(fd):
                    poll.unregister(fd)
                    readable.discard(fd)
                    pause_s = _TICK_S if readable else _SOON_S
            pause_s = min(_TICK_S, 2 * pause_s)
            self._limit = self._limit_hit(self._clock.advance(time.monotonic()))
            # macOS tells nobody that the parent died: the launcher takes all sandboxes with it.
            if os.getppid() != self._launcher:
                self._kill()
                os._exit(1)
        self._kill()
        for fd in (self._child.stdout, self._child.stderr):
            self._take(fd)
            os.close(fd)

    def outcome(self, task: int) -> TaskOutcome:
        """How it ended, with the limit that explains it."""
        limit = self._limit or self._limit_behind()
        error = f"hit its {limit} limit" if limit else self._error()
        return TaskOutcome(
            task=task,
            state="succeeded" if self._exit_code == 0 and limit is None else "failed",
            exit_code=None if self._limit else self._exit_code,
            value=self._capture.value,
            stderr_tail=self._capture.stderr_tail,
            limit=limit,
            error=error,
            cpu_s=self._cpu_s,
            memory_peak_bytes=self._memory_peak_bytes,
            network_attempts_blocked=None,
            started_at=self._started_at,
            duration_s=time.monotonic() - self._started_at,
        )

    def _take(self, fd: int) -> bool:
        """Read what a pipe holds; False at its end."""
        if fd == self._child.stdout:
            return self._capture.take_stdout(fd)
        return self._capture.take_stderr(fd)

    def _limit_hit(self, elapsed_s: float) -> LimitName | None:
        if self._capture.over:
            return "output"
        if elapsed_s > self._plan.limits.time_s:
            return "time"
        if elapsed_s > self._next_disk_s:
            self._next_disk_s = elapsed_s + _DISK_S
            if self._exceeds_disk():
                return "disk"
        held_bytes = self._footprint_bytes(self._child.pid)
        self._memory_peak_bytes = max(self._memory_peak_bytes, held_bytes)
        return "memory" if held_bytes > self._plan.limits.memory_bytes else None

    def _limit_behind(self) -> LimitName | None:
        if self._capture.over:
            return "output"
        if self._exit_code == 128 + signal.SIGXFSZ or self._exceeds_disk():
            return "disk"
        if self._exit_code != 0 and self._memory_peak_bytes > self._plan.limits.memory_bytes:
            return "memory"
        return None

    def _exceeds_disk(self) -> bool:
        try:
            used_bytes = scratch.used_bytes(self._plan.scratch, self._inputs)
        except scratch.TooMuchError:
            return True
        return used_bytes > self._plan.limits.scratch_bytes

    def _error(self) -> str | None:
        said = self._capture.stderr_tail.decode(errors="replace").strip()
        if self._exit_code in _SET_UP_FAILED and said.startswith("sandbox-exec: "):
            return f"the sandbox could not be set up: {said}"[:_ERROR_CHARS_MAX]
        if self._exit_code in {_NOT_FOUND, _NOT_EXECUTABLE} and said.split()[0].endswith("env:"):
            what = "not found" if self._exit_code == _NOT_FOUND else "not executable"
            return f"command {what}: {self._plan.argv[0]}"[:_ERROR_CHARS_MAX]
        return None

    def _has_ended(self, options: int = os.WNOHANG) -> bool:
        """Reap it, and note how it ended."""
        if not self._ended:
            pid, status, use = os.wait4(self._child.pid, options)
            self._ended = pid != 0
            if self._ended:
                code = os.waitstatus_to_exitcode(status)
                self._exit_code = code if code >= 0 else 128 - code
                self._cpu_s = use.ru_utime + use.ru_stime
                # In bytes on macOS, getrusage(2).
                self._memory_peak_bytes = max(self._memory_peak_bytes, use.ru_maxrss)
        return self._ended

    def _kill(self) -> None:
        """It can't have forked: with its one process all of it is gone."""
        if not self._has_ended():
            os.kill(self._child.pid, signal.SIGKILL)
            self._has_ended(0)


def _become(argv: list[str], fds: list[int], limits: dict[int, int], folder: Path) -> NoReturn:
    """The forked child: give up what is ours, then exec. Never returns."""
    try:
        # A session's leader can't leave its session, nor its group.
        os.setsid()
        confine.yield_to_owner()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and exec would keep that
        os.chdir(folder)
        for place, fd in enumerate(fds):
            os.dup2(fd, place)
        confine.keep_only(range(len(fds)))
        for limit, most in limits.items():
            resource.setrlimit(limit, (most, most))
        os.execve(argv[0], argv, {})  # noqa: S606 - no shell is the point
    except (OSError, ValueError) as error:
        os.write(2, f"sandbox-exec: {error}".encode())
    finally:
        os._exit(os.EX_OSERR)
