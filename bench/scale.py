"""What a job costs broker and NATS server as the fleet grows, and as the queue grows.

Real: nats-server, `lender-broker`, a submitter's publishes, and each lender's connection, offers,
pulls, reports and acks (scale_lender.py). The lenders' tasks take no time, and nobody waits for
events, so that what is left is broker and server alone. Costs are processor time, which other load
on the machine changes less than the clock.

Fleet: 1 to 1,000 lenders, idle, then with as many jobs as they take, then with one job at a time.
What they cost idle in the same time is taken off, and told by itself. Beside them raw JetStream
(scale_floor.py), one message at a time to one of as many that wait. Queue: 10^3 to 10^6 jobs of
twelve submitters (each may have 100,000) wait; what taking them in costs, and then what running a
few of them does.

    python bench/scale.py [--quick] [--runs 1] [--fleet 1,10,100,1000] [--queue 1000,...,1000000]

Writes build/bench/scale.json and build/bench/scale.svg.
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self

import psutil
import uvloop
from broker_parts import BrokerProcess, class_token, spec_fields
from charts import Line, Panel, write_svg
from scale_floor import Floor
from scale_lender import SimLender

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rows

from lender.link import connection as link
from lender.link.embedded import EmbeddedServer
from lender.link.errors import LinkError
from lender.link.publisher import Publisher
from lender.protocol import subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, JSON
from lender.protocol.signature import SIGNATURE_HEADER, Signer, seed_from_entropy

FLEETS, QUEUES = (1, 10, 100, 1000), (1000, 10_000, 100_000, 1_000_000)
SUBMITTERS = 12
FLEET_JOBS, SINGLE_JOBS, QUEUE_JOBS, QUEUE_LENDERS = 4000, 200, 5000, 10
FLOOR_JOBS = 2000
IDLE_S = 10.0
SETTLE_S = 5.0
"""After many jobs: who was told to pull for a while pulls no more."""
AT_A_TIME = 10_000
AGAIN_MAX = 100_000
"""Longer queues are measured in the first run alone: one takes as long as all else."""
WITHIN_S = 900.0
DESCRIPTORS = 8192


class Spent(NamedTuple):
    """Processor seconds of both so far, and when that was."""

    broker: float
    server: float
    at: float

    def __sub__(self, other: object) -> "Spent":
        assert isinstance(other, Spent)
        return Spent(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


class Stand:
    """A server, a broker, a submitters' connection; `async with Stand(...) as stand`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server = EmbeddedServer(folder / "nats", sync_interval="2m")
        self.signers = [Signer(seed_from_entropy(bytes([n + 1] * 32))) for n in range(SUBMITTERS)]
        self.lenders: list[SimLender] = []
        self.committed = 0
        self._sent = 0
        self._progress = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._folder.mkdir()
        await self.server.start()
        self.broker = BrokerProcess(self._folder / "broker", self.server.url)
        try:
            for number, signer in enumerate(self.signers):
                self.broker.allow(f"s{number}", signer.public_key)
            await self.broker.start()
            self._connection = await link.connect(self.server.url, name="bench", timeout_s=30)
        except BaseException:
            self._kill()
            raise
        assert self.server.pid is not None
        assert self.broker.process is not None
        self._broker = psutil.Process(self.broker.process.pid)
        self._server = psutil.Process(self.server.pid)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.lend(0, [])
        await self._connection.close()
        self._kill()

    def _kill(self) -> None:
        self.broker.kill()
        self.server.kill()

    def spent(self) -> Spent:
        """Processor time until now."""
        both = (sum(one.cpu_times()[:2]) for one in (self._broker, self._server))
        return Spent(*both, time.monotonic())

    def resident_mib(self) -> tuple[float, float]:
        """Memory of both."""
        broker, server = (one.memory_info().rss / 2**20 for one in (self._broker, self._server))
        return broker, server

    def offers(self) -> int:
        """How many the fleet has sent."""
        return sum(lender.offers for lender in self.lenders)

    def cancelled(self) -> int:
        """How many leases it was told to stop: none of ours should be."""
        return sum(lender.cancelled for lender in self.lenders)

    def classes(self, submitters: int) -> list[str]:
        """The classes of so many submitters."""
        return [class_token(spec_fields("job-0000", one)) for one in self.signers[:submitters]]

    async def lend(self, count: int, classes: Sequence[str]) -> None:
        """Have a fleet of so many, and no other."""
        await asyncio.gather(*(lender.stop() for lender in self.lenders))
        keys = [
            Signer(seed_from_entropy((n + 1000).to_bytes(32, "big"))).public_key
            for n in range(count)
        ]
        made = [SimLender(key, classes, self._on_done) for key in keys]
        self.lenders = []
        for some in range(0, count, 50):
            self.lenders += await asyncio.gather(
                *(one.start(self.server.url) for one in made[some : some + 50])
            )

    async def submit(self, count: int, submitters: int) -> None:
        """Publish so many jobs, in turns of their submitters."""
        publisher = Publisher(self._connection)
        waiting: list[asyncio.Future[int]] = []
        for _ in range(count):
            if len(waiting) == AT_A_TIME:
                await asyncio.gather(*waiting)
                waiting.clear()
            signer = self.signers[self._sent % submitters]
            job = f"job-{self._sent:08d}"
            self._sent += 1
            payload = json.dumps(spec_fields(job, signer)).encode()
            headers = {CONTENT_TYPE_HEADER: JSON, SIGNATURE_HEADER: signer.sign(payload)}
            subject = subjects.submit(signer.public_key, job)
            waiting.append(await publisher.publish(subject, payload, headers))
        await asyncio.gather(*waiting)
        publisher.close()

    async def taken_in(self, submitters: int) -> None:
        """Wait until the broker knows the last job of each."""
        async with asyncio.timeout(WITHIN_S):
            for number in range(self._sent - submitters, self._sent):
                while not await self._knows(  # noqa: ASYNC110 - only a question tells
                    self.signers[number % submitters], number
                ):
                    await asyncio.sleep(0.25)

    async def _knows(self, signer: Signer, number: int) -> bool:
        query = json.dumps({"v": 1, "job": f"job-{number:08d}"}).encode()
        subject, headers = subjects.query(signer.public_key), {CONTENT_TYPE_HEADER: JSON}
        try:
            reply = await self._connection.request(subject, query, headers, timeout_s=60)
        except LinkError:  # it reads, and answers later
            return False
        return bool(json.loads(reply.data)["jobs"])

    async def until_committed(self, total: int) -> None:
        """Wait until so many tasks were committed in all."""
        async with asyncio.timeout(WITHIN_S):
            while self.committed < total:
                self._progress.clear()
                await self._progress.wait()

    def _on_done(self, tasks: int) -> None:
        self.committed += tasks
        self._progress.set()


