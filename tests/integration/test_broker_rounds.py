"""The broker's rounds through WORK on a real server: all that lies there, again and again."""

import asyncio

import pytest
from broker_parts import until

from broker.core.events import WorkSeen
from broker.service import rounds
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.link.publisher import Publisher
from lender.protocol import streams


async def test_each_round_tells_of_all_that_lies_in_work(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PAGE", 2)
    jetstream, told = JetStream(connection), list[WorkSeen]()
    for config in streams.stream_configs():
        await jetstream.ensure_stream(config)
    walk = asyncio.create_task(rounds.look_through(connection, told.append, every_s=0.01))
    publisher = Publisher(connection)
    await asyncio.gather(*[await publisher.publish("work.x", b"%d" % n) for n in range(3)])
    started = len(told)
    await until(lambda: len(told) >= started + 5, "two rounds")
    seen = [one.messages for one in told[-4:]]
    halves = [((1, b"0"), (2, b"1")), ((3, b"2"),)]
    assert seen in (halves * 2, [*halves[1:], *halves, *halves[:1]])
    await jetstream.delete_message(streams.WORK, 2)
    await until(lambda: told[-1].messages == ((1, b"0"), (3, b"2")), "a round without it")
    walk.cancel()
    await asyncio.wait([walk])
    publisher.close()
