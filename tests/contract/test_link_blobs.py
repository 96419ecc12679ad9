"""Contents in buckets: verified, stored once, each in its author's area, never half there."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats_server import until

from lender.link import blobs as blobs_module
from lender.link.api import JetStream, answer
from lender.link.blobs import BlobCorruptError, BlobMissingError, Blobs, BucketFullError
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.link.errors import (
    JetStreamError,
    LinkError,
    NoRespondersError,
    NotConnectedError,
    OutcomeUnknownError,
)
from lender.protocol import streams, subjects
from lender.protocol.bounds import CONTENT_KEPT_S, PIECE_BYTES, QUEUE_S_MAX
from lender.protocol.job import BlobRef, week_of

ALICE, BOB, DESK, ATTIC = ("U" + letter * 55 for letter in "ABCD")
BUCKET = streams.bucket(ALICE)
LEFT = streams.left(ALICE)
NOW, DAY_S = 1_790_000_000.0, 86_400.0
WEEK = week_of(NOW)
"""In which they all store."""


@pytest.fixture(autouse=True)
def single_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one server does not have is missing; test_link_cluster.py has others."""
    monkeypatch.setattr(blobs_module, "LAG_PAUSES_S", (0.01,))


@pytest.fixture
async def js(connection: Connection) -> JetStream:
    js = JetStream(connection)
    for config in (streams.bucket_config(ALICE), streams.left_config(ALICE)):
        await js.ensure_stream(config)
    return js


@pytest.fixture
async def blobs(connection: Connection, js: JetStream) -> AsyncIterator[Blobs]:
    assert js
    opened = Blobs(connection, ALICE, now=lambda: NOW)
    yield opened
    opened.close()


@pytest.fixture
async def desk(connection: Connection, js: JetStream) -> AsyncIterator[Blobs]:
    """A lender's."""
    assert js
    opened = Blobs(connection, DESK, now=lambda: NOW)
    yield opened
    opened.close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def ref_of(content: bytes, by: str | None = None) -> BlobRef:
    return BlobRef(sha256=sha256(content), size_bytes=len(content), by=by, week=WEEK)


