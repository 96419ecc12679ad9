"""A log that was cut, removed, or put back as it once was shows against its published head."""

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats_server import until

from lender.cli import receipt_proof
from lender.cli.owner import Told
from lender.daemon import receipt_head
from lender.daemon.receipt_head import HeadPublisher
from lender.daemon.receipt_writer import ReceiptWriter
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.protocol.signature import Signer, seed_from_entropy
from lender.protocol.streams import HEADS, stream_configs
from lender.state.folder import StateFolder
from lender.state.receipts import ReceiptLog

SEED = seed_from_entropy(b"o" * 32)
SIGNER = Signer(SEED)


class Lenderd:
    """The part of lenderd that keeps receipts."""

    def __init__(self, state: StateFolder, connection: Connection) -> None:
        self._connection = connection
        self.receipts = ReceiptLog(state.receipts, SIGNER)
        self.writer = ReceiptWriter(self.receipts)
        self.publisher = HeadPublisher(self.receipts, self.writer, SIGNER, time.time, 0.02)
        self.running = asyncio.create_task(self.publisher.run(connection))

    async def ran(self, *jobs: str) -> None:
        """Receipts of these jobs are written, and the head is published."""
        for job in jobs:
            self.writer.append({"lease": f"L-{job}", "job": job})
        await self.writer.flush()
        await until(lambda: self.publisher.published)

    async def stop(self) -> None:
        await self.writer.close()
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running
        await self.publisher.publish_now()


@pytest.fixture
async def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    folder.identity.write_bytes(SEED)
    return folder


@pytest.fixture
async def fleet(connection: Connection) -> Connection:
    """A connection to a server that a broker has prepared."""
    for config in stream_configs():
        await JetStream(connection).ensure_stream(config)
    return connection


@pytest.fixture
async def lenderd(state: StateFolder, fleet: Connection) -> AsyncIterator[Lenderd]:
    made = Lenderd(state, fleet)
    yield made
    await made.stop()


async def prove(
    state: StateFolder, lenderd: Lenderd, monkeypatch: pytest.MonkeyPatch
) -> receipt_proof.Proof:
    """`lender log verify`, with lenderd's answer put into its hand."""
    answer: dict[str, Any] = json.loads(json.dumps(await lenderd.publisher.answer()))
    monkeypatch.setattr(receipt_proof, "tell", lambda *_: Told("answered", {"ok": True, **answer}))
    return receipt_proof.prove(state, ReceiptLog(state.receipts))


async def test_the_head_is_published_and_agrees(
    state: StateFolder, lenderd: Lenderd, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await lenderd.publisher.answer())["reason"] == "none was published yet"
    await lenderd.ran("job-1", "job-2")
    proof = await prove(state, lenderd, monkeypatch)
    assert proof.findings == []
    assert proof.published["seq"] == 2
    assert any(line.startswith("✓ agrees with receipt 2") for line in receipt_proof.words(proof))


async def test_an_old_copy_put_back_with_its_head_shows(
    state: StateFolder,
    lenderd: Lenderd,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    await lenderd.ran("job-1")
    old = tmp_path / "old"
    old.mkdir()
    for path in (state.receipts, state.receipts.with_suffix(".head")):
        shutil.copy(path, old)
    await lenderd.ran("job-2", "job-3")
    await lenderd.stop()
    for copy in old.iterdir():
        shutil.copy(copy, state.path)
    proof = await prove(state, lenderd, monkeypatch)
    assert [(one.kind, one.text[:9]) for one in proof.findings] == [("published", "receipt 3")]

    # lenderd starts again on it, writes on and publishes, many times: it is not washed out.
    again = Lenderd(state, connection)
    for number in range(12):
        await again.ran(f"later-{number}")
    await again.stop()
    proof = await prove(state, again, monkeypatch)
    assert [(one.kind, one.text[:9]) for one in proof.findings] == [("published", "receipt 3")]
    assert "another one" in proof.findings[0].text


async def test_a_log_that_was_removed_shows(
    state: StateFolder, lenderd: Lenderd, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lenderd.ran("job-1")
    await lenderd.stop()
    for path in state.path.glob("receipts*"):
        path.unlink()
    assert ReceiptLog(state.receipts).verify() == []
    proof = await prove(state, lenderd, monkeypatch)
    assert [one.kind for one in proof.findings] == ["published"]


async def test_a_head_of_somebody_else_is_not_believed(
    state: StateFolder, lenderd: Lenderd, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lenderd.ran("job-1")
    stored = await JetStream(connection).get_last(HEADS, f"head.{SIGNER.public_key}")
    assert stored is not None
    forged = stored.payload.replace(b'"seq":1', b'"seq":0')
    await connection.request(stored.subject, forged, {"Lender-Signature": "A" * 86})
    proof = await prove(state, lenderd, monkeypatch)
    assert "not signed by it" in proof.findings[0].text


async def test_a_new_lenderd_publishes_nothing_that_is_published(
    state: StateFolder, lenderd: Lenderd, connection: Connection
) -> None:
    await lenderd.ran("job-1")
    await lenderd.stop()
    again = Lenderd(state, connection)
    await until(lambda: again.publisher.published and again.writer.head.seq == 1)
    await again.ran("job-2")
    await again.stop()
    assert (await JetStream(connection).stream_state(HEADS)).last_sequence == 2


async def test_the_last_head_is_published_at_the_end(
    state: StateFolder, fleet: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Lenderd(state, fleet)
    slow.publisher._interval_s = 3600
    await slow.ran("job-1")
    slow.writer.append({"lease": "L2", "job": "job-2"})
    await slow.stop()
    assert slow.publisher.published
    assert (await prove(state, slow, monkeypatch)).published["seq"] == 2


async def test_without_a_broker_it_is_said_and_made_up_for(
    state: StateFolder,
    connection: Connection,
    nats: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receipt_head, "_ANSWER_S", 0.2)
    lenderd = Lenderd(state, connection)
    lenderd.writer.append({"lease": "L1", "job": "job-1"})
    assert await lenderd.writer.durable("L1")
    proof = await prove(state, lenderd, monkeypatch)
    assert proof.findings == []
    assert "the broker does not tell" in proof.not_compared
    nats.kill()
    await until(lambda: not connection.connected)
    assert "not connected" in (await prove(state, lenderd, monkeypatch)).not_compared
    await nats.start()
    await until(lambda: connection.connected)
    for config in stream_configs():
        await JetStream(connection).ensure_stream(config)
    await until(lambda: lenderd.publisher.published)
    await lenderd.stop()
    assert (await prove(state, lenderd, monkeypatch)).published["seq"] == 1