class Found:
    """What was found, by measure and unit; both curves by n."""

    def __init__(self) -> None:
        self.on = rows.machine()
        self.curves: dict[str, dict[str, dict[int, list[float]]]] = {"fleet": {}, "queue": {}}
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, curve: str, line: str, n: int, unit: str, value: float) -> None:
        """Take a value, print it, and write all there are."""
        along = "lenders" if curve == "fleet" else "jobs wait"
        measure = f"{line}, {n:,} {along}"
        self._values[measure, unit].append(value)
        self.curves[curve].setdefault(line, {}).setdefault(n, []).append(value)
        print(f"{measure:<64} {value:10.1f} {unit}", flush=True)
        rows.write("scale", self.rows(), on=self.on)

    def rows(self) -> list[rows.Row]:
        """For the joint table."""
        return [
            rows.Row("lender", measure, unit, tuple(values))
            for (measure, unit), values in self._values.items()
        ]

    def draw(self, path: Path) -> None:
        """Draw the processor time of a job, by n."""
        panels = []
        for curve, title in (("fleet", "lenders"), ("queue", "waiting jobs")):
            lines = [
                Line(
                    name.removeprefix("a job ").removeprefix("is "),
                    [(n, median(values)) for n, values in points.items()],
                )
                for name, points in self.curves[curve].items()
                if name.startswith("a job")
            ]
            panels.append(Panel(f"processor time of a job, µs, by {title}", lines))
        write_svg(path, panels)


