"""Blobs: verified, deduplicated, readable by any NATS client, never half there."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats_server import until

from lender.link import blobs as blobs_module
from lender.link import objects
from lender.link.api import JetStream, Page
from lender.link.blobs import CHUNK_BYTES, Blobs
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.link.errors import LinkError, NotConnectedError, OutcomeUnknownError
from lender.link.objects import BlobCorruptError, BlobMissingError, BlobTooLargeError

NO_LIMIT = 1 << 40


@pytest.fixture
async def js(connection: Connection) -> JetStream:
    js = JetStream(connection)
    await js.ensure_stream(
        {
            "name": "OBJ_blobs",
            "subjects": ["$O.blobs.C.>", "$O.blobs.M.>"],
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        }
    )
    return js


@pytest.fixture
async def blobs(connection: Connection, js: JetStream) -> AsyncIterator[Blobs]:
    assert js
    opened = Blobs(connection)
    yield opened
    opened.close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def count(js: JetStream) -> int:
    return (await js.stream_state("OBJ_blobs")).messages


async def object_store(connection: Connection) -> Any:  # noqa: ANN401 - nats-py leaves it untyped
    return await connection.nc.jetstream().object_store("blobs")


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 20 * CHUNK_BYTES + 7])
async def test_content_comes_back_whole(blobs: Blobs, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    assert await blobs.put_file(source) == (sha256(content), size)
    assert await blobs.exists(sha256(content))
    target.write_bytes(b"old")
    assert await blobs.get_to(sha256(content), target, size) == size
    assert target.read_bytes() == content
    assert await blobs.get_bytes(sha256(content), size) == content
    assert names(tmp_path) == {"nats", "source", "target"}


async def test_the_same_content_is_stored_once(blobs: Blobs, js: JetStream, tmp_path: Path) -> None:
    content = os.urandom(3 * CHUNK_BYTES)
    (tmp_path / "a").write_bytes(content)
    await blobs.put_bytes(content)
    stored = await count(js)
    assert await blobs.put_file(tmp_path / "a") == (sha256(content), len(content))
    assert await count(js) == stored == 4


async def test_puts_of_the_same_content_at_once_leave_one_copy(blobs: Blobs, js: JetStream) -> None:
    content = os.urandom(3 * CHUNK_BYTES)
    await asyncio.gather(*(blobs.put_bytes(content) for _ in range(5)))
    assert await count(js) == 4
    assert await blobs.get_bytes(sha256(content), NO_LIMIT) == content


@pytest.mark.parametrize("size", [0, 1000, 3 * CHUNK_BYTES + 1])
async def test_nats_py_reads_ours_and_we_read_its(
    blobs: Blobs, connection: Connection, js: JetStream, size: int
) -> None:
    store = await object_store(connection)
    ours, theirs = os.urandom(size), os.urandom(size + 1)
    await blobs.put_bytes(ours)
    result = await store.get(sha256(ours))
    assert (result.data, result.info.size) == (ours, size)
    await store.put(sha256(theirs), theirs)
    assert await blobs.exists(sha256(theirs))
    assert await blobs.get_bytes(sha256(theirs), NO_LIMIT) == theirs
    before = await count(js)
    await blobs.put_bytes(theirs)
    assert await count(js) == before
    assert {info.name for info in await store.list()} == {sha256(ours), sha256(theirs)}


async def test_a_deleted_blob_is_missing_and_can_be_put_again(
    blobs: Blobs, connection: Connection
) -> None:
    content = os.urandom(1000)
    with pytest.raises(BlobMissingError, match="does not hold"):
        await blobs.get_bytes(sha256(content), NO_LIMIT)
    await blobs.put_bytes(content)
    await (await object_store(connection)).delete(sha256(content))
    assert not await blobs.exists(sha256(content))
    with pytest.raises(BlobMissingError):
        await blobs.get_bytes(sha256(content), NO_LIMIT)
    await blobs.put_bytes(content)
    assert await blobs.get_bytes(sha256(content), NO_LIMIT) == content


async def test_too_large_is_refused_before_anything_is_read(
    blobs: Blobs, connection: Connection, tmp_path: Path
) -> None:
    content = os.urandom(1000)
    await blobs.put_bytes(content)
    received = connection.nc.stats["in_bytes"]
    with pytest.raises(BlobTooLargeError, match="1000 bytes, 999 allowed"):
        await blobs.get_to(sha256(content), tmp_path / "x", 999)
    assert connection.nc.stats["in_bytes"] - received < 1000
    assert names(tmp_path) == {"nats"}


def lie(content: bytes, **changes: object) -> bytes:
    fields = json.loads(objects.meta(sha256(content), "nuid1", len(content), 1, CHUNK_BYTES))
    return json.dumps(fields | changes).encode()


LIES = {
    "no json": b"{",
    "no object": b"[1]",
    "no text": b"\xff",
    "no fields": b"{}",
    "the digest of something else": lie(b"truth", digest="SHA-256=" + "A" * 43 + "="),
    "a digest of another type": lie(b"truth", digest=7),
    "a size too small": lie(b"truth", size=4),
    "a size too large": lie(b"truth", size=6),
    "a negative size": lie(b"truth", size=-1),
    "a size that is no number": lie(b"truth", size=True),
    "everybody's chunks": lie(b"truth", nuid=">"),
    "chunks that are not there": lie(b"truth", nuid="nuid2"),
    "other chunks of the same size": lie(b"truth", nuid="nuid3"),
}


@pytest.mark.parametrize("meta", LIES.values(), ids=LIES.keys())
async def test_whatever_lies_in_the_store_only_the_true_content_is_handed_out(
    blobs: Blobs, connection: Connection, tmp_path: Path, meta: bytes
) -> None:
    await connection.request("$O.blobs.C.nuid1", b"truth")
    await connection.request("$O.blobs.C.nuid3", b"false")
    await connection.request(objects.meta_subject(sha256(b"truth")), meta)
    target = tmp_path / "target"
    with pytest.raises(BlobCorruptError):
        await blobs.get_to(sha256(b"truth"), target, NO_LIMIT)
    with pytest.raises(BlobCorruptError):
        await blobs.get_bytes(sha256(b"truth"), NO_LIMIT)
    assert names(tmp_path) == {"nats"}


async def test_putting_mends_unreadable_metadata(blobs: Blobs, connection: Connection) -> None:
    await connection.request(objects.meta_subject(sha256(b"truth")), b"{")
    await blobs.put_bytes(b"truth")
    assert await blobs.get_bytes(sha256(b"truth"), NO_LIMIT) == b"truth"


async def test_a_blob_that_is_replaced_while_it_is_read_is_read_anew(
    blobs: Blobs, connection: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = os.urandom(20 * CHUNK_BYTES)
    await blobs.put_bytes(content)
    store = await object_store(connection)
    get_page = blobs._js.get_page
    calls = 0

    async def replace_before_second_page(*args: Any, **options: Any) -> Page:  # noqa: ANN401
        nonlocal calls
        calls += 1
        if calls == 2:
            await store.put(sha256(content), content)
        return await get_page(*args, **options)

    monkeypatch.setattr(blobs._js, "get_page", replace_before_second_page)
    assert await blobs.get_to(sha256(content), tmp_path / "t", NO_LIMIT) == len(content)
    assert (tmp_path / "t").read_bytes() == content
    assert calls == 2 + 3


async def test_a_file_that_changes_under_our_hands_is_not_stored(
    blobs: Blobs, js: JetStream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"before")
    digest = blobs_module._digest

    def digest_and_change(source: Any) -> tuple[str, int]:  # noqa: ANN401
        result = digest(source)
        path.write_bytes(b"afterw")
        return result

    monkeypatch.setattr(blobs_module, "_digest", digest_and_change)
    with pytest.raises(BlobCorruptError, match="changed while it was read"):
        await blobs.put_file(path)
    assert await count(js) == 0


async def test_a_crash_of_the_server_during_a_put_leaves_nothing_that_looks_whole(
    nats: EmbeddedServer, blobs: Blobs, connection: Connection
) -> None:
    content = os.urandom(60 * CHUNK_BYTES)
    putting = asyncio.create_task(blobs.put_bytes(content))
    await until(lambda: len(blobs._publisher._in_flight) > 10)
    nats.kill()
    with pytest.raises((OutcomeUnknownError, NotConnectedError)):
        await putting
    await nats.start()
    await until(lambda: connection.connected)
    assert not await blobs.exists(sha256(content))
    await blobs.put_bytes(content)
    assert await blobs.get_bytes(sha256(content), NO_LIMIT) == content


async def test_a_crash_of_the_server_during_a_get_leaves_no_partial_file(
    nats: EmbeddedServer, blobs: Blobs, connection: Connection, tmp_path: Path
) -> None:
    content = os.urandom(60 * CHUNK_BYTES)
    await blobs.put_bytes(content)
    folder = tmp_path / "cache"
    folder.mkdir()
    getting = asyncio.create_task(blobs.get_to(sha256(content), folder / "x", NO_LIMIT))
    await until(lambda: names(folder))
    nats.kill()
    with pytest.raises(LinkError):
        await getting
    assert not names(folder)
    await nats.start()
    await until(lambda: connection.connected)
    assert await blobs.get_to(sha256(content), folder / "x", NO_LIMIT) == len(content)
    assert names(folder) == {"x"}


async def test_a_get_that_is_given_up_leaves_no_partial_file(blobs: Blobs, tmp_path: Path) -> None:
    content = os.urandom(60 * CHUNK_BYTES)
    await blobs.put_bytes(content)
    folder = tmp_path / "cache"
    folder.mkdir()
    getting = asyncio.create_task(blobs.get_to(sha256(content), folder / "x", NO_LIMIT))
    await until(lambda: names(folder))
    getting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await getting
    assert not names(folder)
    with pytest.raises(FileNotFoundError):
        await blobs.get_to(sha256(content), tmp_path / "absent" / "x", NO_LIMIT)
    with pytest.raises(FileNotFoundError):
        await blobs.put_file(tmp_path / "absent")
