"""What throughput is measured on: a server, a broker and one lenderd with two slots, all real."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psutil

from deploy.local.fleet import Fleet
from lender.client.client import Client
from lender.link.embedded import EmbeddedServer

SYNCS = {"default": "2m", "always": "always"}
"""By its name here: what `sync_interval` the server has. The first is the server's own."""
SLOTS = 2
_WORKLOADS = ("wasm", "python", "command")


class Stand:
    """A fleet of one machine on a server of its own; `async with Stand(...) as stand`."""

    def __init__(self, folder: Path, sync: str) -> None:
        folder.mkdir()
        folder.chmod(0o711)
        self.sync = sync
        self.server = EmbeddedServer(folder / "nats", sync_interval=SYNCS[sync])
        self._folder = folder
        self.fleet: Fleet
        self.client: Client
        self.alone: Client
        """Sends each job in a message of its own."""

    async def __aenter__(self) -> Self:
        await self.server.start()
        try:
            self.fleet = Fleet(
                self._folder / "fleet",
                workloads=_WORKLOADS,
                url=self.server.url,
                env={"LENDERD_SLOTS": str(SLOTS)},
            )
            self.fleet.folder.mkdir(mode=0o711)
            await asyncio.to_thread(self.fleet.__enter__)
            self.client = Client(self.server.url, self.fleet.key, timeout_s=120)
            await self.client.__aenter__()
            self.alone = Client(self.server.url, self.fleet.key, timeout_s=120, together=False)
            await self.alone.__aenter__()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.alone.__aexit__()
        await self.client.__aexit__()
        await self._end()

    async def _end(self) -> None:
        if hasattr(self, "fleet"):
            await asyncio.to_thread(self.fleet.stop)
        self.server.kill()

    def spent_s(self) -> dict[str, float]:
        """Return the processor time of each process so far, by its name."""
        daemon = psutil.Process(self.fleet.lenders["desk"].pid)
        assert self.server.pid is not None
        return {
            "submitter": _of(psutil.Process()),
            "nats-server": _of(psutil.Process(self.server.pid)),
            "broker": _of(psutil.Process(self.fleet.broker.pid)),
            "lenderd": _of(daemon),
            "sandboxes": sum(_with_children(child) for child in daemon.children()),
        }


def between(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return what was spent meanwhile."""
    return {name: after[name] - before[name] for name in before}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share of all is not above."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _with_children(process: psutil.Process) -> float:
    """Those that live, and those that were waited for."""
    spent_s = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent_s += sum((times.user, times.system, times.children_user, times.children_system))
    return spent_s
