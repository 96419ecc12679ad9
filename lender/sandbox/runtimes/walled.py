"""A command behind walls that another program has made, as far as all such are the same.

It is a `StartedTask`, see there for what is not said here. Its init is process 1 of its PID
namespace: whatever it leaves, its init takes along.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lender.sandbox.meters import usage
from lender.sandbox.meters.network_attempts import NetworkCounters
from lender.sandbox.meters.peak import peak_bytes
from lender.sandbox.meters.usage import Usage
from lender.sandbox.runtimes.spawning import Spawned

_TOLD_BYTES = 4096


class WalledTask:
    """What bubblewrap's and crun's commands have in common.

    Args:
        spawned: the program that makes the walls.
        name: what the job calls its command.
    """

    def __init__(self, spawned: Spawned, name: str) -> None:
        self._spawned = spawned
        self._name = name
        # Known once its namespaces stand.
        self._init: int | None = None
        self._ended = False
        self._cpu_s = 0.0
        self._network: NetworkCounters | None = None

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
        """Its process, and what is told of it."""
        return self._spawned.handle, self._spawned.status

    def on_wake(self, fd: int) -> bool:
        """See `StartedTask`."""
        if fd == self._spawned.handle:
            self._ended = True
            return False
        return self._listen()

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
        """Send SIGTERM to all that its init has below it, as far as they are there now.

        The task ends with its first process: a script that is to outlive its children's last
        words traps the signal, or starts them by exec.
        """
        return self._init is not None and pass_on_sigterm(usage.processes(self._init))

    def kill(self) -> None:
        """Its group holds what didn't leave it; its init takes the rest along."""
        if self._init is not None:
            self._cpu_s += usage.cpu_s(self._init)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._spawned.pid, signal.SIGKILL)

    def _files_bytes(self) -> int:
        """Of its file systems that are memory, once it has its own."""
        raise NotImplementedError

    def _hear(self, piece: bytes) -> bool:
        """Take what is told; False when that is enough."""
        raise NotImplementedError

    def _listen(self) -> bool:
        """Read what is told; False at its end."""
        try:
            piece = os.read(self._spawned.status, _TOLD_BYTES)
        except BlockingIOError:
            return True
        return bool(piece) and self._hear(piece)

    def _reaped(self) -> Iterator[tuple[int, int, int]]:
        """All that it leaves, waited for: process, exit code as Python says it, peak memory."""
        while True:
            try:
                pid, status, used = os.wait4(-1, 0)
            except ChildProcessError:
                return
            self._cpu_s += used.ru_utime + used.ru_stime
            yield pid, os.waitstatus_to_exitcode(status), peak_bytes(used)

    def _let_go(self) -> int | None:
        """Close what belongs to it; its tries to reach a network."""
        self._listen()
        for fd in (self._spawned.handle, self._spawned.status, self._spawned.hold):
            os.close(fd)
        if self._network is None:
            return None
        attempts_blocked = self._network.attempts_blocked()
        self._network.close()
        return attempts_blocked


def pass_on_sigterm(processes: Iterable[Path]) -> bool:
    """Ask processes to end; False where none was reached.

    Args:
        processes: their folders in any /proc, also a sandbox's own: each serves as a descriptor of
            its process, whose id we don't know out here (pidfd_send_signal(2)).
    """
    if sys.platform != "linux":
        raise NotImplementedError("Linux only")
    reached = False
    for folder in processes:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
                reached = True
            finally:
                os.close(handle)
    return reached
