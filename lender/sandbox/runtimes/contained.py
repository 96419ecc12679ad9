"""A command inside a container of crun's, as a `StartedTask`: how it is started, seen, ended."""

import contextlib
import json
import os
import re
import resource
import select
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lender.sandbox.meters import usage
from lender.sandbox.meters.network_attempts import NetworkCounters
from lender.sandbox.meters.usage import Usage
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import tree
from lender.sandbox.runtimes import spawning
from lender.sandbox.runtimes.command import NOT_EXECUTABLE, NOT_FOUND, End, pass_on_sigterm
from lender.sandbox.runtimes.spawning import Spawned
from lender.sandbox.walls import bubblewrap, container, enter, landlock, session

_STANDS: Final = b"\n"
_TOLD_BYTES_MAX: Final = 4096
_CRUN_FAILED: Final = 1
# What crun says of a command, in all its versions (`find_executable`, `container_init_setup`).
_NOT_FOUND: Final = re.compile("executable file .* not found")
_NOT_EXECUTABLE: Final = re.compile("open executable|is not executable|is not a regular file")
_SEARCH: Final = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/run/current-system/sw/bin"


class Crun:
    """Starts containers behind this machine's walls. Make it once for a lease.

    Attributes:
        path: where crun really is.

    Raises:
        PrepareFailedError: crun, or what it is started with, is not installed.
    """

    def __init__(self) -> None:
        self.path = os.path.realpath(_find("crun", "crun"))
        self._unshare = _find("unshare", "util-linux")
        self._domain = landlock.scoped()

    def start(
        self, configuration: Mapping[str, Any], folder: str, name: str, *, host_view: bool
    ) -> "ContainedTask":
        """Fork and become crun in the child. Call `confine.adopt_orphans` before the first.

        Args:
            configuration: of the container.
            folder: for crun's state; see `container.state_folder`.
            name: what the job calls its command.
            host_view: its root is the host's view.

        Raises:
            OSError: no process, or no descriptor.
            ValueError: an argument holds a zero byte.
        """
        # What a process held at most it is said to have held before it became another program.
        inherited_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        spawned = spawning.spawn(
            self._unshare,
            container.command(self.path, folder, host_view=host_view),
            {"PATH": _SEARCH, container.COPY_FOLDER: folder},
            [json.dumps(configuration).encode()],
            self._domain,
            session.stay,
        )
        return ContainedTask(spawned, name, inherited_bytes)


