"""A command inside bubblewrap, as a `StartedTask`: how it is started, seen, asked to end, killed.

For every runtime whose tasks run in there; which files a task sees is the runtime's own to say.
"""

import contextlib
import functools
import json
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lender.sandbox.egress.counters import Counters
from lender.sandbox.egress.egress import Egress
from lender.sandbox.meters import usage
from lender.sandbox.meters.network_attempts import NetworkCounters
from lender.sandbox.plan import Network
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.runtimes import spawning
from lender.sandbox.runtimes.command import NOT_EXECUTABLE, NOT_FOUND, End
from lender.sandbox.runtimes.spawning import FILES_FD, HOLD_FD, STATUS_FD, Spawned
from lender.sandbox.runtimes.walled import WalledTask
from lender.sandbox.walls import bubblewrap, enter, landlock, seccomp

_LOOK_AGAIN_MS = 1
_ARGS_FD, _FILTER_FD = FILES_FD, FILES_FD + 1
# How the two programs that set the limits say that they could not start the command.
_NOT_STARTED = ("enter: ", "prlimit: failed to ex")
# One for all sandboxes of this machine.
_filter = functools.cache(seccomp.program)


def preload() -> None:
    """Look once at what the forks then know: whether our program holds, and the filter."""
    enter.find()
    _filter()


class Bubblewrap:
    """Starts commands behind this machine's walls. Make it once for a lease.

    Args:
        network: where each of them may get to.

    Attributes:
        fds: bwrap's options that take a descriptor, and which; for `bubblewrap.options`.
        counters: what went through their proxies.

    Raises:
        PrepareFailedError: bubblewrap is not installed, or what its proxies move can't be counted.
    """

    def __init__(self, network: Network | None = None) -> None:
        bwrap = bubblewrap.find()
        if bwrap is None:
            raise PrepareFailedError("bubblewrap (bwrap) is not installed")
        self._bwrap = bwrap
        self._filter = _filter()
        self._domain = None if enter.find() else landlock.scoped()
        fds = {"json-status-fd": STATUS_FD, "block-fd": HOLD_FD}
        if self._filter is not None:
            fds["seccomp"] = _FILTER_FD
        self.fds: Mapping[str, int] = MappingProxyType(fds)
        self._network = network
        try:
            self.counters = Counters.at(None if network is None else network.counters)
        except OSError as error:
            raise PrepareFailedError(f"its network can't be counted: {error.strerror}") from error

    def start(
        self, options: bytes, command: Sequence[str], name: str, stdin: int | None = None
    ) -> "BubblewrappedTask":
        """Fork and become bubblewrap in the child. Call `confine.adopt_orphans` before the first.

        Args:
            options: for bwrap's --args; `fds` among them.
            command: the command line inside.
            name: what the job calls its command.
            stdin: see `spawning.spawn`.

        Raises:
            OSError: no process, or no descriptor.
            ValueError: an argument holds a zero byte.
        """
        argv, files = _command_line(command), self._files(options)
        with contextlib.ExitStack() as undo:
            egress = None
            if self._network is not None:
                egress = Egress(self._network, self.counters)
                undo.callback(egress.abandon)
            # bwrap is process 1 inside and shows its own environment there.
            spawned = spawning.spawn(self._bwrap, argv, {}, files, self._domain, stdin=stdin)
            undo.pop_all()
        return BubblewrappedTask(spawned, name, self.counters, egress)

    def start_ahead(self, options: bytes) -> "BubblewrappedTask":
        """The same for a command without a network that nobody knows yet, see `begin`.

        Raises:
            OSError: no process, or no descriptor.
        """
        files = self._files(options)
        argv = _command_line(enter.waiting(FILES_FD + len(files)))
        spawned = spawning.spawn(self._bwrap, argv, {}, files, self._domain, heard_inside=True)
        return BubblewrappedTask(spawned, "", self.counters, None)

    def _files(self, options: bytes) -> list[bytes]:
        return [options] if self._filter is None else [options, self._filter]


def _command_line(inside: Sequence[str]) -> list[str]:
    return ["bwrap", "--args", str(_ARGS_FD), "--", *inside]


