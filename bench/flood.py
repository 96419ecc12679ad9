"""What a flood of single jobs does to another submitter, and to the broker's memory.

Real processes: nats-server, `lender-broker`, and here a submitter that floods, one that has a job
run now and then, and a lender that runs for the latter alone. What the flood gets accepted stays
queued, so that memory shows what live jobs take.

    python bench/flood.py [--jobs 200000]

Writes build/bench-flood.json.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from broker_parts import (
    ALICE,
    LENDERS,
    MALLORY,
    BrokerProcess,
    FakeLender,
    Submitter,
    class_token,
    connect,
    spec_fields,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from broker.core.intake.quotas import DEFAULT
from lender.link import connection as link
from lender.link.api import JetStream
from lender.link.embedded import EmbeddedServer
from lender.link.publisher import Publisher
from lender.protocol import streams, subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, JSON
from lender.protocol.signature import SIGNATURE_HEADER

CALM_JOBS = 20
WITHIN_S = 600.0
OUT = Path(__file__).resolve().parents[1] / "build"


class Bench:
    """What is measured, and on whom."""

    def __init__(self, server: EmbeddedServer, broker: BrokerProcess) -> None:
        assert server.pid is not None
        assert broker.process is not None
        self.server = psutil.Process(server.pid)
        self.broker = psutil.Process(broker.process.pid)
        self.took_s: list[float] = []
        self.rss_max = 0

    async def one_after_another(self, submitter: Submitter, name: str, count: int) -> None:
        """Have small jobs run, one at a time."""
        for number in range(count):
            job = f"{name}-{number:06d}"
            begun = time.monotonic()
            await submitter.submit(spec_fields(job))
            await submitter.terminal(job, WITHIN_S)
            self.took_s.append(time.monotonic() - begun)

    async def watch(self) -> None:
        """Look at the broker's memory for ever."""
        while True:
            self.rss_max = max(self.rss_max, self.broker.memory_info().rss)
            await asyncio.sleep(0.25)

    def take(self) -> dict[str, float]:
        """Return what the jobs since the last call took."""
        took_s, self.took_s = self.took_s, []
        return {
            "jobs": len(took_s),
            "median_s": round(statistics.median(took_s), 4),
            "most_s": round(max(took_s), 4),
        }


async def flood(url: str, messages: list[tuple[str, bytes, dict[str, str]]]) -> float:
    """Publish all; returns the seconds."""
    async with await link.connect(url, name="flood", timeout_s=30) as connection:
        publisher, begun = Publisher(connection), time.monotonic()
        waiting = [await publisher.publish(*message) for message in messages]
        await asyncio.gather(*waiting)
        publisher.close()
        return time.monotonic() - begun


def flood_of(count: int) -> list[tuple[str, bytes, dict[str, str]]]:
    """Return so many signed submissions."""
    messages = []
    for number in range(count):
        job = f"flood-{number:08d}"
        payload = json.dumps(spec_fields(job, MALLORY)).encode()
        headers = {CONTENT_TYPE_HEADER: JSON, SIGNATURE_HEADER: MALLORY.sign(payload)}
        messages.append((subjects.submit(MALLORY.public_key, job), payload, dict(headers)))
    return messages


async def measure(server: EmbeddedServer, broker: BrokerProcess, count: int) -> dict[str, object]:
    """Return the row."""
    nc = await connect(server.url)
    bench, alice = Bench(server, broker), Submitter(nc)
    messages = flood_of(count)
    async with (
        await link.connect(server.url, name="bench", timeout_s=30) as connection,
        FakeLender(nc, LENDERS[0], [class_token(spec_fields("job-0001"))]),
    ):
        jetstream = JetStream(connection)
        await bench.one_after_another(alice, "calm", CALM_JOBS)
        calm, rss = bench.take(), bench.broker.memory_info().rss
        watching = asyncio.create_task(bench.watch())
        begun = time.monotonic()
        flooding = asyncio.create_task(flood(server.url, messages))
        rejected, number = max(0, count - DEFAULT.jobs_max), 0
        while True:
            await bench.one_after_another(alice, f"in-{number:06d}", 1)
            number += 1
            state = await jetstream.stream_state(streams.RESULTS)
            if flooding.done() and state.messages >= rejected + CALM_JOBS + number + 1:
                known = await alice.nc.request(
                    f"query.{MALLORY.public_key}",
                    b'{"v":1,"job":"flood-%08d"}' % (count - 1),
                    headers={"Content-Type": "application/json"},
                    timeout=60,
                )
                if json.loads(known.data)["jobs"]:
                    break
        taken_in_s = time.monotonic() - begun
        during = bench.take()
        watching.cancel()
        row = {
            "jobs": count,
            "rejected": rejected,
            "published_s": round(await flooding, 1),
            "taken_in_s": round(taken_in_s, 1),
            "calm": calm,
            "during": during,
            "broker_rss_before_mib": rss >> 20,
            "broker_rss_most_mib": bench.rss_max >> 20,
            "server_rss_mib": bench.server.memory_info().rss >> 20,
            "load": os.getloadavg()[0],
        }
    await nc.close()
    return row


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lender-flood-") as folder:
        server = EmbeddedServer(Path(folder) / "nats")
        await server.start()
        broker = BrokerProcess(Path(folder) / "broker", server.url)
        try:
            for name, signer in (("alice", ALICE), ("mallory", MALLORY)):
                broker.allow(name, signer.public_key)
            await broker.start()
            row = await measure(server, broker, asked.jobs)
        finally:
            broker.kill()
            server.kill()
    print(json.dumps(row, indent=2))
    OUT.mkdir(exist_ok=True)
    (OUT / "bench-flood.json").write_text(json.dumps(row) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
