"""Commits: all or none, compare-and-set, and no answer is told apart from a refusal."""

import asyncio

import pytest
from nats_server import until

from lender.link.api import JetStream
from lender.link.batch import (
    RECORDS_MAX,
    CommitUnknownError,
    Record,
    StreamFullError,
    SubjectTakenError,
    WrongLastSequenceError,
    commit,
)
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.link.errors import (
    JetStreamError,
    NoRespondersError,
    NotConnectedError,
    PayloadTooLargeError,
)

STREAM = {
    "name": "R",
    "subjects": ["res.>"],
    "max_msgs_per_subject": 1,
    "discard": "new",
    "discard_new_per_subject": True,
    "allow_direct": True,
    "allow_atomic": True,
}


@pytest.fixture
async def js(connection: Connection) -> JetStream:
    js = JetStream(connection)
    await js.ensure_stream(STREAM)
    return js


def records(prefix: str, count: int) -> list[Record]:
    return [Record(f"res.{prefix}.{n}", b"%d" % n, {"N": str(n)}) for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, RECORDS_MAX])
async def test_records_are_stored_in_order_with_their_headers(
    connection: Connection, js: JetStream, count: int
) -> None:
    assert await commit(connection, records("a", count), 0) == count
    page = await js.get_page("R", 1, count)
    assert [(m.subject, m.payload, m.headers["N"]) for m in page.messages] == [
        (r.subject, r.payload, r.headers["N"]) for r in records("a", count)
    ]


@pytest.mark.parametrize("count", [1, 3])
async def test_a_commit_onto_another_state_than_seen_is_refused(
    connection: Connection, js: JetStream, count: int
) -> None:
    await commit(connection, records("a", 2), 0)
    for expected in (0, 1, 99):
        with pytest.raises(WrongLastSequenceError) as caught:
            await commit(connection, records("b", count), expected)
        assert (caught.value.expected, caught.value.actual) == (expected, 2)
    assert (await js.stream_state("R")).messages == 2
    assert await commit(connection, records("b", count), 2) == 2 + count


async def test_one_taken_subject_refuses_the_whole_batch(
    connection: Connection, js: JetStream
) -> None:
    await commit(connection, records("a", 1), 0)
    with pytest.raises(SubjectTakenError):
        await commit(connection, records("a", 1), 1)
    with pytest.raises(SubjectTakenError):
        await commit(connection, [*records("b", 2), *records("a", 1), *records("c", 2)], 1)
    with pytest.raises(SubjectTakenError):
        await commit(connection, [*records("b", 2), *records("b", 1)], 1)
    assert (await js.stream_state("R")).last_sequence == 1


@pytest.mark.parametrize("count", [1, 3])
async def test_a_full_stream_is_told_from_a_taken_subject(
    connection: Connection, js: JetStream, count: int
) -> None:
    info = await js.call("STREAM.INFO.R")
    await js.ensure_stream({**info["config"], "max_bytes": 4_000})
    last = await commit(connection, [Record("res.large", bytes(3_500))], 0)
    with pytest.raises(StreamFullError):
        await commit(connection, [Record(f"res.{n}", bytes(1_000)) for n in range(count)], last)
    with pytest.raises(SubjectTakenError):
        await commit(connection, [Record("res.large", b"")], last)
    await js.ensure_stream({**info["config"], "max_bytes": -1})
    assert await commit(connection, records("b", count), last) == last + count


async def test_other_refusals_keep_the_servers_reason(
    connection: Connection, js: JetStream
) -> None:
    for count in (0, RECORDS_MAX + 1):
        with pytest.raises(ValueError, match="want 1 to"):
            await commit(connection, records("a", count), 0)
    for count in (1, 2):
        with pytest.raises(NoRespondersError):
            await commit(connection, [Record("nowhere", b"")] * count, 0)
    with pytest.raises(JetStreamError, match="incomplete"):  # a record of no stream, in the middle
        await commit(connection, [*records("a", 1), Record("nowhere", b""), *records("b", 1)], 0)
    too_large = Record("res.big", bytes(connection.nc.max_payload))
    with pytest.raises(PayloadTooLargeError):
        await commit(connection, [*records("a", 1), too_large], 0)
    await js.ensure_stream({"name": "PLAIN", "subjects": ["plain.>"]})
    with pytest.raises(JetStreamError, match="disabled"):
        await commit(connection, [Record("plain.1", b""), Record("plain.2", b"")], 0)
    assert (await js.stream_state("R")).messages == 0


async def test_an_abandoned_batch_leaves_nothing_and_blocks_nobody(
    connection: Connection, js: JetStream
) -> None:
    for number in range(1, 4):
        headers = {"Nats-Batch-Id": "abandoned", "Nats-Batch-Sequence": str(number)}
        await connection.publish(f"res.a.{number}", b"", headers)
    assert await commit(connection, records("b", 2), 0) == 2
    assert (await js.stream_state("R")).messages == 2


@pytest.mark.parametrize("count", [1, 2])
async def test_no_answer_is_unknown(connection: Connection, count: int) -> None:
    await connection.nc.subscribe("mute")
    with pytest.raises(CommitUnknownError):
        await commit(connection, [Record("mute", b"")] * count, 0, timeout_s=0.05)


async def test_over_a_crash_each_batch_is_whole_or_absent_and_acknowledged_ones_are_there(
    nats: EmbeddedServer, connection: Connection, js: JetStream
) -> None:
    size = 20
    acknowledged: list[int] = []

    async def run() -> int:
        last = 0
        for number in range(10_000):
            last = await commit(connection, records(f"{number}", size), last)
            acknowledged.append(number)
        return last

    running = asyncio.create_task(run())
    async with asyncio.timeout(20):
        await until(lambda: len(acknowledged) >= 20)
        nats.kill()
        with pytest.raises((CommitUnknownError, NotConnectedError)):
            await running
        with pytest.raises(NotConnectedError):
            await commit(connection, records("x", 2), 0)
        await nats.start()
        await until(lambda: connection.connected)
    state = await js.stream_state("R")
    assert state.messages % size == 0
    assert len(acknowledged) <= state.messages // size <= len(acknowledged) + 1
    assert await commit(connection, records("x", 2), state.last_sequence)