def place(content: bytes, piece: int, by: str = ALICE) -> str:
    return subjects.blob(ALICE, by, sha256(content), piece, WEEK)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def count(js: JetStream) -> int:
    return (await js.stream_state(BUCKET)).messages


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 20 * PIECE_BYTES + 7])
async def test_content_comes_back_whole(blobs: Blobs, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    ref = await blobs.put_file(ALICE, source)
    assert ref == ref_of(content)
    target.write_bytes(b"old")
    await blobs.get_to(ALICE, ref, target)
    assert target.read_bytes() == content
    assert await blobs.get_bytes(ALICE, ref) == content
    assert names(tmp_path) == {"nats", "source", "target"}


async def test_the_same_content_is_stored_once(blobs: Blobs, js: JetStream, tmp_path: Path) -> None:
    content = os.urandom(3 * PIECE_BYTES)
    (tmp_path / "a").write_bytes(content)
    await blobs.put_bytes(ALICE, content)
    assert await count(js) == 3
    sent = blobs._js._connection.nc.stats["out_bytes"]
    assert await blobs.put_file(ALICE, tmp_path / "a") == ref_of(content)
    assert await count(js) == 3
    assert blobs._js._connection.nc.stats["out_bytes"] - sent < 1000, "it is not even sent"


async def test_a_put_that_broke_off_goes_on_where_it_was(
    blobs: Blobs, js: JetStream, tmp_path: Path
) -> None:
    content = os.urandom(64 * PIECE_BYTES)
    (tmp_path / "a").write_bytes(content)
    # An earlier try: all up to here, and some of what was on its way then.
    for piece in (*range(40), 41, 45):
        payload = content[piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES]
        await (await blobs._publisher.publish(place(content, piece), payload))
    sent = blobs._js._connection.nc.stats["out_bytes"]
    told: list[int] = []
    await blobs.put_file(ALICE, tmp_path / "a", told.append)
    assert told[0] == 0
    assert told[1] > 22 * PIECE_BYTES, "as if it began anew"
    assert told[1:] == list(range(told[1], 65 * PIECE_BYTES, PIECE_BYTES))
    pieces = (blobs._js._connection.nc.stats["out_bytes"] - sent) / PIECE_BYTES
    assert 22 <= pieces < 41, "what is there is sent again"
    assert await count(js) == 64
    told.clear()
    assert await blobs.get_bytes(ALICE, ref_of(content), told.append) == content
    assert told == list(range(PIECE_BYTES, 65 * PIECE_BYTES, PIECE_BYTES))


async def test_a_transfer_outlives_the_restart_of_its_server(
    blobs: Blobs, js: JetStream, nats: EmbeddedServer, tmp_path: Path
) -> None:
    content = os.urandom(200 * PIECE_BYTES)
    ref = await blobs.put_bytes(ALICE, content)
    assert await count(js) == 200
    nc = blobs._js._connection.nc
    before = nc.stats["in_bytes"]
    getting = asyncio.create_task(blobs.get_to(ALICE, ref, tmp_path / "a"))
    await until(lambda: nc.stats["in_bytes"] > before + 20 * PIECE_BYTES)
    assert not getting.done()
    nats.kill()
    await nats.start()
    await getting
    assert (tmp_path / "a").read_bytes() == content
    assert nc.stats["in_bytes"] - before < 230 * PIECE_BYTES, "it began anew"


async def test_puts_of_the_same_content_at_once_leave_one_copy(blobs: Blobs, js: JetStream) -> None:
    content = os.urandom(3 * PIECE_BYTES)
    await asyncio.gather(*(blobs.put_bytes(ALICE, content) for _ in range(5)))
    assert await count(js) == 3
    assert await blobs.get_bytes(ALICE, ref_of(content)) == content


async def test_what_a_lender_stores_lies_in_its_own_area(
    blobs: Blobs, desk: Blobs, js: JetStream
) -> None:
    content = os.urandom(PIECE_BYTES + 1)
    ref = await desk.put_bytes(ALICE, content)
    assert ref == ref_of(content, DESK)
    assert await blobs.get_bytes(ALICE, ref) == content
    assert await count(js) == 0, "in a stream of what lenders leave"
    assert await desk.put_bytes(ALICE, content) == ref
    assert (await js.stream_state(LEFT)).messages == 2
    for elsewhere in (ref_of(content), ref_of(content, ATTIC)):
        with pytest.raises(BlobMissingError, match="does not hold it"):
            await blobs.get_bytes(ALICE, elsewhere)


async def test_what_is_there_is_not_replaced_rolled_up_or_removed(
    blobs: Blobs, connection: Connection, js: JetStream
) -> None:
    """Whatever permissions there are: it is the stream that refuses."""
    ref = await blobs.put_bytes(ALICE, b"what alice stored")
    subject = place(b"what alice stored", 0)
    answers = [
        (await connection.request(one, b"forged", headers)).data
        for one, headers in (
            (subject, None),
            (subject, {"Nats-Rollup": "sub"}),
            (subject, {"Nats-Rollup": "all"}),
            (subjects.blob(ALICE, DESK, ref.sha256, 0), {"Nats-Rollup": "all"}),
            (subject, {"Nats-Expected-Last-Subject-Sequence": "1"}),
        )
    ]
    assert all(b'"error"' in answer for answer in answers), answers
    with pytest.raises(JetStreamError):
        await js.call(f"STREAM.MSG.DELETE.{BUCKET}", {"seq": 1})
    assert await blobs.get_bytes(ALICE, ref) == b"what alice stored"


async def test_what_the_operator_has_removed_can_be_stored_anew(
    blobs: Blobs, js: JetStream
) -> None:
    ref = await blobs.put_bytes(ALICE, b"17")
    other = await blobs.put_bytes(ALICE, b"18")
    assert await js.purge(BUCKET, subjects.blob(ALICE, ALICE, ref.sha256, "*")) == 1
    with pytest.raises(BlobMissingError):
        await blobs.get_bytes(ALICE, ref)
    assert await blobs.get_bytes(ALICE, other) == b"18"
    await blobs.put_bytes(ALICE, b"17")
    assert await blobs.get_bytes(ALICE, ref) == b"17"


async def test_what_is_used_daily_is_there_whenever_a_job_that_names_it_may_run(
    connection: Connection, js: JetStream
) -> None:
    """Whoever names it finds it stored; the server drops each piece 16 days after it came."""
    today, content = NOW, os.urandom(PIECE_BYTES + 1)
    blobs = Blobs(connection, ALICE, now=lambda: today)
    named: list[BlobRef] = []
    came: list[int] = []
    for day in range(40):
        today = NOW + day * DAY_S
        named.append(await blobs.put_bytes(ALICE, content))
        came.append((await js.stream_state(BUCKET)).last_sequence)
        if (gone := day - round(CONTENT_KEPT_S / DAY_S)) >= 0:
            await js.call(f"STREAM.PURGE.{BUCKET}", {"seq": came[gone] + 1})
        for ref in named[-1 - round(QUEUE_S_MAX / DAY_S) :]:
            assert await blobs.get_bytes(ALICE, ref) == content
        assert await count(js) <= 3 * 2, "and is not stored for each day"
    blobs.close()


async def test_what_has_aged_out_is_missing_and_can_be_stored_anew(
    blobs: Blobs, js: JetStream
) -> None:
    """As after 16 days; the server itself drops it."""
    content = os.urandom(PIECE_BYTES + 1)
    ref = await blobs.put_bytes(ALICE, content)
    aged = {"max_age": 10**9, "duplicate_window": 10**9}
    await js.ensure_stream(streams.bucket_config(ALICE) | aged)
    async with asyncio.timeout(30):
        while await count(js):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    with pytest.raises(BlobMissingError):
        await blobs.get_bytes(ALICE, ref)
    await js.ensure_stream(streams.bucket_config(ALICE))
    assert await blobs.put_bytes(ALICE, content) == ref
    assert await blobs.get_bytes(ALICE, ref) == content


async def test_what_an_earlier_version_has_stored_is_read(
    blobs: Blobs, connection: Connection
) -> None:
    """It named no week."""
    await connection.request(subjects.blob(ALICE, ALICE, sha256(b"former"), 0), b"former")
    former = BlobRef(sha256=sha256(b"former"), size_bytes=6)
    assert await blobs.get_bytes(ALICE, former) == b"former"
    assert (await blobs.put_bytes(ALICE, b"former")).week == WEEK


async def test_what_lenders_have_left_in_the_bucket_of_an_earlier_version_is_read(
    connection: Connection,
) -> None:
    """It had one stream for all; lenders reach the new one alone."""
    js, blobs, content = JetStream(connection), Blobs(connection, ALICE), b"left by the desk"
    one_for_all = {**streams.bucket_config(ALICE), "subjects": [subjects.of_bucket(ALICE)]}
    await js.ensure_stream(one_for_all)
    place = subjects.former_blob(ALICE, DESK, sha256(content), 0)
    answer(await connection.request(place, content))
    for config in (streams.bucket_config(ALICE), streams.left_config(ALICE)):
        await js.ensure_stream(config)
    former = BlobRef(sha256=sha256(content), size_bytes=len(content), by=DESK)
    assert await blobs.get_bytes(ALICE, former) == content
    with pytest.raises(NoRespondersError):
        await connection.request(subjects.former_blob(ALICE, DESK, "ab" * 32, 0), b"more")
    blobs.close()


async def test_where_there_is_no_bucket_is_told_at_once(blobs: Blobs) -> None:
    for size in (1, 2 * PIECE_BYTES):
        with pytest.raises(NoRespondersError):
            await blobs.put_bytes(BOB, bytes(size))
    with pytest.raises(NoRespondersError):
        await blobs.get_bytes(BOB, ref_of(b"17"))


async def test_a_full_bucket_takes_no_more_and_says_so(blobs: Blobs, js: JetStream) -> None:
    await js.ensure_stream(streams.bucket_config(ALICE, bytes_max=3 * PIECE_BYTES))
    kept = os.urandom(2 * PIECE_BYTES)
    await blobs.put_bytes(ALICE, kept)
    with pytest.raises(BucketFullError, match="is full"):
        await blobs.put_bytes(ALICE, os.urandom(2 * PIECE_BYTES))
    assert await blobs.put_bytes(ALICE, kept) == ref_of(kept), "what is there is no more"
    assert await blobs.get_bytes(ALICE, ref_of(kept)) == kept


@pytest.mark.parametrize("bound", [{}, {"set_aside": False}], ids=["in bytes", "in pieces"])
async def test_what_lenders_leave_is_bounded_by_itself(
    blobs: Blobs, desk: Blobs, js: JetStream, bound: dict[str, bool]
) -> None:
    """Also on a server that has no room to set aside."""
    await js.ensure_stream(streams.left_config(ALICE, bytes_max=3 * PIECE_BYTES, **bound))
    with pytest.raises(BucketFullError, match="is full"):
        await desk.put_bytes(ALICE, os.urandom(4 * PIECE_BYTES))
    content = os.urandom(4 * PIECE_BYTES)
    assert await blobs.get_bytes(ALICE, await blobs.put_bytes(ALICE, content)) == content


async def test_nothing_larger_than_a_piece_is_stored(connection: Connection, js: JetStream) -> None:
    assert js
    subject = subjects.blob(ALICE, DESK, "ab" * 32, 0)
    refused = await connection.request(subject, bytes(PIECE_BYTES + 8192))
    assert b"message size exceeds" in refused.data


LIES = {
    "other content": [b"false"],
    "too little": [b"trut"],
    "too much": [b"truths"],
    "nothing": [b""],
    "a piece more": [b"truth", b"truth"],
}


@pytest.mark.parametrize("pieces", LIES.values(), ids=LIES.keys())
async def test_whatever_lies_in_the_store_only_the_true_content_is_handed_out(
    blobs: Blobs, connection: Connection, tmp_path: Path, pieces: list[bytes]
) -> None:
    for number, piece in enumerate(pieces):
        subject = place(b"truth", number, DESK)
        await connection.request(subject, piece)
    target, ref = tmp_path / "target", ref_of(b"truth", DESK)
    if len(pieces) > 1:
        assert await blobs.get_bytes(ALICE, ref) == b"truth", "what is too much is not looked at"
        return
    with pytest.raises(BlobCorruptError):
        await blobs.get_to(ALICE, ref, target)
    with pytest.raises(BlobCorruptError):
        await blobs.get_bytes(ALICE, ref)
    assert names(tmp_path) == {"nats"}


@pytest.mark.parametrize("missing", [0, 1, 9, 10])
async def test_a_content_of_which_a_piece_is_missing_is_missing(
    blobs: Blobs, js: JetStream, tmp_path: Path, missing: int
) -> None:
    content = os.urandom(10 * PIECE_BYTES + 1)
    ref = await blobs.put_bytes(ALICE, content)
    await js.purge(BUCKET, place(content, missing))
    with pytest.raises(BlobMissingError):
        await blobs.get_to(ALICE, ref, tmp_path / "x")
    assert names(tmp_path) == {"nats"}


async def test_a_size_that_is_not_its_own_is_noticed(blobs: Blobs) -> None:
    content = os.urandom(PIECE_BYTES + 5)
    ref = await blobs.put_bytes(ALICE, content)
    for size_bytes in (0, 1, PIECE_BYTES, PIECE_BYTES + 4, PIECE_BYTES + 6, 2 * PIECE_BYTES + 1):
        with pytest.raises((BlobCorruptError, BlobMissingError)):
            await blobs.get_bytes(ALICE, ref.model_copy(update={"size_bytes": size_bytes}))


async def test_what_was_stored_wrong_under_ones_own_name_is_noticed(
    blobs: Blobs, connection: Connection
) -> None:
    content = os.urandom(PIECE_BYTES + 5)
    await connection.request(place(content, 1), b"wrong")
    with pytest.raises(BlobCorruptError, match="something else"):
        await blobs.put_bytes(ALICE, content)


async def test_a_file_that_changes_under_our_hands_is_not_stored(
    blobs: Blobs, js: JetStream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not even its wrong pieces: nobody could replace them."""
    path = tmp_path / "f"
    path.write_bytes(b"before")
    outline = blobs_module._outline

    def outline_and_change(source: Any) -> Any:  # noqa: ANN401
        result = outline(source)
        path.write_bytes(b"afterw")
        return result

    monkeypatch.setattr(blobs_module, "_outline", outline_and_change)
    with pytest.raises(BlobCorruptError, match="changed while it was read"):
        await blobs.put_file(ALICE, path)
    assert await count(js) == 0


async def test_a_put_that_was_broken_off_goes_on_where_it_was(
    nats: EmbeddedServer, blobs: Blobs, js: JetStream, connection: Connection
) -> None:
    content = os.urandom(60 * PIECE_BYTES)
    putting = asyncio.create_task(blobs.put_bytes(ALICE, content))
    await until(lambda: len(blobs._publisher._in_flight) > 10)
    nats.kill()
    with pytest.raises((OutcomeUnknownError, NotConnectedError)):
        await putting
    await nats.start()
    await until(lambda: connection.connected)
    assert 0 <= await count(js) < 60
    with pytest.raises(BlobMissingError):
        await blobs.get_bytes(ALICE, ref_of(content))
    await blobs.put_bytes(ALICE, content)
    assert await count(js) == 60
    assert await blobs.get_bytes(ALICE, ref_of(content)) == content


async def test_a_put_that_is_given_up_is_not_taken_for_whole(blobs: Blobs, js: JetStream) -> None:
    content = os.urandom(60 * PIECE_BYTES)
    putting = asyncio.create_task(blobs.put_bytes(ALICE, content))
    await until(lambda: len(blobs._publisher._in_flight) > 10)
    began = asyncio.get_running_loop().time()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert asyncio.get_running_loop().time() - began < 8.0, "no answer is waited for: 10 s"
    assert await js.get_last(BUCKET, place(content, 59)) is None
    await blobs.put_bytes(ALICE, content)
    assert await blobs.get_bytes(ALICE, ref_of(content)) == content


async def test_a_crash_of_the_server_during_a_get_leaves_no_partial_file(
    nats: EmbeddedServer, blobs: Blobs, connection: Connection, tmp_path: Path
) -> None:
    content = os.urandom(60 * PIECE_BYTES)
    ref = await blobs.put_bytes(ALICE, content)
    folder = tmp_path / "cache"
    folder.mkdir()
    getting = asyncio.create_task(blobs.get_to(ALICE, ref, folder / "x"))
    await until(lambda: names(folder))
    nats.kill()
    with pytest.raises(LinkError):
        await getting
    assert not names(folder)
    await nats.start()
    await until(lambda: connection.connected)
    await blobs.get_to(ALICE, ref, folder / "x")
    assert names(folder) == {"x"}


async def test_a_get_that_is_given_up_leaves_no_partial_file(blobs: Blobs, tmp_path: Path) -> None:
    content = os.urandom(60 * PIECE_BYTES)
    ref = await blobs.put_bytes(ALICE, content)
    folder = tmp_path / "cache"
    folder.mkdir()
    getting = asyncio.create_task(blobs.get_to(ALICE, ref, folder / "x"))
    await until(lambda: names(folder))
    getting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await getting
    assert not names(folder)
    with pytest.raises(FileNotFoundError):
        await blobs.get_to(ALICE, ref, tmp_path / "absent" / "x")
    with pytest.raises(FileNotFoundError):
        await blobs.put_file(ALICE, tmp_path / "absent")
