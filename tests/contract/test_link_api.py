"""JetStream's API as we call it."""

import asyncio

import pytest

from lender.link.api import STREAM_NOT_FOUND, ConsumerState, JetStream
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.link.errors import (
    DisconnectedError,
    JetStreamError,
    NoRespondersError,
    RequestTimeoutError,
)

STREAM = {"name": "S", "subjects": ["s.>"], "allow_direct": True}


async def fill(connection: Connection, count: int, subject: str = "s.{}") -> None:
    for number in range(count):
        await connection.request(subject.format(number), str(number).encode(), {"N": str(number)})


async def test_a_stream_is_created_kept_and_updated(connection: Connection) -> None:
    js = JetStream(connection)
    assert (await js.ensure_stream(STREAM)).last_sequence == 0
    await fill(connection, 3)
    assert (await js.ensure_stream(STREAM)).messages == 3
    await js.ensure_stream({**STREAM, "max_msgs": 2})
    state = await js.stream_state("S")
    assert (state.messages, state.first_sequence, state.last_sequence) == (2, 2, 3)


async def test_a_refusal_carries_the_servers_code_and_words(connection: Connection) -> None:
    js = JetStream(connection)
    with pytest.raises(JetStreamError, match="stream not found") as caught:
        await js.stream_state("ABSENT")
    assert (caught.value.code, caught.value.err_code) == (404, STREAM_NOT_FOUND)
    await js.ensure_stream(STREAM)
    with pytest.raises(JetStreamError, match="can not change"):
        await js.ensure_stream({**STREAM, "storage": "memory"})


async def test_a_consumer_is_created_got_and_deleted(connection: Connection) -> None:
    js = JetStream(connection)
    await js.ensure_stream(STREAM)
    await fill(connection, 2)
    config = {"durable_name": "c", "ack_policy": "explicit", "filter_subject": "s.1"}
    assert await js.ensure_consumer("S", config) == ConsumerState("c", 1)
    assert await js.ensure_consumer("S", config) == ConsumerState("c", 1)
    assert await js.delete_consumer("S", "c")
    assert not await js.delete_consumer("S", "c")
    with pytest.raises(JetStreamError):
        await js.delete_consumer("ABSENT", "c")


async def test_the_next_message_on_a_subject_is_found_by_its_sequence(
    connection: Connection,
) -> None:
    js = JetStream(connection)
    await js.ensure_stream(STREAM)
    await fill(connection, 3)
    assert await js.delete_message("S", 2)
    assert await js.next_sequence("S", 2) == 3
    assert await js.next_sequence("S", 1, "s.2") == 3
    assert await js.next_sequence("S", 4) is None
    assert await js.next_sequence("S", 1, "s.absent") is None
    with pytest.raises(JetStreamError):
        await js.next_sequence("ABSENT", 1)


async def test_a_message_is_deleted_once(connection: Connection) -> None:
    js = JetStream(connection)
    await js.ensure_stream(STREAM)
    await fill(connection, 3)
    assert await js.delete_message("S", 2)
    assert not await js.delete_message("S", 2)
    assert not await js.delete_message("S", 99)
    with pytest.raises(JetStreamError):
        await js.delete_message("ABSENT", 1)
    assert await js.purge("S", "s.0") == 1
    assert (await js.stream_state("S")).messages == 1


async def test_the_last_message_of_a_subject(connection: Connection) -> None:
    js = JetStream(connection)
    await js.ensure_stream(STREAM)
    await fill(connection, 3)
    last = await js.get_last("S", "s.1")
    assert last is not None
    assert (last.subject, last.sequence, last.payload, last.headers["N"]) == ("s.1", 2, b"1", "1")
    assert await js.get_last("S", "s.9") is None
    with pytest.raises(NoRespondersError):
        await js.get_last("ABSENT", "s.1")


async def test_pages_of_a_stream(connection: Connection) -> None:
    js = JetStream(connection)
    await js.ensure_stream(STREAM)
    assert (await js.get_page("S", 1, 10)).messages == []
    await fill(connection, 5)
    await fill(connection, 2, "s.x.{}")
    page = await js.get_page("S", 2, 3)
    assert [m.sequence for m in page.messages] == [2, 3, 4]
    assert page.num_pending == 3
    page = await js.get_page("S", 2, 3, subject="s.x.*")
    assert [m.subject for m in page.messages] == ["s.x.0", "s.x.1"]
    assert page.num_pending == 0
    page = await js.get_page("S", 1, 10, max_bytes=1)
    assert [m.sequence for m in page.messages] == [1]
    assert page.num_pending == 6
    assert (await js.get_page("S", 99, 10)).messages == []
    with pytest.raises(NoRespondersError):
        await js.get_page("ABSENT", 1, 1)


async def test_a_page_ends_with_the_line_or_the_time_allowed(
    nats: EmbeddedServer, connection: Connection
) -> None:
    await connection.nc.subscribe("$JS.API.DIRECT.GET.MUTE")
    with pytest.raises(RequestTimeoutError):
        await JetStream(connection, timeout_s=0.05).get_page("MUTE", 1, 1)
    page = asyncio.create_task(JetStream(connection, timeout_s=30).get_page("MUTE", 1, 1))
    await connection.nc.flush()
    nats.kill()
    with pytest.raises(DisconnectedError):
        await page
