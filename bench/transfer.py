"""What files cost on their way to and from a submitter's bucket, beside the same bytes bare.

Real processes: nats-server with file storage, `lender-broker`, and for each transfer a client of
its own, whose peak memory is told. In turns with it, as the floor: as many messages of the same
size, published and read with as many in flight, by the same connection, without digests or files.

    python bench/transfer.py [--mib 64] [--runs 5]

Writes build/bench-transfer.json.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from broker_parts import ALICE, BrokerProcess

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lender.link import connection as link
from lender.link.api import JetStream
from lender.link.blobs import Blobs
from lender.link.embedded import EmbeddedServer
from lender.link.publisher import Publisher
from lender.protocol import streams, subjects
from lender.protocol.bounds import PIECE_BYTES
from lender.protocol.job import BlobRef

IN_FLIGHT = 16
OUT = Path(__file__).resolve().parents[1] / "build"


async def put(url: str, path: Path) -> str:
    """Store a file; returns its name."""
    async with await link.connect(url, name="bench") as connection:
        blobs = Blobs(connection, ALICE.public_key, timeout_s=60)
        ref = await blobs.put_file(ALICE.public_key, path)
        blobs.close()
        return ref.model_dump_json()


async def get(url: str, path: Path, name: str) -> str:
    """Fetch it into another file."""
    async with await link.connect(url, name="bench") as connection:
        blobs = Blobs(connection, ALICE.public_key, timeout_s=60)
        await blobs.get_to(ALICE.public_key, BlobRef.model_validate_json(name), path)
        blobs.close()
    return name


async def put_bare(url: str, count: int, digest: str) -> str:
    """Publish as many pieces."""
    piece = os.urandom(PIECE_BYTES)
    async with await link.connect(url, name="bench") as connection:
        publisher = Publisher(connection, in_flight_max=IN_FLIGHT, timeout_s=60)
        waiting: deque[asyncio.Future[int]] = deque()
        for number in range(count):
            subject = subjects.blob(ALICE.public_key, ALICE.public_key, digest, number)
            waiting.append(await publisher.publish(subject, piece))
            while waiting and waiting[0].done():
                waiting.popleft().result()
        await asyncio.gather(*waiting)
        publisher.close()
    return ""


async def get_bare(url: str, count: int, digest: str) -> str:
    """Read them."""
    bucket = streams.bucket(ALICE.public_key)
    async with await link.connect(url, name="bench") as connection:
        jetstream = JetStream(connection, 60)

        async def read(numbers: deque[int]) -> None:
            while numbers:
                subject = subjects.blob(
                    ALICE.public_key, ALICE.public_key, digest, numbers.popleft()
                )
                found = await jetstream.get_last(bucket, subject)
                assert found is not None

        numbers = deque(range(count))
        await asyncio.gather(*(read(numbers) for _ in range(IN_FLIGHT // 2)))
    return ""


def one(what: str, *words: str) -> dict[str, object]:
    """Do it in a process of its own; returns its seconds and its peak memory."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", what, *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        await be_one(*asked.one)
        return
    with tempfile.TemporaryDirectory(prefix="lender-transfer-") as folder:
        server = EmbeddedServer(Path(folder) / "nats")
        await server.start()
        broker = BrokerProcess(Path(folder) / "broker", server.url)
        try:
            broker.allow("alice", ALICE.public_key)
            await broker.start()
            rows = [
                run_of(server.url, Path(folder), asked.mib, number) for number in range(asked.runs)
            ]
        finally:
            broker.kill()
            server.kill()
    report = {"mib": asked.mib, "load": os.getloadavg()[0], "runs": rows}
    for what in ("put", "put_bare", "get", "get_bare"):
        took_s = statistics.median(float(str(row[what]["took_s"])) for row in rows)
        peak = max(int(str(row[what]["peak_mib"])) for row in rows)
        print(f"{what:10} {asked.mib / took_s:8.0f} MiB/s   at most {peak} MiB of memory")
    OUT.mkdir(exist_ok=True)
    (OUT / "bench-transfer.json").write_text(json.dumps(report) + "\n")


def run_of(url: str, folder: Path, mib: int, number: int) -> dict[str, dict[str, object]]:
    """One turn of each."""
    source, target = folder / "source", folder / "target"
    with source.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))
    count, digest = mib * (1 << 20) // PIECE_BYTES, f"{number:064x}"
    stored = one("put", url, str(source))
    row = {
        "put": stored,
        "put_bare": one("put_bare", url, str(count), digest),
        "get": one("get", url, str(target), str(stored["said"])),
        "get_bare": one("get_bare", url, str(count), digest),
    }
    assert source.stat().st_size == target.stat().st_size
    target.unlink()
    return row


async def be_one(what: str, url: str, *words: str) -> None:
    """Do one of them here and tell of it."""
    begun = time.monotonic()
    match what:
        case "put":
            said = await put(url, Path(words[0]))
        case "get":
            said = await get(url, Path(words[0]), words[1])
        case "put_bare":
            said = await put_bare(url, int(words[0]), words[1])
        case _:
            said = await get_bare(url, int(words[0]), words[1])
    took_s = time.monotonic() - begun
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"took_s": took_s, "peak_mib": peak_mib, "said": said}))


if __name__ == "__main__":
    asyncio.run(main())
