"""A real broker process, and submitters and lenders that know nothing but nats-py and the wire."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import msgpack
import nats as nats_py
import psutil
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from broker.service.submitters import SubmittersFile
from deploy.local.guard import Guard
from lender.protocol.classes import WorkClass
from lender.protocol.job import JobSpec
from lender.protocol.signature import Signer, seed_from_entropy

ALICE, MALLORY = (Signer(seed_from_entropy(bytes([n] * 32))) for n in (1, 9))
LENDERS = [Signer(seed_from_entropy(bytes([n] * 32))).public_key for n in range(10, 14)]


GUARD = Guard()
"""Ends what is left where the tests are killed."""


class BrokerProcess:
    """`lender-broker serve` in a process of its own."""

    def __init__(self, folder: Path, url: str, *arguments: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.ready_file = folder / "ready.json"
        self.arguments = ["serve", "--url", url, "--ready-file", str(self.ready_file), *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments, "--state", str(self.folder)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def allow(self, name: str, key: str) -> None:
        """What `run("allow", name, key)` does; a process for that costs more than most tests."""
        SubmittersFile(self.folder).allow(name, key)

    async def start(self) -> None:
        self.ready_file.unlink(missing_ok=True)
        self.spawn()
        await until(lambda: self.ready_file.exists() or not self.alive, "the broker's start")
        assert self.alive, self.log()

    def spawn(self) -> None:
        """Start it, and wait for nothing."""
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *self.arguments, "--state", str(self.folder)], stdout=log, stderr=log
            )
        GUARD.watch(self.process.pid)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def children(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children()

    @property
    def url(self) -> str:
        return str(json.loads(self.ready_file.read_text())["url"])

    def log(self) -> str:
        return (self.folder / "broker.log").read_text()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        await until(lambda: not self.alive, "the broker's end")
        return self.process.returncode


COMMAND = [
    sys.executable,
    "-c",
    "from broker.service.command import command; command()",
]


async def until(
    condition: Callable[[], Any], what: str, within_s: float = 20.0, pause_s: float = 0.01
) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {within_s} s"
        await asyncio.sleep(pause_s)


async def connect(url: str, seed: Path | None = None) -> Client:
    async def ignore(_: Exception) -> None:
        """Servers are killed in these tests."""

    return await nats_py.connect(
        url,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.05,
        error_cb=ignore,
        nkeys_seed=str(seed) if seed else None,
    )


def spec_fields(job: str, signer: Signer = ALICE, **changes: object) -> dict[str, Any]:
    return {
        "v": 1,
        "id": job,
        "submitter": signer.public_key,
        "workload": "command",
        "runtime": "process",
        "argv": ["true"],
        "created_at": time.time(),
        "not_after": time.time() + 3600,
        **changes,
    }


def class_token(fields: dict[str, Any]) -> str:
    return WorkClass.of(JobSpec.model_validate_json(json.dumps(fields))).token


class Submitter:
    """Submits and reads with plain nats-py."""

    def __init__(self, nc: Client, signer: Signer = ALICE) -> None:
        self.nc = nc
        self.js = nc.jetstream()
        self.signer = signer

    async def submit(self, fields: dict[str, Any], job: str | None = None) -> bytes:
        payload = json.dumps(fields).encode()
        await self.submit_raw(
            job or fields["id"],
            payload,
            {"Content-Type": "application/json", "Lender-Signature": self.signer.sign(payload)},
        )
        return payload

    async def submit_raw(self, job: str, payload: bytes, headers: dict[str, str]) -> None:
        subject = f"submit.{self.signer.public_key}.{job}"
        await self.js.publish(subject, payload, headers=headers)

    async def terminal(self, job: str, within_s: float = 30.0) -> dict[str, Any]:
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            record = await self.record(f"res.{self.signer.public_key}.{job}")
            if record is not None:
                return record
            await asyncio.sleep(0.02)
        raise AssertionError(f"{job} has no terminal record within {within_s} s")

    async def record(self, subject: str) -> dict[str, Any] | None:
        try:
            msg = await self.nc.request(f"$JS.API.DIRECT.GET.RESULTS.{subject}", timeout=2)
        except (NatsError, OSError):
            return None
        if (msg.headers or {}).get("Status"):
            return None
        return read(msg)

    async def all_results(self, job: str) -> list[dict[str, Any]]:
        """Read every chunk of an array, through a consumer of our own."""
        prefix = f"res.{self.signer.public_key}.{job}"
        subscription = await self.js.subscribe(f"{prefix}.*", ordered_consumer=True)
        results: list[dict[str, Any]] = []
        stored = (await self.js.stream_info("RESULTS", subjects_filter=f"{prefix}.*")).state
        for _ in range(len(stored.subjects or {})):
            chunk = read(await subscription.next_msg(timeout=5))
            results += chunk["results"]
        await subscription.unsubscribe()
        return results

    async def status(self, job: str, within_s: float = 10.0) -> dict[str, Any]:
        """Ask the broker, which may not have read the submission yet."""
        payload = json.dumps({"v": 1, "job": job}).encode()
        headers = {"Content-Type": "application/json"}
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            msg = await self.nc.request(
                f"query.{self.signer.public_key}", payload, headers=headers, timeout=5
            )
            jobs: list[dict[str, Any]] = json.loads(msg.data)["jobs"]
            if jobs:
                return jobs[0]
            await asyncio.sleep(0.02)
        raise AssertionError(f"{job} is not known within {within_s} s")


def read(msg: Msg) -> dict[str, Any]:
    as_json = (msg.headers or {}).get("Content-Type") == "application/json"
    fields: dict[str, Any] = json.loads(msg.data) if as_json else msgpack.unpackb(msg.data)
    return fields


class FakeLender:
    """Offers, pulls, and reports: `<task>` as the value of each task, after `task_s` each."""

    def __init__(
        self, nc: Client, lender: str, classes: list[str], *, slots: int = 2, task_s: float = 0.0
    ) -> None:
        self.nc = nc
        self.lender = lender
        self.classes = classes
        self.slots = slots
        self.task_s = task_s
        self.held: dict[str, dict[str, Any]] = {}
        self.ran: Counter[int] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.offered = 0
        """Leases in the last offer."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for subject in (f"ctl.{self.lender}", "ctl.all"):
            await self.nc.subscribe(subject, cb=self._on_control)
        self._spawn(self._heartbeat())
        for token in self.classes:
            self._spawn(self._pull(token))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.vanish()

    async def vanish(self) -> None:
        """Stop without a word."""
        tasks = tuple(self._tasks)
        left = set(tasks)
        while left:
            # asyncio.wait_for may swallow a cancellation that comes with its result: ask again.
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.2)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def offer(self) -> None:
        await self.nc.publish(
            f"offer.{self.lender}",
            msgpack.packb(
                {
                    "v": 1,
                    "lender": self.lender,
                    "name": "fake",
                    "phase": "lending",
                    "slots_total": self.slots,
                    "slots_free": self.slots - len(self.held),
                    "cpu_free": 1.0,
                    "memory_free_bytes": 1 << 30,
                    "arch": "x86_64",
                    "os": "linux",
                    "runtimes": ["process"],
                    "classes": self.classes,
                    "consent_digest": "",
                    "leases": list(self.held.values()),
                }
            ),
        )

        await self.nc.flush()
        self.offered = len(self.held)

    async def _on_control(self, msg: Msg) -> None:
        control = msgpack.unpackb(msg.data)
        if control["kind"] == "hello":
            await self.offer()
        for lease in control.get("leases", ()):
            self.held.pop(lease, None)

    async def _heartbeat(self) -> None:
        while True:
            with contextlib.suppress(NatsError):
                await self.offer()
            await asyncio.sleep(0.3)

    async def _pull(self, token: str) -> None:
        js = self.nc.jetstream(timeout=2)
        while True:
            try:
                queue = await js.pull_subscribe_bind(token, stream="WORK")
                while True:
                    await until(lambda: len(self.held) < self.slots, "a free slot", 3600, 0.002)
                    # What comes just after the time is up, the same queue has for the next fetch;
                    # without it the server would keep it for 30 s.
                    with contextlib.suppress(TimeoutError):
                        for msg in await queue.fetch(1, timeout=1):
                            self._take(msg)
            except (NatsError, JetStreamError, TimeoutError):
                await asyncio.sleep(0.05)

    def _take(self, msg: Msg) -> None:
        lease = msgpack.unpackb(msg.data)
        self.held[lease["lease"]] = {
            "lease": lease["lease"],
            "job": lease["job"],
            "submitter": lease["submitter"],
            "state": "running",
        }
        self._spawn(self._run(msg, lease))

    async def _run(self, msg: Msg, lease: dict[str, Any]) -> None:
        await self.offer()
        results = []
        for first, count in lease["ranges"]:
            for task in range(first, first + count):
                await asyncio.sleep(self.task_s)
                self.ran[task] += 1
                results.append(
                    {
                        "task": task,
                        "state": "succeeded",
                        "exit_code": 0,
                        "value": str(task).encode(),
                        "duration_s": self.task_s,
                    }
                )
        verdict = await self._report(
            {
                "v": 1,
                "lease": lease["lease"],
                "job": lease["job"],
                "submitter": lease["submitter"],
                "results": results,
                "final": True,
            }
        )
        self.verdicts[verdict] += 1
        self.held.pop(lease["lease"], None)
        with contextlib.suppress(NatsError):
            await msg.ack()

    async def _report(self, done: dict[str, Any]) -> str:
        while True:
            try:
                reply = await self.nc.request(f"done.{self.lender}", msgpack.packb(done), timeout=2)
            except (NatsError, OSError):
                await asyncio.sleep(0.1)
            else:
                return str(msgpack.unpackb(reply.data)["verdict"])

    def _spawn(self, work: Awaitable[None]) -> None:
        self._tasks.add(asyncio.ensure_future(work))
