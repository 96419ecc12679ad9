"""Submitters and lenders in the wrong hands: whose contents they read, replace or remove."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from permissions.people import (
    BROKER,
    LENDER,
    OTHER_LENDER,
    OTHER_SUBMITTER,
    SUBMITTER,
    Person,
)
from permissions.trial import Trial, trial

from broker.deployment.tokens import Key
from lender.link.api import JetStream
from lender.link.blobs import Blobs, BucketFullError
from lender.link.connection import Connection, status
from lender.link.errors import JetStreamError, LinkError
from lender.protocol import streams, subjects
from lender.protocol.bounds import PIECE_BYTES
from lender.protocol.job import BlobRef
from lender.protocol.permissions import completed

WITHIN_S = 0.5
"""For what is not to come."""

ALICE, MALLORY = SUBMITTER.key.public, OTHER_SUBMITTER.key.public
BUCKET, LEFT = streams.bucket(ALICE), streams.left(ALICE)
TWIN = LENDER._replace(name="twin", key=Key.make("user", bytes([36] * 32)))
"""Takes leases of the same class as `LENDER`."""
EVERY = TWIN._replace(
    name="every", key=Key.make("user", bytes([37] * 32)), tags=completed(("class:*",))
)
"""Takes leases of all classes."""

EVERYBODY_ELSE = [OTHER_SUBMITTER, OTHER_LENDER]
CONTENT = b"what alice stored" + bytes(PIECE_BYTES)
ALL, OF_ONE = {"Nats-Rollup": "all"}, {"Nats-Rollup": "sub"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Trial]:
    async with trial(tmp_path) as one:
        yield one


async def stored(world: Trial, person: Person, content: bytes = CONTENT) -> BlobRef:
    """Have somebody store something for alice."""
    async with await world.connect(person) as line:
        blobs = Blobs(line, person.key.public)
        ref = await blobs.put_bytes(ALICE, content)
        blobs.close()
    return ref


async def bound(world: Trial, bytes_max: int) -> None:
    """Have no more than this stored for alice, and no more left for her."""
    async with await world.connect(BROKER) as line:
        for config in (streams.bucket_config, streams.left_config):
            await JetStream(line).ensure_stream(config(ALICE, bytes_max=bytes_max))


async def read(world: Trial, person: Person, ref: BlobRef) -> bytes:
    async with await world.connect(person) as line:
        blobs = Blobs(line, person.key.public, timeout_s=WITHIN_S)
        try:
            return await blobs.get_bytes(ALICE, ref)
        finally:
            blobs.close()


async def tried(
    line: Connection, deeds: list[tuple[str, object, dict[str, str] | None]]
) -> list[str]:
    """Try all, and return those that were answered with something else than a refusal."""

    async def one(subject: str, body: object, headers: dict[str, str] | None) -> str:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            msg = await line.request(subject, payload, headers, timeout_s=WITHIN_S)
        except LinkError:
            return ""
        return "" if refuses(msg) else f"{subject}: {msg.data[:200]!r}"

    return [said for said in await asyncio.gather(*(one(*deed) for deed in deeds)) if said]


def refuses(msg: Msg) -> bool:
    return status(msg) in ("404", "408") or b'"error"' in msg.data


def readings(ref: BlobRef) -> list[tuple[str, object, None]]:
    """Every way to read or list what is in alice's buckets: hers, and that of what is left."""
    by, stream = ref.by or ALICE, LEFT if ref.by else BUCKET
    theirs = subjects.of_left(ALICE) if ref.by else subjects.of_bucket(ALICE)
    wildcards = ("blob.>", "out.>", theirs, subjects.blob(ALICE, by, "*", "*"))
    consumer = {"deliver_subject": "x", "ack_policy": "none", "deliver_policy": "all"}
    call = "$JS.API.{}." + stream
    piece = subjects.blob(ALICE, by, ref.sha256, 0, ref.week)
    return [
        (f"{call.format('DIRECT.GET')}.{piece}", b"", None),
        *((f"{call.format('DIRECT.GET')}.{one}", b"", None) for one in wildcards),
        (call.format("DIRECT.GET"), {"seq": 1, "batch": 10, "next_by_subj": ">"}, None),
        (call.format("DIRECT.GET"), {"multi_last": [">"], "batch": 10}, None),
        (call.format("STREAM.MSG.GET"), {"seq": 1}, None),
        (call.format("STREAM.MSG.GET"), {"last_by_subj": theirs}, None),
        (call.format("STREAM.INFO"), {"subjects_filter": ">"}, None),
        ("$JS.API.STREAM.LIST", {}, None),
        ("$JS.API.STREAM.NAMES", {"subject": theirs}, None),
        (call.format("STREAM.SNAPSHOT"), {"deliver_subject": "x"}, None),
        (f"{call.format('CONSUMER.CREATE')}", {"stream_name": stream, "config": consumer}, None),
        (
            f"{call.format('CONSUMER.CREATE')}.c.{theirs}",
            {"stream_name": stream, "config": {**consumer, "name": "c"}},
            None,
        ),
        # A stream of one's own that copies it, or takes its subjects over.
        ("$JS.API.STREAM.CREATE.MINE", {"name": "MINE", "sources": [{"name": stream}]}, None),
        ("$JS.API.STREAM.CREATE.MINE", {"name": "MINE", "mirror": {"name": stream}}, None),
    ]


