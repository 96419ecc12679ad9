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
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from lender.sandbox.files import checkpoint, scratch
from lender.sandbox.meters.usage import Usage
from lender.sandbox.plan import SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import libproc
from lender.sandbox.runtimes import command
from lender.sandbox.runtimes.command import NOT_EXECUTABLE, NOT_FOUND, End, SoftStop
from lender.sandbox.runtimes.runner import Reporter
from lender.sandbox.walls import confine, seatbelt

_SET_UP_FAILED = range(os.EX_USAGE, os.EX_CONFIG + 1)


def start(plan: SandboxPlan, reporter: Reporter) -> "SeatbeltRunner":
    """The runtime on this Mac.

    Raises:
        PrepareFailedError: see `SeatbeltRunner`; or it brings a root file system.
    """
    if plan.program is not None:
        raise PrepareFailedError("no root file system of a job's own on macOS")
    return SeatbeltRunner(plan, libproc.load().footprint_bytes, reporter.soft_stop)


class SeatbeltRunner:
    """Runs one plan's tasks.

    Args:
        plan: what to run.
        footprint_bytes: what a process holds of memory.
        soft_stop: ends its task softly.

    Raises:
        PrepareFailedError: no command, an input can't be read, no sandbox-exec.
    """

    def __init__(
        self, plan: SandboxPlan, footprint_bytes: Callable[[int], int], soft_stop: SoftStop
    ) -> None:
        if not Path(seatbelt.SANDBOX_EXEC).is_file():
            raise PrepareFailedError(f"{seatbelt.SANDBOX_EXEC} is missing")
        if not plan.argv:
            raise PrepareFailedError("no command", invalid=True, field="argv")
        self._plan = plan._replace(scratch=plan.scratch.resolve())
        self._inputs = scratch.Inputs(self._plan.scratch, plan.inputs)
        self._inputs.restore()
        self._footprint_bytes = footprint_bytes
        self._soft_stop = soft_stop

    def run(self, task: int) -> TaskOutcome:
        """Run one task to its end."""
        inputs = self._inputs.names
        return command.run(task, self._plan, self._start, self._soft_stop, inputs)

    def _start(self, task: int) -> "_SeatbeltTask":
        """Fork and become sandbox-exec in the child.

        Raises:
            OSError: no process, or no descriptor.
            ValueError: a word holds a zero byte.
            PrepareFailedError: an input can't be read any more.
        """
        plan = self._plan
        self._inputs.restore()
        checkpoint.place(plan, task)
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
        stdout, stderr = readers
        return _SeatbeltTask(pid, stdout, stderr, plan.argv[0], self._footprint_bytes)


class _SeatbeltTask:
    """A started sandbox-exec, which becomes the command: a `StartedTask` of one process."""

    def __init__(
        self,
        pid: int,
        stdout: int,
        stderr: int,
        name: str,
        footprint_bytes: Callable[[int], int],
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        # Nothing tells of its end: it is looked for.
        self.wakers: tuple[int, ...] = ()
        self._pid = pid
        self._name = name
        self._footprint_bytes = footprint_bytes
        self._launcher = os.getppid()
        self._end: End | None = None

    def on_wake(self, _fd: int) -> bool:
        return False

    def tick(self) -> None:
        """Look whether the launcher lives: macOS tells nobody, and it takes all sandboxes along."""
        if os.getppid() != self._launcher:
            self.kill()
            os._exit(1)

    def has_ended(self) -> bool:
        return self._look(os.WNOHANG) is not None

    def usage(self) -> Usage:
        held_bytes = self._footprint_bytes(self._pid)
        return Usage(held_bytes, 0, held_bytes)

    def memory_bytes(self) -> int:
        return self._footprint_bytes(self._pid)

    def unnamed_bytes(self, _device: int, _file_bytes_max: int) -> int:
        """Not known here."""
        return 0

    def terminate(self) -> bool:
        os.kill(self._pid, signal.SIGTERM)
        return True

    def kill(self) -> None:
        """It can't have forked: with its one process all of it is gone."""
        if self._look(os.WNOHANG) is None:
            os.kill(self._pid, signal.SIGKILL)

    def reap(self) -> End:
        end = self._look(0)
        if end is None:
            raise ChildProcessError(f"process {self._pid} was waited for and has not ended")
        return end

    def fault(self, exit_code: int | None, said: str) -> str | None:
        if exit_code in _SET_UP_FAILED and said.startswith("sandbox-exec: "):
            return f"the sandbox could not be set up: {said}"
        if exit_code in {NOT_FOUND, NOT_EXECUTABLE} and said.split(maxsplit=1)[0].endswith("env:"):
            what = "not found" if exit_code == NOT_FOUND else "not executable"
            return f"command {what}: {self._name}"
        return None

    def _look(self, options: int) -> End | None:
        """Reap it once it has ended."""
        if self._end is None:
            pid, status, used = os.wait4(self._pid, options)
            if pid != 0:
                code = os.waitstatus_to_exitcode(status)
                # ru_maxrss is in bytes on macOS, getrusage(2).
                self._end = End(
                    exit_code=code if code >= 0 else 128 - code,
                    cpu_s=used.ru_utime + used.ru_stime,
                    memory_peak_bytes=used.ru_maxrss,
                    network_attempts_blocked=None,
                )
        return self._end


def _become(argv: list[str], fds: list[int], limits: dict[int, int], folder: Path) -> NoReturn:
    """The forked child: give up what is ours, then exec. Never returns."""
    try:
        # A session's leader can't leave its session, nor its group.
        os.setsid()
        confine.yield_to_owner()
        confine.default_signals()
        os.chdir(folder)
        confine.keep_as(fds)
        for limit, most in limits.items():
            resource.setrlimit(limit, (most, most))
        os.execve(argv[0], argv, {})  # noqa: S606 - no shell is the point
    except (OSError, ValueError) as error:
        os.write(2, f"sandbox-exec: {error}".encode())
    finally:
        os._exit(os.EX_OSERR)
