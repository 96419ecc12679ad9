"""Jobs and tasks per second, and how long one takes: durable, from submission to its result.

Separate jobs that are submitted at the same time travel together, as they do for everybody; beside
them a client is measured that sends a message for each.

Everything is real: a nats-server that stores in files, the broker, one lenderd with two slots, one
submitter. Beside it, in the same run and in turns, raw JetStream by the same client: what a durable
job costs at least. Twice: with the server's own `sync_interval` (what it has acknowledged outlives
every process, but not a power cut within two minutes), and with `always` (it outlives that, too).

    python bench/throughput.py [--runs 5] [--quick] [--only WORD] [--sync default,always]

Writes build/bench/throughput.json.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import uvloop
import wasmtime

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rows
from throughput_floor import Floor
from throughput_stand import SYNCS, Stand, between, percentile

from lender.client.client import Client
from lender.client.executor import LenderExecutor
from lender.client.job import Job

NOTHING = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))
IN_FLIGHT = 1000
RESTED_S = 0.1
OURS, FLOOR = "lender", "floor: raw JetStream"


class Sizes(NamedTuple):
    """How much of each is done in one run."""

    jobs: int = 20_000
    alone: int = 1500
    called: int = 20_000
    commands: int = 300
    array: int = 100_000
    calls: int = 40_000
    one_by_one: int = 200


QUICK = Sizes(jobs=2000, alone=150, called=1500, commands=50, array=5000, calls=3000, one_by_one=30)
Found = dict[tuple[str, str, str], list[float]]


class Bench:
    """Takes turns; keeps what was found by system, measure and unit."""

    def __init__(self, sizes: Sizes, only: str) -> None:
        self.found: Found = defaultdict(list)
        self._sizes = sizes
        self._only = only
        self._numbers = count()

    async def turn(self, stand: Stand, floor: Floor) -> None:
        """Measure each once."""
        sizes, client, sync = self._sizes, stand.client, f"sync {stand.sync}"

        async def wasm_job() -> Job:
            return await client.submit(wasm=NOTHING)

        async def command_job() -> Job:
            return await client.submit(["/bin/true"])

        async def new_command_job() -> Job:
            # None that ran before asked for the same: no kept sandbox fits.
            return await client.submit(["/bin/true", str(next(self._numbers))])

        if self._wants("jobs"):
            await self._jobs(stand, floor, sync)
        if self._wants("executor"):
            await self._called(stand, f"calls of an executor, {sync}")
        if self._wants("commands"):
            await self._many(stand, command_job, sizes.commands, f"commands, /bin/true, {sync}")
        if self._wants("arrays"):
            measure = f"array of wasm tasks, {sync}"
            await self._array(stand, lambda n: client.submit(wasm=NOTHING, array=n), measure)
            measure = f"array of python tasks, {sync}"
            await self._array(stand, lambda n: _calls(client, n), measure, sizes.calls)
        if self._wants("latency"):
            self._latency(FLOOR, sync, await floor.one_by_one(sizes.one_by_one))
            await _one_by_one(wasm_job, 3)
            took = await _one_by_one(wasm_job, sizes.one_by_one)
            self._latency(OURS, f"wasm, warm, {sync}", took)
            for words, submit in (("warm", command_job), ("cold", new_command_job)):
                took = await _one_by_one(submit, sizes.one_by_one // 4)
                self._latency(OURS, f"/bin/true, {words}, {sync}", took)
            took = await _one_by_one(new_command_job, sizes.one_by_one // 4, RESTED_S)
            self._latency(OURS, f"/bin/true, cold, each after 0.1 s, {sync}", took)

    async def _jobs(self, stand: Stand, floor: Floor, sync: str) -> None:
        await self._floor(floor, self._sizes.jobs, sync)
        for client, jobs, how in (
            (stand.client, self._sizes.jobs, ""),
            (stand.alone, self._sizes.alone, "a message each, "),
        ):
            submit = partial(client.submit, wasm=NOTHING)
            await self._many(stand, submit, jobs, f"jobs, wasm, {how}{sync}")

    def _wants(self, what: str) -> bool:
        return self._only in what

    async def _floor(self, floor: Floor, count: int, sync: str) -> None:
        took_s, spent = await floor.jobs(count)
        self._throughput(FLOOR, f"jobs, {sync}", count, took_s, spent)

    async def _many(
        self, stand: Stand, submit: Callable[[], Awaitable[Job]], count: int, measure: str
    ) -> None:
        """So many separate jobs, of which a bounded number is under way at any time."""
        room, before, began = asyncio.Semaphore(IN_FLIGHT), stand.spent_s(), time.perf_counter()

        async def one() -> None:
            async with room:
                job = await submit()
                await job.result()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(one())
        took_s = time.perf_counter() - began
        self._throughput(OURS, measure, count, took_s, between(before, stand.spent_s()))

    async def _called(self, stand: Stand, measure: str) -> None:
        """So many separate calls of one executor."""
        count = self._sizes.called

        def call() -> tuple[float, dict[str, float]]:
            with LenderExecutor(client=Client(stand.server.url, stand.fleet.key)) as executor:
                executor.submit(_nothing, 0).result()
                before, began = stand.spent_s(), time.perf_counter()
                for future in [executor.submit(_nothing, one) for one in range(count)]:
                    future.result()
                took_s = time.perf_counter() - began
                return took_s, between(before, stand.spent_s())

        took_s, spent = await asyncio.to_thread(call)
        self._throughput(OURS, measure, count, took_s, spent, "calls")

    async def _array(
        self,
        stand: Stand,
        submit: Callable[[int], Awaitable[Job]],
        measure: str,
        count: int | None = None,
    ) -> None:
        """One job; every task's result comes back to the submitter."""
        count = count or self._sizes.array
        before, began = stand.spent_s(), time.perf_counter()
        job, results = await submit(count), 0
        async for _ in job.results():
            results += 1
        took_s = time.perf_counter() - began
        assert results == count, (results, count)
        self._throughput(OURS, measure, count, took_s, between(before, stand.spent_s()), "tasks")

    def _throughput(
        self,
        system: str,
        measure: str,
        count: int,
        took_s: float,
        spent: dict[str, float],
        what: str = "jobs",
    ) -> None:
        self._keep(system, measure, f"{what}/s", count / took_s)
        for process, spent_s in {**spent, "all": sum(spent.values())}.items():
            self._keep(
                system, f"{measure}: {process}", f"CPU s/1,000 {what}", 1000 * spent_s / count
            )

    def _latency(self, system: str, measure: str, took_ms: list[float]) -> None:
        self._keep(system, f"one by one, {measure}, p50", "ms", statistics.median(took_ms))
        self._keep(system, f"one by one, {measure}, p99", "ms", percentile(took_ms, 0.99))

    def _keep(self, system: str, measure: str, unit: str, value: float) -> None:
        self.found[system, measure, unit].append(value)

    def rows(self) -> list[rows.Row]:
        """What was found so far."""
        return [rows.Row(*name, tuple(values)) for name, values in self.found.items()]


