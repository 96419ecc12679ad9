"""A command inside sandbox-exec, as a `StartedTask`: how it is started, seen, asked to end, killed.

Written from documentation and not yet run on a Mac; `seatbelt` says what its walls rest on. For
every runtime whose tasks run in there; which files a task sees is the runtime's own to say.
"""

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from lender.sandbox.meters.peak import peak_bytes
from lender.sandbox.meters.usage import Usage
from lender.sandbox.plan import SandboxPlan
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import table, tree
from lender.sandbox.processes.tree import Root
from lender.sandbox.runtimes.command import NOT_EXECUTABLE, NOT_FOUND, End
from lender.sandbox.walls import confine, seatbelt
from lender.sandbox.walls.seatbelt import View

_SET_UP_FAILED = range(os.EX_USAGE, os.EX_CONFIG + 1)


class Meters(NamedTuple):
    """What the kernel tells of a process; 0 when it is gone.

    Attributes:
        footprint_bytes: what it holds of memory.
        cpu_s: its processor time.
    """

    footprint_bytes: Callable[[int], int]
    cpu_s: Callable[[int], float]


class Seatbelt:
    """Starts commands behind sandbox-exec. Make it once for a lease.

    Args:
        plan: of the lease; its working folder without a link in its path.
        meters: see there.

    Raises:
        PrepareFailedError: there is no sandbox-exec.
    """

    def __init__(self, plan: SandboxPlan, meters: Meters) -> None:
        if not Path(seatbelt.SANDBOX_EXEC).is_file():
            raise PrepareFailedError(f"{seatbelt.SANDBOX_EXEC} is missing")
        self._plan = plan
        self._meters = meters
        # Only with an account of our own is found whoever leaves the tree.
        self._forks = tree.is_enclosed()

    def start(
        self,
        inputs: Sequence[str],
        env: dict[str, str],
        argv: Sequence[str],
        view: View = seatbelt.PLAIN,
        stdin: int | None = None,
    ) -> "SeatbeltTask":
        """Fork and become sandbox-exec in the child.

        Args:
            inputs: paths of those in the working folder.
            env: of the command.
            argv: its command line.
            view: what it sees besides; whether it may fork is not the caller's to say.
            stdin: a descriptor for it to read from, the caller's to close; None: nothing to read.

        Raises:
            OSError: no process, or no descriptor.
            ValueError: a word holds a zero byte.
        """
        scratch, view = self._plan.scratch, view._replace(forks=self._forks)
        words = seatbelt.command(str(scratch), inputs, env, argv, view)
        others = len(table.listed_of(os.getuid())) if self._forks else None
        limits = seatbelt.resource_limits(self._plan.limits, others)
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            if stdin is None:
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
                _become(words, [stdin, *writers], limits, scratch)
            ours.pop_all()
        try:
            root = tree.identify(pid)
        except ProcessLookupError:
            root = Root(pid, 0)  # it has ended already, and nobody shows it any more
        return SeatbeltTask(root, readers[0], readers[1], argv[0], self._meters)


class SeatbeltTask:
    """A started sandbox-exec, which becomes the command; see `StartedTask`.

    Attributes:
        root: its process, and where it may fork the top of its tree.
    """

    def __init__(self, root: Root, stdout: int, stderr: int, name: str, meters: Meters) -> None:
        self.root = root
        self.stdout = stdout
        self.stderr = stderr
        # Nothing tells of its end: it is looked for.
        self.wakers: tuple[int, ...] = ()
        self._name = name
        self._meters = meters
        self._forks = tree.is_enclosed()
        self._launcher = os.getppid()
        self._end: End | None = None

    def on_wake(self, _fd: int) -> bool:
        """See `StartedTask`."""
        return False

    def tick(self) -> None:
        """Look whether the launcher lives: macOS tells nobody, and it takes all sandboxes along."""
        if confine.is_orphan(self._launcher):
            self.kill()
            os._exit(1)

    def has_ended(self) -> bool:
        """See `StartedTask`."""
        return self._look(os.WNOHANG) is not None

    def pids(self) -> list[int]:
        """Its processes as of now."""
        if not self._forks:
            return [self.root.pid]
        return [root.pid for root in tree.members((self.root,))]

    def usage(self) -> Usage:
        """See `StartedTask`."""
        pids = self.pids()
        held_bytes = sum(map(self._meters.footprint_bytes, pids))
        return Usage(held_bytes, len(pids) if self._forks else 0, held_bytes)

    def memory_bytes(self) -> int:
        """See `StartedTask`."""
        return sum(map(self._meters.footprint_bytes, self.pids()))

    def cpu_s(self) -> float:
        """Processor time of its living processes."""
        return sum(map(self._meters.cpu_s, self.pids()))

    def unnamed_bytes(self, _device: int, _file_bytes_max: int) -> int:
        """Not known here."""
        return 0

    def terminate(self) -> bool:
        """See `StartedTask`."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return True

    def kill(self) -> None:
        """All of it: where it can't have forked that is its one process."""
        if self._forks:
            tree.kill((self.root,))
        elif self._look(os.WNOHANG) is None:
            os.kill(self.root.pid, signal.SIGKILL)

    def reap(self) -> End:
        """See `StartedTask`."""
        end = self._look(0)
        if end is None:
            raise ChildProcessError(f"process {self.root.pid} was waited for and has not ended")
        if self._forks:
            # What it left is launchd's child by now: a stray.
            tree.kill(())
        return end

    def fault(self, exit_code: int | None, said: str) -> str | None:
        """See `StartedTask`."""
        if exit_code in _SET_UP_FAILED and said.startswith("sandbox-exec: "):
            return f"the sandbox could not be set up: {said}"
        if exit_code in {NOT_FOUND, NOT_EXECUTABLE} and said.split(maxsplit=1)[0].endswith("env:"):
            what = "not found" if exit_code == NOT_FOUND else "not executable"
            return f"command {what}: {self._name}"
        return None

    def _look(self, options: int) -> End | None:
        """Reap it once it has ended."""
        if self._end is None:
            pid, status, used = os.wait4(self.root.pid, options)
            if pid != 0:
                code = os.waitstatus_to_exitcode(status)
                self._end = End(
                    exit_code=code if code >= 0 else 128 - code,
                    cpu_s=used.ru_utime + used.ru_stime,
                    memory_peak_bytes=peak_bytes(used),
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
