"""Durable publishing: every future ends, with the sequence or with what is known."""

import asyncio

import pytest
from nats_server import until

from lender.link.api import JetStream
from lender.link.connection import Connection, Disconnected
from lender.link.embedded import EmbeddedServer
from lender.link.errors import (
    JetStreamError,
    NoRespondersError,
    NotConnectedError,
    PayloadTooLargeError,
)
from lender.link.publisher import Publisher, PublishUnknownError

STREAM = {
    "name": "S",
    "subjects": ["s.>"],
    "max_msgs_per_subject": 1,
    "discard": "new",
    "discard_new_per_subject": True,
    "allow_direct": True,
}


async def test_each_future_becomes_its_messages_sequence(connection: Connection) -> None:
    js = JetStream(connection)
    await js.ensure_stream(STREAM)
    publisher = Publisher(connection, in_flight_max=16)
    futures = [await publisher.publish(f"s.{n}", b"x", {"N": str(n)}) for n in range(200)]
    assert await asyncio.gather(*futures) == list(range(1, 201))
    page = await js.get_page("S", 1, 200)
    assert [m.headers["N"] for m in page.messages] == [str(n) for n in range(200)]
    publisher.close()


async def test_refusals_reach_their_own_future(connection: Connection) -> None:
    await JetStream(connection).ensure_stream(STREAM)
    publisher = Publisher(connection, in_flight_max=3)
    stored = await publisher.publish("s.1", b"x")
    taken = await publisher.publish("s.1", b"y")
    nowhere = await publisher.publish("elsewhere", b"z")
    assert await stored == 1
    with pytest.raises(JetStreamError, match="maximum messages per subject"):
        await taken
    with pytest.raises(NoRespondersError):
        await nowhere
    for _ in range(4):  # a refusal here leaves room for the next
        with pytest.raises(PayloadTooLargeError):
            await publisher.publish("s.2", bytes(connection.nc.max_payload + 1))
    assert await (await publisher.publish("s.2", b"x")) == 2
    publisher.close()


async def test_in_flight_is_bounded_and_silence_ends_as_unknown(connection: Connection) -> None:
    await connection.nc.subscribe("mute")
    publisher = Publisher(connection, in_flight_max=2, timeout_s=0.1)
    first = [await publisher.publish("mute", b""), await publisher.publish("mute", b"")]
    third = asyncio.create_task(publisher.publish("mute", b""))
    await connection.nc.flush()
    assert not third.done()
    for future in first:
        with pytest.raises(PublishUnknownError, match="on mute within"):
            await future
    with pytest.raises(PublishUnknownError):
        await (await third)
    publisher.close()


async def test_what_was_acknowledged_survives_a_crash_and_the_rest_is_unknown(
    nats: EmbeddedServer, connection: Connection
) -> None:
    js = JetStream(connection)
    await js.ensure_stream(STREAM)
    publisher = Publisher(connection, in_flight_max=64)
    futures: list[asyncio.Future[int]] = []
    broken = asyncio.Event()
    connection.watch(lambda state: broken.set() if isinstance(state, Disconnected) else None)

    async def flood() -> None:
        while True:
            futures.append(await publisher.publish(f"s.{len(futures)}", b"x"))

    flooding = asyncio.create_task(flood())
    async with asyncio.timeout(10):
        await until(lambda: len(futures) >= 500)
        nats.kill()
        with pytest.raises(NotConnectedError):
            await flooding
        await broken.wait()
    assert all(future.done() for future in futures)
    acknowledged = [n for n, future in enumerate(futures) if future.exception() is None]
    unknown = [n for n, future in enumerate(futures) if future.exception() is not None]
    assert len(acknowledged) >= 400
    assert unknown
    assert all(isinstance(futures[n].exception(), PublishUnknownError) for n in unknown)
    await nats.start()
    await until(lambda: connection.connected)
    stored = {m.subject for m in (await js.get_page("S", 1, len(futures))).messages}
    assert {f"s.{n}" for n in acknowledged} <= stored
    again = await publisher.publish(f"s.{len(futures)}", b"x")
    assert await again > len(acknowledged)
    publisher.close()
