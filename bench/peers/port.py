"""What the runner asks of a peer. Needs nothing but the standard library: peers have their own."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

WORKERS = 2
"""Worker processes of every peer."""
LOOPBACK = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a command line: the kernel kills it with the process that started it (util-linux)."""


class Peer(ABC):
    """One system with two worker processes, everything of it in one folder and on the loopback.

    Attributes:
        CONFIGURATION: how it is set up, in words.
        DURABLE: what of accepted tasks outlives a crash.
        PACKAGES: distributions whose versions the rows name.
        PROGRAMS: commands that print a version.
        NO_STOP: why a task that runs can't be stopped; empty where it can.
        NO_RECOVERY: why a killed worker's task is not waited for; empty where it is.
    """

    CONFIGURATION: ClassVar[str]
    DURABLE: ClassVar[str]
    PACKAGES: ClassVar[tuple[str, ...]] = ()
    PROGRAMS: ClassVar[tuple[tuple[str, ...], ...]] = ()
    NO_STOP: ClassVar[str] = ""
    NO_RECOVERY: ClassVar[str] = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    @abstractmethod
    def start(self) -> None:
        """Start its daemons and wait until tasks can be given."""

    @abstractmethod
    def noop(self, count: int) -> None:
        """Have so many tasks run that do nothing, each on its own, and wait for all results."""

    @abstractmethod
    def true(self, count: int) -> None:
        """Have so many tasks run that each run /bin/true, and wait for all results."""

    @abstractmethod
    def busy(self, path: Path) -> None:
        """Give one task, `tasks.busy(path)`, that runs for a minute; wait for nothing."""

    def stop_busy(self) -> None:
        """Have the busy task stopped; return when the peer says so."""
        raise NotImplementedError

    def batched(self, count: int) -> None:
        """Like `noop`, many to a message, for peers that have a way to do so."""
        raise NotImplementedError

    def workers(self) -> list[int]:
        """Return the process of each worker; what they have started belongs to them.

        Empty: they have none of their own to be killed with, only the one that runs a task.
        """
        return [one.pid for name, one in self.daemons.items() if name.startswith("worker")]

    def servers(self) -> list[int]:
        """Return the processes that stand between client and workers."""
        return [one.pid for name, one in self.daemons.items() if not name.startswith("worker")]

    def stop(self) -> None:
        """End what it started; what is left is killed."""
        for one in reversed(self.daemons.values()):
            with contextlib.suppress(ProcessLookupError):
                one.send_signal(signal.SIGTERM)
        for one in self.daemons.values():
            try:
                one.wait(3)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()

    def versions(self) -> str:
        """Say what is measured, and by which Python."""
        said = [f"{name} {version(name)}" for name in self.PACKAGES]
        for argv in self.PROGRAMS:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            said.append(
                (done.stdout or done.stderr)
                .strip()
                .splitlines()[0]
                .partition(" sha=")[0]
                .partition(" - ")[0]
            )
        return ", ".join(said)

    def spawn(
        self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a daemon that ends with us; its log is NAME.log. Workers are called `worker...`."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.daemons[name] = subprocess.Popen(
                [*WITH_PARENT, *argv],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.daemons[name]

    def until(self, condition: Callable[[], bool], what: str, within_s: float = START_S) -> None:
        """Wait for it; TimeoutError with the logs' ends where it does not come."""
        end = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > end:
                logs = [
                    f"{path.name}: {path.read_text(errors='replace')[-500:]}"
                    for path in self.folder.glob("*.log")
                ]
                raise TimeoutError(f"{what} did not come within {within_s} s\n" + "\n".join(logs))
            time.sleep(0.02)

    def listens(self, port: int) -> None:
        """Wait until somebody listens there."""

        def open_now() -> bool:
            with contextlib.closing(socket.socket()) as probe:
                return probe.connect_ex((LOOPBACK, port)) == 0

        self.until(open_now, f"a server at port {port}")


def free_port() -> int:
    """Return a port of the loopback that nobody uses just now."""
    with contextlib.closing(socket.socket()) as one:
        one.bind((LOOPBACK, 0))
        port: int = one.getsockname()[1]
        return port
