"""Each submitter that is allowed finds a bucket; who is not is told what to ask for."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from broker_parts import ALICE, MALLORY, BrokerProcess, connect, until
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError
from nats_server import until as until_true

from lender.client import Client, NotAdmitted
from lender.client.errors import ContentFault
from lender.client.keys import create_key
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.link.errors import NoRespondersError
from lender.protocol import subjects
from lender.protocol.bounds import PIECE_BYTES
from lender.protocol.streams import bucket, bucket_config, left

MIB = 1 << 20


async def config_of(url: str, stream: str) -> StreamConfig | None:
    """None: there is none such."""
    nc = await connect(url)
    try:
        return (await nc.jetstream().stream_info(stream)).config
    except NotFoundError:
        return None
    finally:
        await nc.close()


async def bytes_max(url: str, submitter: str) -> int | None:
    """The bound of what a submitter stores, and of what lenders leave; None: it has no buckets.

    0: they are about to change, one after the other.
    """
    found = [await config_of(url, stream) for stream in (bucket(submitter), left(submitter))]
    own, theirs = (None if config is None else config.max_bytes for config in found)
    return own if own == theirs else 0


async def becomes(asked: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(40):
        while await asked() != wanted:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)


async def test_who_is_allowed_has_a_bucket_bounded_as_the_operator_says(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    broker.allow("alice", ALICE.public_key)
    try:
        await broker.start()
        assert await bytes_max(nats.url, ALICE.public_key) == -1, "before it says that it serves"
        assert await bytes_max(nats.url, MALLORY.public_key) is None
        broker.run("allow", "mallory", MALLORY.public_key, "--stored", str(5 * MIB))
        broker.run("allow", "default", "--stored", str(3 * MIB))

        async def bounds() -> tuple[int | None, int | None]:
            return (
                await bytes_max(nats.url, ALICE.public_key),
                await bytes_max(nats.url, MALLORY.public_key),
            )

        await becomes(bounds, (3 * MIB, 5 * MIB))
        broker.run("forbid", "mallory")
        await asyncio.sleep(1.5)
        assert await bounds() == (3 * MIB, 5 * MIB), "what is there is read yet"
    finally:
        broker.kill()


async def test_a_bucket_that_went_with_its_server_is_made_again(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    broker = BrokerProcess(tmp_path / "broker", server.url)
    broker.allow("alice", ALICE.public_key)
    try:
        await broker.start()
        server.kill()
        for folder in (tmp_path / "nats").rglob(bucket(ALICE.public_key)):
            shutil.rmtree(folder)
        await server.start()
        await becomes(partial(bytes_max, server.url, ALICE.public_key), -1)
    finally:
        broker.kill()
        server.kill()


async def test_a_bucket_that_the_server_has_no_room_for_is_told_and_stops_nobody_else(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    broker.run("allow", "alice", ALICE.public_key, "--stored", str(1 << 52))
    broker.allow("mallory", MALLORY.public_key)
    try:
        await broker.start()
        await until(lambda: f"{ALICE.public_key} has no bucket" in broker.log(), "the word")
        assert await bytes_max(nats.url, MALLORY.public_key) == -1
        broker.run("allow", "alice", "--stored", str(MIB))
        await becomes(partial(bytes_max, nats.url, ALICE.public_key), MIB)
    finally:
        broker.kill()


async def test_room_that_can_be_set_aside_only_once_bounds_what_lenders_leave_all_the_same(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    """As after an upgrade: an earlier version had one bound for both."""
    # The server has three quarters of what is free.
    most = shutil.disk_usage(tmp_path).free // 2
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    broker.run("allow", "alice", ALICE.public_key, "--stored", str(most))
    try:
        await broker.start()
        own, theirs = [
            await config_of(nats.url, stream(ALICE.public_key)) for stream in (bucket, left)
        ]
        assert own is not None
        assert theirs is not None
        assert (own.max_bytes, theirs.max_bytes) == (most, -1)
        assert 0 < (theirs.max_msgs or 0) <= most // PIECE_BYTES
        assert "sets no" in broker.log()
    finally:
        broker.kill()


async def test_the_bucket_of_an_earlier_version_becomes_two_when_a_broker_starts(
    nats: EmbeddedServer, connection: Connection, tmp_path: Path
) -> None:
    """What lenders had left in it stays, and they add no more to it."""
    me = ALICE.public_key
    one_for_all = {**bucket_config(me), "subjects": [subjects.of_bucket(me)]}
    await JetStream(connection).ensure_stream(one_for_all)
    place = subjects.former_blob(me, MALLORY.public_key, "ab" * 32, 0)
    await connection.request(place, b"left")
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    broker.allow("alice", me)
    try:
        await broker.start()
        assert await bytes_max(nats.url, me) == -1
        found = await JetStream(connection).get_last(bucket(me), place)
        assert found is not None
        assert found.payload == b"left"
        with pytest.raises(NoRespondersError):
            await connection.request(place, b"more")
    finally:
        broker.kill()


async def test_who_comes_before_its_bucket_waits_for_it_or_is_told_what_to_do(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    key = tmp_path / "submitter.nk"
    alice = create_key(key, bytes(range(32)))
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    try:
        await broker.start()
        async with Client(nats.url, key, timeout_s=4) as client:
            with pytest.raises(NotAdmitted, match="lender-broker allow NAME"):
                await client.submit(["x"], inputs={"in": b"content"})
        async with Client(nats.url, key) as client:
            submitting = asyncio.create_task(client.submit(["x"], inputs={"in": b"content"}))
            await asyncio.sleep(0.5)
            assert not submitting.done()
            broker.allow("alice", alice.public_key)
            assert (await submitting).spec.inputs[0].by is None
            broker.run("allow", "alice", "--stored", str(MIB))
            await becomes(partial(bytes_max, nats.url, alice.public_key), MIB)
            with pytest.raises(ContentFault, match="is full"):
                await client.submit(["x"], inputs={"in": bytes(3 * PIECE_BYTES)})
    finally:
        broker.kill()


async def test_what_an_earlier_version_left_is_told_of(
    nats: EmbeddedServer, connection: Connection, tmp_path: Path
) -> None:
    store = await connection.nc.jetstream().create_object_store("blobs")
    await store.put("ab" * 32, b"content")
    assert (await JetStream(connection).stream_state("OBJ_blobs")).messages == 2
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    try:
        await broker.start()
        assert "OBJ_blobs" in broker.log()
        assert "nobody reads them" in broker.log()
    finally:
        broker.kill()
    await until_true(lambda: not broker.alive)
