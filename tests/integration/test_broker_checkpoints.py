"""A checkpoint that a lender was answered for outlives the broker, on a real server."""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgpack
from broker_parts import (
    ALICE,
    LENDERS,
    BrokerProcess,
    FakeLender,
    Submitter,
    class_token,
    connect,
    spec_fields,
)
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from lender.link.embedded import EmbeddedServer

ARCHIVES = [{"sha256": f"{n:064x}", "size_bytes": n} for n in range(1, 4)]


async def pulled(lender: FakeLender, within_s: float = 20.0) -> dict[str, Any]:
    """Take the next lease out of the lender's one queue for good."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        await lender.offer()
        try:
            js = lender.nc.jetstream(timeout=2)
            queue = await js.pull_subscribe_bind(lender.classes[0], stream="WORK")
            (msg,) = await queue.fetch(1, timeout=1)
        except (NatsError, JetStreamError, TimeoutError):
            await asyncio.sleep(0.05)
            continue
        await msg.ack_sync()
        lease: dict[str, Any] = msgpack.unpackb(msg.data)
        return lease
    raise AssertionError(f"no lease came within {within_s} s")


async def report(nc: Client, lease: dict[str, Any], **fields: object) -> str:
    done = {"v": 1, **{name: lease[name] for name in ("lease", "job", "submitter")}, **fields}
    reply = await nc.request(f"done.{LENDERS[0]}", msgpack.packb(done), timeout=5)
    return str(msgpack.unpackb(reply.data)["verdict"])


async def test_a_task_goes_on_from_its_checkpoint_after_a_crash_of_the_broker(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    broker.allow("alice", ALICE.public_key)
    spec = spec_fields("job-0001", checkpoint=True)
    try:
        await broker.start()
        nc, alice = await connect(nats.url), Submitter(await connect(nats.url))
        lender = FakeLender(nc, LENDERS[0], [class_token(spec)])
        await alice.submit(spec)
        for attempt, archive in enumerate(ARCHIVES, 1):
            lender.slots = 2
            lease = await pulled(lender)
            known = [[0, ARCHIVES[attempt - 2]]] if attempt > 1 else []
            assert (lease["attempt"], lease["checkpoints"]) == (attempt, known)
            # Without room anywhere the task waits in the broker's memory alone.
            lender.slots = 0
            await lender.offer()
            left = [[0, archive]]
            verdict = await report(nc, lease, final=True, outcome="evicted", checkpoints=left)
            assert verdict == "committed"
            broker.kill()
            await broker.start()
        lender.slots = 2
        lease = await pulled(lender)
        assert lease["checkpoints"] == [[0, ARCHIVES[-1]]]
        result = {"task": 0, "state": "succeeded", "exit_code": 0, "value": b"41\n"}
        assert await report(nc, lease, final=True, results=[result]) == "committed"
        terminal = await alice.terminal("job-0001")
        assert (terminal["state"], terminal["attempt"]) == ("succeeded", 4)
        await nc.close()
        await alice.nc.close()
    finally:
        broker.kill()
