"""How long work stands still after kill -9: of a lenderd, of the NATS server, of a node of three.

All real, with the settings that they come with. In turns:
a lenderd that runs a task: until the task starts again on another machine;
the one NATS server, which the broker starts again: until a job has its result that was submitted
right after the kill;
of a cluster of three nodes the one that leads the ledger: the same.
Beside them the same job with nothing killed. What the death of a broker costs: recovery.py.

    python bench/kills.py [--runs 5] [--only lenderd,server,node]

Writes build/bench/kills.json.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import psutil
from nats_cluster import NatsCluster

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rows

from deploy.local.fleet import Fleet, wait_until
from lender.client.client import Client

WITHIN_S = 120.0
REPLICAS = "LENDER_BROKER_REPLICAS"


class Stand:
    """Two machines and a submitter; `async with Stand(...) as stand`."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        folder.mkdir(mode=0o711)
        self.fleet = Fleet(folder, ("desk", "attic"), workloads=("command",), url=url)
        self._url = url
        if url is not None:
            self.fleet.broker.env[REPLICAS] = "3"

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.fleet.__enter__)
        self.client = Client(self._url or self.fleet.url, self.fleet.key, timeout_s=WITHIN_S)
        try:
            await self.client.__aenter__()
        except BaseException:
            await asyncio.to_thread(self.fleet.stop)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.__aexit__()
        await asyncio.to_thread(self.fleet.stop)

    async def job_s(self) -> float:
        """Seconds of one short job, from its submission to its result."""
        begun = time.monotonic()
        await (await self.client.submit(["/bin/true"])).result(timeout_s=WITHIN_S)
        return time.monotonic() - begun

    async def lenderd_s(self) -> float:
        """Kill who runs a task; seconds until it runs elsewhere."""
        job = await self.client.submit(["sleep", "3600"])
        victim = await self._runs()
        lender = self.fleet.lenders[victim]
        lender.kill()
        killed = time.monotonic()
        await self._runs(without=victim)
        took_s = time.monotonic() - killed
        await job.cancel()
        await job.terminal()
        lender.start()
        await asyncio.to_thread(self.fleet.wait_lending, lender)
        await asyncio.to_thread(wait_until, self._idle, "the end of the cancelled task")
        return took_s

    async def server_s(self) -> float:
        """Kill the broker's NATS server; seconds until a new job is done."""
        (server,) = psutil.Process(self.fleet.broker.pid).children()
        server.send_signal(signal.SIGKILL)
        return await self.job_s()

    async def node_s(self, cluster: NatsCluster) -> float:
        """Kill the node that leads the ledger; seconds until a new job is done."""
        name = await cluster.leader_of("JOBS")
        cluster.kill(name)
        took_s = await self.job_s()
        await cluster.start_node(name)
        await cluster.until_whole()
        return took_s

    def _idle(self) -> bool:
        return not any(lender.busy() for lender in self.fleet.lenders.values())

    async def _runs(self, without: str = "") -> str:
        """Wait until a machine runs something; its name."""
        end = time.monotonic() + WITHIN_S
        while time.monotonic() < end:
            for name, lender in self.fleet.lenders.items():
                if name != without and lender.busy():
                    return name
            await asyncio.sleep(0.005)
        raise TimeoutError(f"nobody runs it within {WITHIN_S} s")


async def measure(folder: Path, runs: int, only: list[str]) -> list[rows.Row]:
    """Take turns; return the rows."""
    found: dict[str, list[float]] = defaultdict(list)
    on = rows.machine()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Stand(folder / "one"))
        cases: dict[str, Callable[[], Awaitable[float]]] = {
            "a job, nothing killed": one.job_s,
        }
        if "lenderd" in only:
            cases["lenderd that runs a task: until its second start"] = one.lenderd_s
        if "server" in only:
            cases["the one NATS server: until a new job is done"] = one.server_s
        if "node" in only:
            cluster = NatsCluster(folder / "cluster")
            stack.callback(cluster.close)
            await cluster.start()
            three = await stack.enter_async_context(Stand(folder / "three", cluster.url))
            cases["a job on three nodes, nothing killed"] = three.job_s
            cases["the leading node of three: until a new job is done"] = lambda: three.node_s(
                cluster
            )
        for run in range(runs):
            for name, case in cases.items():
                found[name].append(await case())
                print(f"[{run + 1}/{runs}] {name}: {found[name][-1]:.2f} s", file=sys.stderr)
    table = [rows.Row("lender", name, "s", tuple(took)) for name, took in found.items()]
    rows.write("kills", table, on=on)
    return table


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="lenderd,server,node")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="lender-kills-"))
    folder.chmod(0o711)
    try:
        table = asyncio.run(measure(folder, asked.runs, asked.only.split(",")))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"load {os.getloadavg()[0]:.2f}")
    for row in table:
        print(rows.line(row))


if __name__ == "__main__":
    main()