class ContainedTask:
    """The `StartedTask`; see there for what is not said here."""

    def __init__(self, spawned: Spawned, name: str, inherited_bytes: int) -> None:
        self._spawned = spawned
        self._name = name
        self._inherited_bytes = inherited_bytes
        # crun, process 1 of the PID namespace; known once the container stands.
        self._init: int | None = None
        # What crun and the hook say: a line end once the container stands, then faults only.
        self._told = b""
        self._ended = False
        self._cpu_s = 0.0
        self._network: NetworkCounters | None = None
        # The command, below crun: it ends the task, and crun waits for whatever it left behind.
        self._command_pid = 0
        self._command: int | None = None
        self._command_ended = False

    @property
    def stdout(self) -> int:
        """See `StartedTask`."""
        return self._spawned.stdout

    @property
    def stderr(self) -> int:
        """See `StartedTask`."""
        return self._spawned.stderr

    @property
    def wakers(self) -> tuple[int, ...]:
        """Its process, and the word that the container stands."""
        return self._spawned.handle, self._spawned.status

    def on_wake(self, fd: int) -> bool:
        """See `StartedTask`."""
        if fd == self._spawned.handle:
            self._ended = True
            return False
        return self._listen()

    def tick(self) -> None:
        """Let the command start once it stands ready; once it has ended, end what it left."""
        if self._init is None:
            if self._told.startswith(_STANDS):
                self._let_start()
        elif self._command_ended:
            tree.kill(_children(self._init))
        elif self._command is not None and select.select([self._command], [], [], 0)[0]:
            # Next time: crun itself is about to end, if there is nothing left.
            self._command_ended = True

    def has_ended(self) -> bool:
        """See `StartedTask`."""
        return self._ended

    def usage(self) -> Usage:
        """See `StartedTask`."""
        if self._init is None:
            return Usage(0, 0)
        return usage.measure(self._init).with_files(self._files_bytes())

    def memory_bytes(self) -> int:
        """See `StartedTask`."""
        if self._init is None:
            return 0
        return usage.proportional_bytes(self._init) + self._files_bytes()

    def unnamed_bytes(self, device: int, file_bytes_max: int) -> int:
        """See `StartedTask`."""
        return 0 if self._init is None else usage.unnamed_bytes(self._init, device, file_bytes_max)

    def terminate(self) -> bool:
        """Send SIGTERM to all that crun has below it, as far as they are there now."""
        return self._init is not None and pass_on_sigterm(usage.processes(self._init))

    def kill(self) -> None:
        """Its group holds what didn't leave it; process 1 of its PID namespace takes the rest."""
        if self._init is not None:
            self._cpu_s += usage.cpu_s(self._init)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._spawned.pid, signal.SIGKILL)

    def reap(self) -> End:
        """Wait for everything that the container leaves."""
        exit_code, memory_peak_bytes = None, 0
        while True:
            try:
                pid, status, used = os.wait4(-1, 0)
            except ChildProcessError:
                break
            self._cpu_s += used.ru_utime + used.ru_stime
            memory_peak_bytes = max(memory_peak_bytes, used.ru_maxrss * 1024)
            if pid == self._spawned.pid and self._init is not None:
                code = os.waitstatus_to_exitcode(status)
                exit_code = code if code >= 0 else 128 - code
        self._listen()
        for fd in (self._spawned.handle, self._spawned.status, self._spawned.hold, self._command):
            if fd is not None:
                os.close(fd)
        attempts_blocked = None
        if self._network is not None:
            attempts_blocked = self._network.attempts_blocked()
            self._network.close()
        if memory_peak_bytes <= self._inherited_bytes:
            memory_peak_bytes = 0
        return End(exit_code, self._cpu_s, memory_peak_bytes, attempts_blocked)

    def fault(self, exit_code: int | None, said: str) -> str | None:
        """See `StartedTask`."""
        told = self._told.decode(errors="replace").strip()
        by_enter = exit_code if said.startswith("enter: ") else 0
        # What else crun tells is a warning, and the exit code is the command's.
        by_crun = told if exit_code == _CRUN_FAILED else ""
        if by_enter == NOT_FOUND or _NOT_FOUND.search(by_crun):
            return f"command not found: {self._name}"
        if by_enter == NOT_EXECUTABLE or _NOT_EXECUTABLE.search(by_crun):
            return f"command not executable: {self._name}"
        if exit_code is None or by_enter == enter.FAILED or by_crun:
            return f"the container could not be set up: {told or said}"
        return None

    def _let_start(self) -> None:
        for crun in _waiting_children(self._spawned.pid):
            self._init = crun
            command = _command_below(crun)
            if command is not None:
                self._command_pid, self._command = command, os.pidfd_open(command)
                # Now, so that also the attempts of a short command are counted.
                self._network = NetworkCounters(command)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._spawned.hold, _STANDS)

    def _files_bytes(self) -> int:
        """Of /tmp and /dev/shm, once the command has its own root."""
        if self._command_ended or not self._command_pid:
            return 0
        with contextlib.suppress(OSError):
            root = Path(f"/proc/{self._command_pid}/root")
            if not root.samefile(f"/proc/{self._init}/root"):
                return usage.files_bytes(self._command_pid, bubblewrap.MEMORY_FOLDERS)
        return 0

    def _listen(self) -> bool:
        """Read what is told; False at its end, or when it is enough."""
        try:
            piece = os.read(self._spawned.status, _TOLD_BYTES_MAX)
        except BlockingIOError:
            return True
        self._told = (self._told + piece)[:_TOLD_BYTES_MAX]
        return bool(piece) and len(self._told) < _TOLD_BYTES_MAX


def _find(program: str, package: str) -> str:
    found = shutil.which(program, path=_SEARCH)
    if found is None:
        raise PrepareFailedError(f"{program} is not installed (package {package})")
    return found


def _command_below(crun: int) -> int | None:
    """The task's first process, which waits for the hook; told from it by its user namespace."""
    for child in _waiting_children(crun):
        with contextlib.suppress(OSError):
            if not Path(f"/proc/{child}/ns/user").samefile(f"/proc/{crun}/ns/user"):
                return child
    return None


def _waiting_children(pid: int) -> set[int]:
    """Those of a process none of whose children end meanwhile: only then the list is whole."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:  # killed; or a kernel without such lists
        return {child.pid for child in _children(pid)}
    return {int(child) for child in listed.split()}


def _children(pid: int) -> set[tree.Root]:
    try:
        return tree.children(pid)
    except ProcessLookupError:  # killed, or it has ended by itself
        return set()