async def by_fleet(folder: Path, fleets: Sequence[int], found: Found) -> None:
    """Each fleet on a fresh server."""
    for lenders in fleets:
        async with Stand(folder / f"fleet-{lenders}") as stand:
            await stand.lend(lenders, stand.classes(1))
            await stand.submit(2 * lenders, 1)  # all are awake then
            await stand.until_committed(2 * lenders)
            await asyncio.sleep(2.0)
            begun = stand.spent()
            await asyncio.sleep(IDLE_S)
            idle = stand.spent() - begun
            begun, told = stand.spent(), [stand.offers()]
            await stand.submit(FLEET_JOBS, 1)
            await stand.until_committed(2 * lenders + FLEET_JOBS)
            busy, told = stand.spent() - begun, [*told, stand.offers()]
            await asyncio.sleep(SETTLE_S)
            await _one_by_one(stand, SINGLE_JOBS // 4)
            told.append(stand.offers())
            begun = stand.spent()
            await _one_by_one(stand, SINGLE_JOBS)
            single = stand.spent() - begun
            many, _, alone = (after - before for before, after in pairwise([*told, stand.offers()]))
            found.add("fleet", "offers, a job of many", lenders, "1/job", many / FLEET_JOBS)
            found.add("fleet", "offers, a job alone", lenders, "1/job", alone / SINGLE_JOBS)
            for name in ("broker", "server"):
                idle_s = getattr(idle, name)
                for line, spent, jobs in (
                    ("a job of many", busy, FLEET_JOBS),
                    ("a job alone", single, SINGLE_JOBS),
                ):
                    job_s = (getattr(spent, name) - idle_s * spent.at / idle.at) / jobs
                    found.add("fleet", f"{line}, {name}", lenders, "CPU µs", 1e6 * job_s)
                second_s = idle_s / idle.at / lenders
                found.add("fleet", f"an idle lender, {name}", lenders, "CPU µs/s", 1e6 * second_s)
            found.add("fleet", "jobs", lenders, "1/s", FLEET_JOBS / busy.at)
            found.add("fleet", "leases told to stop", lenders, "leases", stand.cancelled())
        async with Floor(folder / f"floor-{lenders}", lenders) as floor:
            await floor.one_by_one(FLOOR_JOBS // 10)
            line, server_s = "a message alone, raw JetStream", await floor.one_by_one(FLOOR_JOBS)
            found.add("fleet", line, lenders, "CPU µs", 1e6 * server_s / FLOOR_JOBS)


async def _one_by_one(stand: Stand, jobs: int) -> None:
    for _ in range(jobs):
        before = stand.committed
        await stand.submit(1, 1)
        await stand.until_committed(before + 1)


async def by_queue(folder: Path, queues: Sequence[int], found: Found) -> None:
    """One queue, longer and longer."""
    async with Stand(folder / "queue") as stand:
        waiting = 0
        for jobs in queues:
            begun = stand.spent()
            await stand.submit(jobs - waiting, SUBMITTERS)
            await stand.taken_in(SUBMITTERS)
            taking = stand.spent() - begun
            # Enough of them that one search of Python's for garbage does not count for all.
            before, some = stand.committed, min(QUEUE_JOBS, jobs // 2)
            await stand.lend(QUEUE_LENDERS, stand.classes(SUBMITTERS))
            await stand.until_committed(before + some // 10)
            begun, ran = stand.spent(), stand.committed
            await stand.until_committed(before + some)
            running, ran = stand.spent() - begun, stand.committed - ran
            await stand.lend(0, [])
            for name in ("broker", "server"):
                taken_s, run_s = getattr(taking, name), getattr(running, name)
                taken_s /= jobs - waiting
                found.add("queue", f"a job is taken in, {name}", jobs, "CPU µs", 1e6 * taken_s)
                run_s /= ran
                found.add("queue", f"a job is run, {name}", jobs, "CPU µs", 1e6 * run_s)
            broker_mib, server_mib = stand.resident_mib()
            found.add("queue", "memory, broker", jobs, "MiB", broker_mib)
            found.add("queue", "memory, server", jobs, "MiB", server_mib)
            waiting = jobs


async def measure(folder: Path, asked: argparse.Namespace, found: Found) -> None:
    for run in range(asked.runs):
        await by_fleet(folder / str(run), asked.fleet, found)
        queues = [n for n in asked.queue if not run or n <= AGAIN_MAX]
        await by_queue(folder / str(run), queues, found)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> None:
    """Print every figure as it is found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="100 lenders and 10,000 jobs at most")
    parser.add_argument("--fleet", type=_numbers, default=list(FLEETS))
    parser.add_argument("--queue", type=_numbers, default=list(QUEUES))
    asked = parser.parse_args()
    if asked.quick:
        asked.fleet = [n for n in asked.fleet if n <= 100]
        asked.queue = [n for n in asked.queue if n <= 10_000]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, most), most))
    folder, found = Path(tempfile.mkdtemp(prefix="lender-scale-")), Found()
    print(f"load {os.getloadavg()[0]:.2f}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for run in range(asked.runs):
            (folder / str(run)).mkdir()
        uvloop.run(measure(folder, asked, found))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if any(found.curves.values()):
            found.draw(rows.FOLDER / "scale.svg")


if __name__ == "__main__":
    main()