class BubblewrappedTask(WalledTask):
    """The `StartedTask`; see there for what is not said here.

    The command does not start before something is written to `hold`, or it is closed.
    """

    def __init__(
        self, spawned: Spawned, name: str, counters: Counters, egress: Egress | None
    ) -> None:
        super().__init__(spawned, name)
        self._counters = counters
        self._refused_before = counters.read().refused
        self._egress = egress
        self._no_way_out = ""
        self._told = b""
        self._exit_code: int | None = None

    def stand(self, within_s: float) -> bool:
        """Wait until the walls of one that was started ahead stand; False where they don't."""
        told, end_by = select.poll(), time.monotonic() + within_s
        told.register(self._spawned.status, select.POLLIN)
        while self._init is None:
            if not told.poll(within_s * 1000) or not self._listen():
                return False
        self._network = NetworkCounters(self._init)
        ended = select.poll()
        ended.register(self._spawned.handle, select.POLLIN)
        # It has its root once all is mounted in there (pivot_root(2)).
        while not os.path.lexists(f"/proc/{self._init}/root{enter.PLACE}"):
            if time.monotonic() > end_by or ended.poll(_LOOK_AGAIN_MS):
                return False
        return not ended.poll(0)

    def begin(self, name: str, words: bytes) -> None:
        """Tell who waits in there what to become, once it stands.

        Args:
            name: what the job calls its command.
            words: see `enter.words`.
        """
        self._name = name
        with contextlib.suppress(BrokenPipeError):
            # One piece: bubblewrap reads the first byte of it, our program all others.
            os.write(self._spawned.hold, b"1" + words)

    def give_up(self) -> None:
        """End one that was started ahead, and that nobody needs."""
        self.kill()
        self.reap()
        for fd in (self.stdout, self.stderr):
            os.close(fd)

    def tick(self) -> None:
        """Let the command start once its namespaces stand: then also a short one is counted."""
        if self._network is not None or self._init is None:
            return
        self._network = NetworkCounters(self._init)
        try:
            if self._egress is not None:
                self._egress.open(self._init)
        except OSError as error:
            self._no_way_out = f"no network: {error}"
            self.kill()
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(self._spawned.hold, b"1")

    def kill(self) -> None:
        """Bubblewrap's group, and its init, which may have been adopted by us."""
        super().kill()
        if self._init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)

    def reap(self) -> End:
        """Wait for everything that the sandbox leaves."""
        ours = {self._spawned.pid}
        if self._egress is not None:
            self._egress.kill()
            ours.add(self._egress.pid)
        # bubblewrap's own peak is that of the fork it was: only its init's is the job's.
        peaks = [peak for pid, _, peak in self._reaped() if pid not in ours]
        attempts_blocked = self._let_go()
        if self._egress is not None:
            self._egress.close()
            if attempts_blocked is not None:
                attempts_blocked += self.refused()
        return End(self._exit_code, self._cpu_s, max(peaks, default=0), attempts_blocked)

    def refused(self) -> int:
        """How often its proxy refused it."""
        return self._counters.read().refused - self._refused_before

    def fault(self, exit_code: int | None, said: str) -> str | None:
        """See `StartedTask`."""
        said = self._no_way_out or said
        if exit_code is None or (exit_code == enter.FAILED and said.startswith("enter: ")):
            return f"the sandbox could not be set up: {said}"
        if exit_code in {NOT_FOUND, NOT_EXECUTABLE} and said.startswith(_NOT_STARTED):
            what = "not found" if exit_code == NOT_FOUND else "not executable"
            return f"command {what}: {self._name}"
        return None

    def _files_bytes(self) -> int:
        """Of /tmp and /dev/shm, once it has its own."""
        if self._init is None or not usage.processes(self._init):
            return 0
        return usage.files_bytes(self._init, bubblewrap.MEMORY_FOLDERS)

    def _hear(self, piece: bytes) -> bool:
        """A JSON object a line."""
        *lines, self._told = (self._told + piece).split(b"\n")
        for line in lines:
            told = json.loads(line)
            self._init = told.get("child-pid", self._init)
            self._exit_code = told.get("exit-code", self._exit_code)
        return True