async def _calls(client: Client, count: int) -> Job:
    return (await client.map(_nothing, range(count))).job


def _nothing(_: int) -> None:
    return None


async def _one_by_one(
    submit: Callable[[], Awaitable[Job]], count: int, rested_s: float = 0
) -> list[float]:
    """Milliseconds from the call that submits to the result in the submitter's hands.

    Nothing is asked for so long before each of them: all is at rest then.
    """
    took_ms = []
    for _ in range(count):
        await asyncio.sleep(rested_s)
        began = time.perf_counter()
        job = await submit()
        await job.result()
        took_ms.append(1000 * (time.perf_counter() - began))
    return took_ms


async def measure(folder: Path, bench: Bench, runs: int, syncs: list[str]) -> None:
    on = rows.machine()
    async with contextlib.AsyncExitStack() as stack:
        stands = [
            (
                await stack.enter_async_context(Stand(folder / sync, sync)),
                await stack.enter_async_context(Floor(folder / f"floor-{sync}", sync)),
            )
            for sync in syncs
        ]
        for stand, _ in stands:  # what is made once: compiled modules, the first connection
            await (await stand.client.submit(wasm=NOTHING)).result(60)
        for run in range(runs):
            for stand, floor in stands:
                await bench.turn(stand, floor)
            rows.write("throughput", bench.rows(), on=on)
            print(f"run {run + 1} of {runs}, load {os.getloadavg()[0]:.2f}", flush=True)


def main() -> None:
    """Print the rows, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one small run")
    parser.add_argument("--only", default="", help="jobs, executor, commands, arrays or latency")
    parser.add_argument("--sync", default=",".join(SYNCS))
    asked = parser.parse_args()
    bench = Bench(QUICK if asked.quick else Sizes(), asked.only)
    folder = Path(tempfile.mkdtemp(prefix="lender-throughput-"))
    folder.chmod(0o711)
    try:
        runs = 1 if asked.quick else asked.runs
        uvloop.run(measure(folder, bench, runs, asked.sync.split(",")))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{'system':<28} {'measure':<44} {'median':>9} {'least':>9} {'most':>9}")
    for row in bench.rows():
        print(rows.line(row))


if __name__ == "__main__":
    main()
