"""gearmand with a client and two workers in C: gearman.c."""

import subprocess
from pathlib import Path

from bench.peers.port import LOOPBACK, WITH_PARENT, WORKERS, Peer, free_port

SOURCE = Path(__file__).with_suffix(".c")


class Gearman(Peer):
    """The queue is in gearmand's memory."""

    CONFIGURATION = (
        "gearmand with its queue in memory; client and 2 workers in C by libgearman, "
        "1,000 jobs at a time"
    )
    DURABLE = "no (its SQLite queue is; jobs that are waited for are not kept there)"
    PROGRAMS = (("gearmand", "--version"),)
    NO_STOP = "a job that runs can't be stopped"

    def start(self) -> None:
        """Compile, then start the server, the workers and the client."""
        program = str(self.folder / "gearman")
        subprocess.run(["cc", "-O2", "-o", program, str(SOURCE), "-lgearman"], check=True)
        port = free_port()
        options = ["--listen", LOOPBACK, "--port", str(port), "--log-file", "stderr"]
        self.spawn("gearmand", ["gearmand", *options])
        self.listens(port)
        for number in range(WORKERS):
            self.spawn(f"worker{number}", [program, "worker", str(port)])
        self._client = subprocess.Popen(
            [*WITH_PARENT, program, "client", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.noop(WORKERS)

    def noop(self, count: int) -> None:
        """Foreground jobs."""
        self._ask("noop", count)

    def true(self, count: int) -> None:
        """Foreground jobs."""
        self._ask("true", count)

    def busy(self, path: Path) -> None:
        """One background job."""
        self._ask("busy", 0, str(path))

    def stop(self) -> None:
        """End the client first."""
        if hasattr(self, "_client"):
            self._client.kill()
            self._client.communicate()
        super().stop()

    def _ask(self, function: str, count: int, workload: str = "") -> None:
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        print(function, count, workload, file=self._client.stdin, flush=True)
        if self._client.stdout.readline() != "done\n":
            raise RuntimeError(f"{function}: the client ended")


PEER = Gearman