def changes(ref: BlobRef, me: str) -> list[tuple[str, object, dict[str, str] | None]]:
    """Every way to replace, remove or forestall what is in alice's buckets."""
    by, stream = ref.by or ALICE, LEFT if ref.by else BUCKET
    areas = [
        subjects.blob(ALICE, by, ref.sha256, 0, ref.week),
        subjects.blob(ALICE, by, "cd" * 32, 0, ref.week),
        subjects.blob(ALICE, ALICE, "cd" * 32, 0, ref.week),
        subjects.blob(ALICE, me, ref.sha256, 0, ref.week) + ".x",
        subjects.former_blob(ALICE, LENDER.key.public, ref.sha256, 0),
        f"blob.{ALICE}",
        f"out.{ALICE}",
    ]
    call = "$JS.API.{}." + stream
    return [
        *((one, b"forged", headers) for one in areas for headers in (None, OF_ONE, ALL)),
        (subjects.blob(ALICE, me, ref.sha256, 0, ref.week), b"forged", ALL),
        (subjects.blob(ALICE, me, ref.sha256, 1, ref.week), b"forged", OF_ONE),
        (subjects.blob(ALICE, me, ref.sha256, 2, ref.week), b"forged", {"Nats-TTL": "1s"}),
        (call.format("STREAM.PURGE"), {}, None),
        (call.format("STREAM.PURGE"), {"filter": areas[0]}, None),
        (call.format("STREAM.MSG.DELETE"), {"seq": 1}, None),
        (call.format("STREAM.DELETE"), {}, None),
        (call.format("STREAM.UPDATE"), {"name": stream, "max_age": 1}, None),
        (call.format("STREAM.RESTORE"), {}, None),
    ]


@pytest.mark.parametrize("mallory", EVERYBODY_ELSE, ids=lambda one: one.name)
async def test_who_has_nothing_to_do_with_a_submitter_reads_none_of_its_contents(
    world: Trial, mallory: Person
) -> None:
    """Another submitter; a lender that was given no class of hers, and leases no job of hers."""
    for owner in (SUBMITTER, LENDER):
        ref = await stored(world, owner)
        assert await read(world, SUBMITTER, ref) == CONTENT
        assert await read(world, LENDER, ref) == CONTENT, "this one runs her jobs"
        with pytest.raises(LinkError):
            await read(world, mallory, ref)
        async with await world.connect(mallory) as line:
            assert await tried(line, readings(ref)) == []


@pytest.mark.parametrize("mallory", [*EVERYBODY_ELSE, TWIN, EVERY], ids=lambda one: one.name)
async def test_nobody_replaces_removes_or_forestalls_what_another_stores(
    world: Trial, mallory: Person
) -> None:
    """An input, and what a lender has left: not even by another lender of the same class."""
    me = mallory.key.public
    refs = [await stored(world, owner) for owner in (SUBMITTER, LENDER)]
    async with await world.connect(mallory) as line:
        for ref in refs:
            assert await tried(line, changes(ref, me)) == []
    for ref in refs:
        assert await read(world, SUBMITTER, ref) == CONTENT
        assert await read(world, LENDER, ref) == CONTENT
    ref = await stored(world, LENDER, b"later")
    assert await read(world, SUBMITTER, ref) == b"later"


