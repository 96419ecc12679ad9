"""The process runtime: each task is one command inside bubblewrap, watched from outside.

This process is the sandbox's supervisor and never runs a byte of the job's: it starts bubblewrap,
takes the output, counts time, memory, processes and disk, and reaps all that is left. On macOS,
which has no bubblewrap, it is `seatbelt_runner` instead.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from typing import NamedTuple, NoReturn

from lender.sandbox.files import scratch
from lender.sandbox.meters import usage
from lender.sandbox.meters.capture import Capture
from lender.sandbox.meters.clock import RunningTime
from lender.sandbox.meters.network_attempts import NetworkCounters
from lender.sandbox.plan import LimitName, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import runner, seatbelt_runner
from lender.sandbox.runtimes.runner import Reporter
from lender.sandbox.walls import bubblewrap, confine, seccomp

_TICK_S = 0.02
_DISK_S = 0.1
# The watcher may cost a fiftieth of a core: a sandbox full of processes is looked at less often.
_WATCH_SHARE = 50
_ARGS_FD, _STATUS_FD, _BLOCK_FD, _FILTER_FD = 3, 4, 5, 6
_NOT_FOUND, _NOT_EXECUTABLE, _FILE_TOO_LARGE = 127, 126, 128 + signal.SIGXFSZ
_ERROR_CHARS_MAX = 500


def preload() -> None:
    """Nothing more to import."""


def main(sock: socket.socket) -> None:
    """Be the sandbox of one plan."""
    if sys.platform == "darwin":
        runner.serve(sock, seatbelt_runner.start)
        return
    confine.adopt_orphans()
    runner.serve(sock, _ProcessRunner)


class _ProcessRunner:
    def __init__(self, plan: SandboxPlan, _reporter: Reporter) -> None:
        bwrap = bubblewrap.find()
        if bwrap is None:
            raise PrepareFailedError("bubblewrap (bwrap) is not installed")
        if not plan.argv:
            raise PrepareFailedError("no command", invalid=True, field="argv")
        for name, path in plan.inputs.items():
            scratch.check_name(name)
            if not path.is_file():
                raise PrepareFailedError(f"input {name}: cannot be read")
        self._plan = plan
        self._bwrap = bwrap
        self._filter = seccomp.program()

    def run(self, task: int) -> TaskOutcome:
        plan = self._plan
        scratch.wipe(plan.scratch)
        started_at = time.monotonic()
        try:
            pipes = self._spawn(task)
        except (OSError, ValueError) as error:
            return TaskOutcome(task, "failed", error=f"not started: {error}")
        command = _Command(pipes, plan, started_at)
        command.watch()
        command.reap()
        return command.outcome(task)

    def _spawn(self, task: int) -> "_Pipes":
        """Fork and become bubblewrap in the child.

        Raises:
            OSError: no process, or no descriptor.
            ValueError: an argument holds a zero byte.
        """
        plan, parent = self._plan, os.getpid()
        inputs = {name: str(path) for name, path in plan.inputs.items()}
        fds = {"json-status-fd": _STATUS_FD, "block-fd": _BLOCK_FD}
        if self._filter is not None:
            fds["seccomp"] = _FILTER_FD
        arguments = bubblewrap.options(
            str(plan.scratch), plan.env_of(task), inputs, plan.limits, fds
        )
        argv = ["bwrap", "--args", str(_ARGS_FD), "--"]
        argv += bubblewrap.command(plan.argv_of(task), plan.limits)
        with contextlib.ExitStack() as theirs:
            own: list[int] = []
            held, hold = os.pipe()
            given = [
                _given(theirs, os.open(os.devnull, os.O_RDONLY)),
                _pipe_end(theirs, own),
                _pipe_end(theirs, own),
                _given(theirs, _memory_file(arguments)),
                _pipe_end(theirs, own),
                _given(theirs, held),
            ]
            if self._filter is not None:
                given.append(_given(theirs, _memory_file(self._filter)))
            pid = os.fork()
            if pid == 0:
                _become(self._bwrap, argv, given, parent)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # the child does it too: whoever comes first
        stdout, stderr, status = own
        return _Pipes(pid, stdout, stderr, status, hold)


class _Pipes(NamedTuple):
    """A started bubblewrap: its process and our ends of its pipes.

    The command does not start before something is written to `hold`, or it is closed.
    """

    pid: int
    stdout: int
    stderr: int
    status: int
    hold: int

    @property
    def readable(self) -> tuple[int, int, int]:
        """What it writes to."""
        return self.stdout, self.stderr, self.status


class _Command:
    """One running command and all that was seen of it."""

    def __init__(self, pipes: _Pipes, plan: SandboxPlan, started_at: float) -> None:
        self._pipes = pipes
        self._plan = plan
        self._capture = Capture(plan.limits.output_bytes)
        self._started_at = started_at
        self._clock = RunningTime(started_at, _TICK_S)
        self._status = b""
        self._limit: LimitName | None = None
        self._next_look_s, self._next_disk_s = _TICK_S, _DISK_S
        self._processes_max = 0
        self._cpu_s = 0.0
        self._memory_peak_bytes = 0
        self._network: NetworkCounters | None = None
        self._attempts_blocked: int | None = None

    def watch(self) -> None:
        """Until the command ended, or was ended at a limit."""
        poll, handle = select.poll(), os.pidfd_open(self._pipes.pid)
        for fd in (handle, *self._pipes.readable):
            poll.register(fd, select.POLLIN)
        ended = False
        while not ended and self._limit is None:
            for fd, _event in poll.poll(_TICK_S * 1000):
                if fd == handle:
                    ended = True
                elif not self._take(fd):
                    poll.unregister(fd)
            self._let_start()
            elapsed_s = self._clock.advance(time.monotonic())
            self._limit = self._limit_hit(elapsed_s)
        os.close(handle)
        if not ended:
            self._kill()

    def reap(self) -> None:
        """Wait for everything that the sandbox leaves; its init takes all others with it."""
        while True:
            try:
                pid, _status, use = os.wait4(-1, 0)
            except ChildProcessError:
                break
            self._cpu_s += use.ru_utime + use.ru_stime
            # bubblewrap's own peak is that of the fork it was: only its init's is the job's.
            if pid != self._pipes.pid:
                self._memory_peak_bytes = max(self._memory_peak_bytes, use.ru_maxrss * 1024)
        for fd in self._pipes.readable:
            self._take(fd)
            os.close(fd)
        os.close(self._pipes.hold)
        if self._network is not None:
            self._attempts_blocked = self._network.attempts_blocked()
            self._network.close()

    def outcome(self, task: int) -> TaskOutcome:
        """How it ended, with the limit that explains it."""
        exit_code = self._reported("exit-code")
        limit = self._limit or self._limit_behind(exit_code)
        error = f"hit its {limit} limit" if limit else self._error(exit_code)
        return TaskOutcome(
            task=task,
            state="succeeded" if exit_code == 0 and limit is None else "failed",
            exit_code=exit_code,
            value=self._capture.value,
            stderr_tail=self._capture.stderr_tail,
            limit=limit,
            error=error,
            cpu_s=self._cpu_s,
            memory_peak_bytes=self._memory_peak_bytes,
            network_attempts_blocked=self._attempts_blocked,
            started_at=self._started_at,
            duration_s=time.monotonic() - self._started_at,
        )

    def _let_start(self) -> None:
        """Once its namespaces stand: a command that is over in an instant is counted as well."""
        if self._network is not None:
            return
        init = self._reported("child-pid")
        if init is None:
            return
        self._network = NetworkCounters(init)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipes.hold, b"1")

    def _take(self, fd: int) -> bool:
        """Read what a pipe holds; False at its end."""
        if fd == self._pipes.stdout:
            return self._capture.take_stdout(fd)
        if fd == self._pipes.stderr:
            return self._capture.take_stderr(fd)
        with contextlib.suppress(BlockingIOError):
            piece = os.read(fd, 4096)
            self._status += piece
            return bool(piece)
        return True

    def _limit_hit(self, elapsed_s: float) -> LimitName | None:
        if self._capture.over:
            return "output"
        if elapsed_s > self._plan.limits.time_s:
            return "time"
        if elapsed_s > self._next_disk_s:
            self._next_disk_s = elapsed_s + _DISK_S
            if self._exceeds_disk():
                return "disk"
        if elapsed_s > self._next_look_s:
            looked_at = time.monotonic()
            if self._exceeds_memory():
                return "memory"
            cost_s = time.monotonic() - looked_at
            self._next_look_s = elapsed_s + max(_TICK_S, cost_s * _WATCH_SHARE)
        return None

    def _limit_behind(self, exit_code: int | None) -> LimitName | None:
        if self._capture.over:
            return "output"
        if exit_code == _FILE_TOO_LARGE or self._exceeds_disk():
            return "disk"
        # The kernel's own high-water mark: it holds also where the watcher came too late.
        if exit_code != 0 and self._memory_peak_bytes > self._plan.limits.memory_bytes:
            return "memory"
        if exit_code != 0 and self._processes_max >= self._plan.limits.processes:
            return "processes"
        return None

    def _exceeds_disk(self) -> bool:
        try:
            used_bytes = scratch.used_bytes(self._plan.scratch)
        except scratch.TooMuchError:
            return True
        return used_bytes > self._plan.limits.scratch_bytes

    def _exceeds_memory(self) -> bool:
        init = self._reported("child-pid")
        if init is None:
            return False
        found = usage.measure(init)
        self._processes_max = max(self._processes_max, found.processes)
        self._memory_peak_bytes = max(self._memory_peak_bytes, found.memory_bytes)
        limit_bytes = self._plan.limits.memory_bytes
        return found.memory_bytes > limit_bytes and usage.proportional_bytes(init) > limit_bytes

    def _reported(self, key: str) -> int | None:
        """A number that bubblewrap wrote to its status descriptor."""
        for line in self._status.splitlines():
            with contextlib.suppress(ValueError):
                value = json.loads(line).get(key)
                if isinstance(value, int):
                    return value
        return None

    def _error(self, exit_code: int | None) -> str | None:
        said = self._capture.stderr_tail.decode(errors="replace").strip()
        if exit_code is None:
            return f"the sandbox could not be set up: {said}"[:_ERROR_CHARS_MAX]
        if exit_code in {_NOT_FOUND, _NOT_EXECUTABLE} and said.startswith("prlimit: failed to ex"):
            name = self._plan.argv[0]
            what = "not found" if exit_code == _NOT_FOUND else "not executable"
            return f"command {what}: {name}"[:_ERROR_CHARS_MAX]
        return None

    def _kill(self) -> None:
        """Bubblewrap's group holds what didn't leave it; its init takes the rest along."""
        init = self._reported("child-pid")
        spent_s = 0.0 if init is None else usage.cpu_s(init)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pipes.pid, signal.SIGKILL)
        self._cpu_s += spent_s
        if init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)


def _become(bwrap: str, argv: list[str], fds: list[int], parent: int) -> NoReturn:
    """The forked child: give up what is ours, then exec. Never returns."""
    try:
        os.setpgid(0, 0)
        confine.die_with_parent(parent, signal.SIGKILL)
        confine.yield_to_owner()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and exec would keep that
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, _FILTER_FD + 1) for fd in fds]
        for place, fd in enumerate(high):
            os.dup2(fd, place)
        confine.keep_only(range(len(fds)))
        os.execve(bwrap, argv, {})  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"{bwrap}: {error.strerror}".encode())
    finally:
        os._exit(1)


def _given(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _pipe_end(stack: contextlib.ExitStack, own: list[int]) -> int:
    """The writing end of a new pipe; its reading end, non-blocking, is added to `own`."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    own.append(reader)
    return _given(stack, writer)


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("sandbox")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
