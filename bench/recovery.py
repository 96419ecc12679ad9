"""How long a fleet is without a broker: kill -9 with many live jobs, until another serves.

Two cases, in turns: the same broker is started again, and one that stood by, and has read the
streams, takes over. From the kill to `ready`, which comes after the replay of every stream. Beside
them, in the same run, what it costs to read the stream JOBS alone. And the processor time of it all
in the broker, which other load on the machine changes less.

    python bench/recovery.py [--jobs 100000] [--runs 5]

Writes build/bench/recovery.json.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rows

from lender.link.connection import Connection, connect
from lender.link.embedded import EmbeddedServer
from lender.link.publisher import Publisher
from lender.link.reader import StreamReader
from lender.protocol import streams, subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, MSGPACK, encode
from lender.protocol.job import JobSpec
from lender.protocol.signature import SIGNATURE_HEADER, Signer, seed_from_entropy

WITHIN_S = 300.0
DAY_S = 86_400.0


class Broker:
    """`lender-broker serve` in a process of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.ready = folder / "ready.json"
        self._folder = folder
        self._url = url
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()

    def allow(self, key: str) -> None:
        """Let a submitter in."""
        subprocess.run([*self._command("allow"), "alice", key], check=True)

    def start(self) -> None:
        """Start it, and wait for nothing."""
        self.ready.unlink(missing_ok=True)
        argv = [*self._command("serve"), "--url", self._url, "--ready-file", str(self.ready)]
        with (self._folder / "broker.log").open("wb") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    @property
    def cpu_s(self) -> float:
        """Processor time that its process has had so far."""
        assert self._process is not None
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    async def until(self, sign: str) -> float:
        """Wait for its log to say so; returns when, by the monotonic clock."""
        end = time.monotonic() + WITHIN_S
        log = self._folder / "broker.log"
        while sign not in (log.read_text() if log.exists() else ""):
            if time.monotonic() > end:
                raise TimeoutError(f"{self._folder.name}: no {sign!r} within {WITHIN_S} s")
            await asyncio.sleep(0.01)
        return time.monotonic()

    async def until_ready(self) -> float:
        """Wait until it serves; returns when, by the monotonic clock."""
        end = time.monotonic() + WITHIN_S
        while not self.ready.exists():
            if time.monotonic() > end:
                raise TimeoutError(f"{self._folder.name} is not ready within {WITHIN_S} s")
            await asyncio.sleep(0.01)
        return time.monotonic()

    def _command(self, verb: str) -> list[str]:
        program = str(Path(sys.executable).parent / "lender-broker")
        return [program, verb, "--state", str(self._folder)]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lender-recovery-"))
    server, on = EmbeddedServer(folder / "nats"), rows.machine()
    brokers: list[Broker] = []
    try:
        await server.start()
        brokers += [Broker(folder / name, server.url) for name in ("one", "two")]
        took = await _measure(server.url, *brokers, asked.jobs, asked.runs)
    finally:
        for broker in brokers:
            broker.kill()
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    _report(took, asked.jobs, asked.runs, on)


async def _measure(
    url: str, one: Broker, two: Broker, jobs: int, runs: int
) -> dict[str, list[float]]:
    """Take turns; return the seconds of each case."""
    alice = Signer(seed_from_entropy(bytes(range(32))))
    one.allow(alice.public_key)
    two.allow(alice.public_key)
    one.start()
    await one.until_ready()
    cases = ("reading JOBS", "started again", "stood by")
    took: dict[str, list[float]] = {f"{case}{cpu}": [] for case in cases for cpu in ("", ", CPU")}
    async with await connect(url, name="bench", timeout_s=30) as connection:
        await _submit(connection, alice, jobs)
        for _ in range(runs):
            worked = time.process_time()
            took["reading JOBS"].append(await _read(connection))
            took["reading JOBS, CPU"].append(time.process_time() - worked)
            one.kill()
            killed = time.monotonic()
            one.start()
            took["started again"].append(await one.until_ready() - killed)
            took["started again, CPU"].append(one.cpu_s)
            two.start()
            await two.until("has read the streams")
            worked = two.cpu_s
            one.kill()
            killed = time.monotonic()
            took["stood by"].append(await two.until_ready() - killed)
            took["stood by, CPU"].append(two.cpu_s - worked)
            one.start()
            await asyncio.sleep(1.0)
            two.kill()
            await one.until_ready()
    return took


async def _submit(connection: Connection, signer: Signer, jobs: int) -> None:
    publisher, now = Publisher(connection), time.time()
    waiting: list[asyncio.Future[int]] = []
    for number in range(jobs):
        spec = JobSpec(
            v=1,
            id=f"job-{number:08d}",
            submitter=signer.public_key,
            workload="command",
            runtime="process",
            argv=("true",),
            created_at=now,
            not_after=now + DAY_S,
        )
        payload = encode(spec)
        headers = {CONTENT_TYPE_HEADER: MSGPACK, SIGNATURE_HEADER: signer.sign(payload)}
        subject = subjects.submit(signer.public_key, spec.id)
        waiting.append(await publisher.publish(subject, payload, headers))
    await asyncio.gather(*waiting)
    publisher.close()


async def _read(connection: Connection) -> float:
    started = time.monotonic()
    async with StreamReader(connection, streams.JOBS, []) as reader:
        async for batch in reader:
            if batch.caught_up:
                break
    return time.monotonic() - started


def _report(took: dict[str, list[float]], jobs: int, runs: int, on: Mapping[str, Any]) -> None:
    print(f"{jobs} live jobs, {runs} runs, load {os.getloadavg()[0]:.2f}; seconds")
    print(f"{'what':<20} {'median':>8} {'least':>8} {'most':>8} {'µs a job':>9}")
    found = {}
    for name, times in took.items():
        median = statistics.median(times)
        found[name] = round(median, 3)
        print(
            f"{name:<20} {median:>8.2f} {min(times):>8.2f} {max(times):>8.2f} "
            f"{1e6 * median / jobs:>9.1f}"
        )
    print(json.dumps(found))
    rows.write(
        "recovery",
        (
            rows.Row(
                "floor" if name.startswith("reading") else "lender",
                f"a broker is killed, {jobs:,} live jobs: {name}",
                "s",
                tuple(times),
            )
            for name, times in took.items()
        ),
        on=on,
    )


if __name__ == "__main__":
    asyncio.run(main())
