"""A command inside a container of crun's, as a `StartedTask`: how it is started, seen, ended."""

import contextlib
import json
import os
import re
import resource
import select
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lender.sandbox.meters import usage
from lender.sandbox.meters.network_attempts import NetworkCounters
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import tree
from lender.sandbox.runtimes import spawning
from lender.sandbox.runtimes.command import NOT_EXECUTABLE, NOT_FOUND, End
from lender.sandbox.runtimes.spawning import Spawned
from lender.sandbox.runtimes.walled import WalledTask
from lender.sandbox.walls import bubblewrap, container, enter, landlock, session

_STANDS: Final = b"\n"
_TOLD_BYTES_MAX: Final = 4096
_CRUN_FAILED: Final = 1
# What crun says of a command, in all its versions (`find_executable`, `container_init_setup`).
_NOT_FOUND: Final = re.compile("executable file .* not found")
_NOT_EXECUTABLE: Final = re.compile("open executable|is not executable|is not a regular file")
# NixOS first: in /usr it has what sandboxes are to find, whose unshare is another one.
_SEARCH: Final = "/run/current-system/sw/bin:/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"


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


class ContainedTask(WalledTask):
    """The `StartedTask`; see there for what is not said here. Its init is crun."""

    def __init__(self, spawned: Spawned, name: str, inherited_bytes: int) -> None:
        super().__init__(spawned, name)
        self._inherited_bytes = inherited_bytes
        # What crun and the hook say: a line end once the container stands, then faults only.
        self._told = b""
        # The command, below crun: it ends the task, and crun waits for whatever it left behind.
        self._command_pid = 0
        self._command: int | None = None
        self._command_ended = False

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

    def reap(self) -> End:
        """Wait for everything that the container leaves."""
        exit_code, memory_peak_bytes = None, 0
        for pid, code, peak_bytes in self._reaped():
            memory_peak_bytes = max(memory_peak_bytes, peak_bytes)
            if pid == self._spawned.pid and self._init is not None:
                exit_code = code if code >= 0 else 128 - code
        attempts_blocked = self._let_go()
        if self._command is not None:
            os.close(self._command)
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
        if sys.platform != "linux":
            raise NotImplementedError("Linux only")
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

    def _hear(self, piece: bytes) -> bool:
        """Faults, and that the container stands."""
        self._told = (self._told + piece)[:_TOLD_BYTES_MAX]
        return len(self._told) < _TOLD_BYTES_MAX


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
