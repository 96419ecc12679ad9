"""This project: a NATS server, the broker and two lenderds with one slot each, all real."""

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import psutil
import wasmtime

from bench.peers import tasks
from bench.peers.port import LOOPBACK, Peer, free_port
from deploy.local.fleet import Fleet
from lender.client.client import Client
from lender.client.job import Job

NOTHING = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))
AT_A_TIME = 1000
LOOK_S = 0.02
SETTINGS = 'listen: "{host}:{port}"\njetstream: {{ store_dir: "{folder}/jetstream" }}\n'


class Ours(Peer):
    """Sandboxed, signed, stored; what others do not do is not left out."""

    CONFIGURATION = (
        "nats-server with files, lender-broker, 2 x lenderd with one slot; a no-op task is a "
        "job of its own with an empty wasm module (those that are submitted at the same time "
        "travel together), /bin/true runs in the process sandbox; many to a message: one array"
    )
    DURABLE = "yes, JetStream files, synced every 2 minutes (sync_interval, the server's default)"
    PACKAGES = ("lender",)
    PROGRAMS = (("nats-server", "--version"),)

    def start(self) -> None:
        """Start server, broker and lenders."""
        port = free_port()
        settings = self.folder / "nats.conf"
        settings.write_text(SETTINGS.format(host=LOOPBACK, port=port, folder=self.folder))
        self.spawn("nats", ["nats-server", "-c", str(settings)])
        self.listens(port)
        url = f"nats://{LOOPBACK}:{port}"
        folder = self.folder / "fleet"
        folder.mkdir(mode=0o711)
        self._fleet = Fleet(
            folder, ("desk", "attic"), workloads=("wasm", "command", "python"), url=url
        )
        self._fleet.start()
        self._loop = asyncio.Runner()
        self._url = url
        self._client = self.another_client()
        self._loop.run(self._client.__aenter__())

    def another_client(self) -> Client:
        """Return one that is not entered."""
        return Client(self._url, self._fleet.key, timeout_s=60)

    def noop(self, count: int) -> None:
        """A job each."""
        self._loop.run(self._all(count, wasm=NOTHING))

    def true(self, count: int) -> None:
        """A job each, in a sandbox of its own."""
        self._loop.run(self._all(count, argv=(tasks.TRUE,)))

    def batched(self, count: int) -> None:
        """One array."""
        self._loop.run(self._array(count))

    def busy(self, path: Path) -> None:
        """A shell's loop; who starts it is seen from outside, since a sandbox shows nothing."""
        argv = ("sh", "-c", "while :; do :; done", path.name)
        self._busy: Job = self._loop.run(self._client.submit(argv))
        threading.Thread(target=_watch, args=(path, self.workers()), daemon=True).start()

    def stop_busy(self) -> None:
        """Cancel the job."""
        self._loop.run(self._busy.cancel())

    def workers(self) -> list[int]:
        """Return the daemons; their sandboxes are below them."""
        return [lender.pid for lender in self._fleet.lenders.values()]

    def servers(self) -> list[int]:
        """Return broker and NATS server."""
        return [*super().servers(), self._fleet.broker.pid]

    def stop(self) -> None:
        """End the fleet, then the server."""
        if hasattr(self, "_client"):
            self._loop.run(self._client.__aexit__())
            self._loop.close()
        if hasattr(self, "_fleet"):
            for lender in self._fleet.lenders.values():
                if not lender.alive():  # what it has left behind is its own to remove
                    lender.start()
                    self.until(lender.answers, f"{lender.name} again")
            self._fleet.stop()
        super().stop()

    async def _all(self, count: int, **request: object) -> None:
        room = asyncio.Semaphore(AT_A_TIME)

        async def one() -> None:
            async with room:
                job = await self._client.submit(**request)
                await job.result()

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one())

    async def _array(self, count: int) -> None:
        job = await self._client.submit(wasm=NOTHING, array=count)
        seen = 0
        async for _ in job.results():
            seen += 1
        if seen != count:
            raise RuntimeError(f"{seen} results of {count}")


def _watch(path: Path, daemons: list[int]) -> None:
    """Write for `tasks.starts`, and into the counter, what the task itself would."""
    known: set[int] = set()
    beats = None
    while True:
        for one in _below(daemons):
            if one.pid not in known and _argument(one) == path.name:
                known.add(one.pid)
                beats = tasks.mark_start(path, one.pid)
        until = time.monotonic() + LOOK_S
        while time.monotonic() < until:
            if beats and any(map(psutil.pid_exists, known)):
                beats[:8] = time.monotonic_ns().to_bytes(8, "little")
            time.sleep(0.0005)


def _below(daemons: list[int]) -> list[psutil.Process]:
    found = []
    for pid in daemons:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += psutil.Process(pid).children(recursive=True)
    return found


def _argument(process: psutil.Process) -> str:
    """The last word of the shell's command line; empty for any other process."""
    with contextlib.suppress(psutil.Error):
        argv = process.cmdline()
        if argv[:1] == ["sh"]:
            return argv[-1]
    return ""


PEER = Ours