async def test_a_lender_of_the_same_class_adds_in_its_own_name_alone(world: Trial) -> None:
    """It may say that it has the same content: then it has its own copy, true or not."""
    true = await stored(world, LENDER)
    for twin in (TWIN, EVERY):
        assert await read(world, twin, true) == CONTENT
        async with await world.connect(twin) as line:
            forged = subjects.blob(ALICE, twin.key.public, true.sha256, 0, true.week)
            assert not refuses(await line.request(forged, b"forged"))
        assert await read(world, SUBMITTER, true) == CONTENT
        with pytest.raises(LinkError):
            await read(world, SUBMITTER, true.model_copy(update={"by": twin.key.public}))


@pytest.mark.parametrize("mallory", [*EVERYBODY_ELSE, TWIN], ids=lambda one: one.name)
async def test_no_content_is_written_by_way_of_a_reply(world: Trial, mallory: Person) -> None:
    """A server checks no reply subject: it may not be had to write under another's name."""
    whose = MALLORY if mallory is not TWIN else ALICE
    own = subjects.blob(whose, mallory.key.public, "ab" * 32, 0)
    bucket = streams.bucket(whose) if mallory is OTHER_SUBMITTER else streams.left(whose)
    target = subjects.blob(ALICE, ALICE, "ab" * 32, 0)
    async with await world.connect(mallory) as line:
        assert not refuses(await line.request(own, b"forged"))
        for subject in (own, f"$JS.API.DIRECT.GET.{bucket}.{own}"):
            await line.publish(subject, b"", reply=target)
            await line.publish(subject, b"", reply=f"$JS.API.STREAM.PURGE.{BUCKET}")
        await line.nc.flush()
    async with await world.connect(SUBMITTER) as line:
        await asyncio.sleep(WITHIN_S)
        assert await JetStream(line).get_last(BUCKET, target) is None


@pytest.mark.parametrize("owner", [SUBMITTER, LENDER], ids=lambda one: one.name)
async def test_not_even_who_has_stored_it_replaces_or_removes_it(
    world: Trial, owner: Person
) -> None:
    """Whose key is stolen loses nothing that is stored."""
    ref = await stored(world, owner)
    async with await world.connect(owner) as line:
        in_its_own_area = subjects.blob(ALICE, owner.key.public, "cd" * 32, 0, ref.week)
        deeds = [
            one for one in changes(ref, owner.key.public) if one[0] != in_its_own_area or one[2]
        ]
        assert await tried(line, deeds) == []
    assert await read(world, SUBMITTER, ref) == CONTENT


async def test_what_one_submitter_stores_is_bounded_and_fills_no_other_bucket(
    world: Trial,
) -> None:
    await bound(world, 2 * PIECE_BYTES)
    with pytest.raises((BucketFullError, JetStreamError)):
        await stored(world, SUBMITTER, bytes(4 * PIECE_BYTES))
    with pytest.raises((BucketFullError, JetStreamError)):
        await stored(world, LENDER, bytes(4 * PIECE_BYTES))
    async with await world.connect(OTHER_SUBMITTER) as line:
        blobs = Blobs(line, MALLORY)
        ref = await blobs.put_bytes(MALLORY, CONTENT)
        assert await blobs.get_bytes(MALLORY, ref) == CONTENT
        blobs.close()


async def test_a_lender_that_fills_all_that_it_may_keeps_no_submitter_from_storing(
    world: Trial,
) -> None:
    """Whatever it writes, wherever: her inputs have room of their own, and so have others' jobs."""
    await bound(world, 4 * PIECE_BYTES)
    me = LENDER.key.public
    async with await world.connect(LENDER) as line:
        flood = [
            line.request(place(ALICE, me, f"{number:064x}", 0), bytes(PIECE_BYTES))
            for place in (subjects.blob, subjects.former_blob)
            for number in range(6)
        ]
        await asyncio.gather(*flood, return_exceptions=True)
        with pytest.raises(BucketFullError):
            await Blobs(line, me).put_bytes(ALICE, bytes(PIECE_BYTES))
    ref = await stored(world, SUBMITTER)
    assert await read(world, LENDER, ref) == CONTENT
