"""Reading a stream: everything once and in order, whatever happens to server, line or consumer."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from nats_server import until

from lender.link.api import JetStream, StreamState
from lender.link.connection import Connection, connect
from lender.link.embedded import EmbeddedServer
from lender.link.errors import JetStreamError, LinkError, NotConnectedError
from lender.link.message import StoredMessage, delivery_info
from lender.link.publisher import Publisher
from lender.link.reader import StreamReader, StreamRewoundError

STREAM = {"name": "S", "subjects": ["s.>"], "allow_direct": True}


@pytest.fixture(autouse=True)
async def js(connection: Connection) -> JetStream:
    js = JetStream(connection)
    await js.ensure_stream(STREAM)
    return js


class Collected:
    """Runs a reader in the background and keeps what it gives."""

    def __init__(self, reader: StreamReader) -> None:
        self.reader = reader
        self.messages: list[StoredMessage] = []
        self.caught_up_at: list[int] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for batch in self.reader:
            self.messages += batch.messages
            if batch.caught_up:
                self.caught_up_at.append(len(self.messages))

    @property
    def sequences(self) -> list[int]:
        return [message.sequence for message in self.messages]

    async def until(self, count: int) -> None:
        await until(lambda: len(self.messages) >= count or self.task.done(), 20)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.reader.close()


@pytest.fixture
async def collect() -> AsyncIterator[Callable[[StreamReader], Collected]]:
    running: list[Collected] = []

    def start(reader: StreamReader) -> Collected:
        running.append(Collected(reader))
        return running[-1]

    yield start
    for collected in running:
        await collected.stop()


Collect = Callable[[StreamReader], Collected]


async def fill(connection: Connection, count: int, subject: str = "s.a") -> None:
    publisher = Publisher(connection, in_flight_max=256, timeout_s=20)
    futures = [await publisher.publish(subject, b"%d" % n, {"N": str(n)}) for n in range(count)]
    await asyncio.gather(*futures)
    publisher.close()


async def test_replay_then_live_and_caught_up_once(
    connection: Connection, js: JetStream, collect: Collect
) -> None:
    await fill(connection, 50)
    got = collect(StreamReader(connection, "S", [], batch_max=8))
    await got.until(50)
    await until(lambda: got.caught_up_at)
    await fill(connection, 30)
    await got.until(80)
    assert got.sequences == list(range(1, 81))
    assert got.caught_up_at == [50]
    assert got.messages[7].payload == b"7"
    assert got.messages[7].headers == {"N": "7"}
    await got.stop()
    names = (await js.call("CONSUMER.NAMES.S"))["consumers"]
    assert not names


async def test_an_empty_stream_is_caught_up_at_once(
    connection: Connection, js: JetStream, collect: Collect
) -> None:
    assert (await js.stream_state("S")).messages == 0
    got = collect(StreamReader(connection, "S", []))
    await until(lambda: got.caught_up_at == [0])
    await fill(connection, 2)
    await got.until(2)
    assert got.caught_up_at == [0]


async def test_only_matching_subjects_from_the_sequence_wanted(
    connection: Connection, js: JetStream, collect: Collect
) -> None:
    for subject in ("s.a", "s.b", "s.c") * 4:
        await fill(connection, 1, subject)
    assert await js.delete_message("S", 7)
    got = collect(StreamReader(connection, "S", ["s.a", "s.b"], from_sequence=5))
    await until(lambda: got.caught_up_at)
    assert got.sequences == [5, 8, 10, 11]


async def test_a_stream_whose_end_is_gone_is_caught_up(
    connection: Connection, js: JetStream, collect: Collect
) -> None:
    await fill(connection, 5)
    for sequence in (3, 4, 5):
        assert await js.delete_message("S", sequence)
    got = collect(StreamReader(connection, "S", []))
    await until(lambda: got.caught_up_at == [2])


async def test_a_replica_that_is_behind_is_not_the_end(
    connection: Connection, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its consumer has nothing pending, while the stream's leader holds three more messages."""

    async def ahead_of_the_replica(_: JetStream, stream: str) -> StreamState:
        assert stream == "S"
        return StreamState(messages=5, bytes=5, first_sequence=1, last_sequence=5)

    async def not_here_yet(_: JetStream, stream: str, sequence: int, subject: str) -> int:
        asked.append((stream, sequence, subject))
        return sequence

    asked: list[tuple[str, int, str]] = []
    monkeypatch.setattr(JetStream, "stream_state", ahead_of_the_replica)
    monkeypatch.setattr(JetStream, "next_sequence", not_here_yet)
    await fill(connection, 2)
    got = collect(StreamReader(connection, "S", []))
    await until(lambda: ("S", 3, ">") in asked)
    assert got.caught_up_at == []
    await fill(connection, 2)
    await until(lambda: ("S", 5, ">") in asked)
    assert got.caught_up_at == []
    await fill(connection, 1)
    await until(lambda: got.caught_up_at)
    assert got.caught_up_at == [5]


async def test_nothing_is_lost_or_doubled_over_crashes_of_the_server(
    nats: EmbeddedServer, connection: Connection, collect: Collect
) -> None:
    await fill(connection, 3_000)
    got = collect(StreamReader(connection, "S", [], batch_max=100))
    for seen in (1, 1_000, 2_000):
        await got.until(seen)
        nats.kill()
        await nats.start()
    await got.until(3_000)
    nats.kill()  # and once more while it is live
    await nats.start()
    await until(lambda: connection.connected)
    await fill(connection, 10)
    await got.until(3_010)
    assert got.sequences == list(range(1, 3_011))
    assert got.caught_up_at == [3_000]


async def test_a_consumer_that_vanished_is_replaced(
    connection: Connection, js: JetStream, collect: Collect
) -> None:
    got = collect(StreamReader(connection, "S", [], heartbeat_s=0.2))
    await until(lambda: got.caught_up_at)
    for count in (5, 10):
        for name in (await js.call("CONSUMER.NAMES.S"))["consumers"]:
            assert await js.delete_consumer("S", name)
        await fill(connection, 5)
        await got.until(count)
    assert got.sequences == list(range(1, 11))


async def test_a_consumer_that_went_silent_is_replaced(
    connection: Connection, collect: Collect
) -> None:
    reader = StreamReader(connection, "S", [], heartbeat_s=0.1)
    got = collect(reader)
    await until(lambda: got.caught_up_at)
    assert reader._deliveries is not None
    reader._deliveries._handler = lambda _: None  # nothing reaches it any more
    await fill(connection, 3)
    await got.until(3)
    assert got.sequences == [1, 2, 3]


async def test_a_message_lost_on_the_way_is_read_again(
    connection: Connection, collect: Collect
) -> None:
    reader = StreamReader(connection, "S", [])
    got = collect(reader)
    await until(lambda: got.caught_up_at)
    assert reader._deliveries is not None
    receive = reader._receive
    reader._deliveries._handler = lambda msg: None if msg.data == b"1" else receive(msg)
    await fill(connection, 3)
    await got.until(3)
    assert got.sequences == [1, 2, 3]


async def test_pulls_that_run_out_are_renewed_without_haste(
    connection: Connection, collect: Collect
) -> None:
    got = collect(StreamReader(connection, "S", [], heartbeat_s=0.1))  # a pull lasts 1.2 s
    await until(lambda: got.caught_up_at)
    sent = connection.nc.stats["out_msgs"]
    await asyncio.sleep(2)
    assert connection.nc.stats["out_msgs"] - sent < 50
    await fill(connection, 1)
    await got.until(1)


async def test_a_stream_that_is_gone_or_rewound_ends_the_reading(
    connection: Connection, js: JetStream, collect: Collect
) -> None:
    with pytest.raises(JetStreamError, match="stream not found"):
        await anext(StreamReader(connection, "ABSENT", []))
    with pytest.raises(StreamRewoundError, match="ends at 0, but 4 was read"):
        await anext(StreamReader(connection, "S", [], from_sequence=5))
    got = collect(StreamReader(connection, "S", [], heartbeat_s=0.3))
    await until(lambda: got.caught_up_at)
    await js.call("STREAM.DELETE.S")
    await until(got.task.done)
    assert isinstance(got.task.exception(), JetStreamError)


async def test_closing_the_connection_ends_the_reading(
    nats: EmbeddedServer, collect: Collect
) -> None:
    other = await connect(nats.url, name="t", timeout_s=5)
    got = collect(StreamReader(other, "S", []))
    await until(lambda: got.caught_up_at)
    await other.close()
    await until(got.task.done)
    assert isinstance(got.task.exception(), NotConnectedError)


async def test_hostile_bytes_neither_stop_nor_fool_the_reader(
    nats: EmbeddedServer, connection: Connection, js: JetStream, collect: Collect
) -> None:
    """A publisher without our client can store what nats-py could not even parse."""
    reader, writer = await asyncio.open_connection("127.0.0.1", nats.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\nPUB s.\xff\xfe 1\r\nx\r\n')
    blocks = [
        b"NATS/1.0 \xff\xff\xff\r\n\r\n",
        b"NATS/1.0 409 \xff\r\nA: b\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0\r\nStatus: 409\r\nDescription: Consumer Deleted\r\n\r\n",
        b"NATS/1.0\r\nA: \xff\r\n\xff: b\r\n\r\n",
        b"NATS/1.0\r\nNats-Subject: s.fake\r\nNats-Sequence: 99\r\nStatus: 503\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        b"NATS/1.0",
        b"x",
    ]
    for block in blocks:
        writer.write(b"HPUB s.h %d %d\r\n%s\r\n" % (len(block), len(block), block))
    writer.write(b"PING\r\n")
    await reader.readuntil(b"PONG\r\n")
    writer.close()
    await writer.wait_closed()
    await fill(connection, 1)
    total = len(blocks) + 2
    assert (await js.stream_state("S")).messages == total
    got = collect(StreamReader(connection, "S", []))
    await got.until(total)
    assert got.sequences == list(range(1, total + 1))
    assert got.messages[0].subject == "s.\ufffd\ufffd"
    page = await js.get_page("S", 1, total)
    assert [m.sequence for m in page.messages] == list(range(1, total + 1))
    spoofed = await js.get_page("S", 7, 1)
    assert spoofed.messages[0].subject == "s.h"
    assert connection.connected


def test_both_forms_of_an_acknowledgement_subject_are_read() -> None:
    short = "$JS.ACK.S.c.2.30.4.1700000000000000000.5"
    long = "$JS.ACK.domain.account.S.c.2.30.4.1700000000000000000.5.random"
    assert delivery_info(short) == delivery_info(long) == (2, 30, 4, 5)


async def test_closing_over_a_broken_line_does_not_hang(
    nats: EmbeddedServer, connection: Connection
) -> None:
    reader = StreamReader(connection, "S", [])
    assert (await anext(reader)).caught_up
    nats.kill()
    async with asyncio.timeout(3):
        try:
            await reader.close()
        except LinkError:
            pytest.fail("close tells nothing that its caller could use")


async def test_headers_alone_are_read_where_that_is_enough(
    connection: Connection, collect: Callable[[StreamReader], Collected]
) -> None:
    publisher = Publisher(connection)
    await (await publisher.publish("s.a", b"x" * 1000, {"N": "1"}))
    publisher.close()
    collected = collect(StreamReader(connection, "S", [], headers_only=True))
    await collected.until(1)
    (message,) = collected.messages
    assert (message.payload, message.headers["N"]) == (b"", "1")


async def test_what_is_no_delivery_does_no_harm(connection: Connection, collect: Collect) -> None:
    await fill(connection, 3)
    got = collect(StreamReader(connection, "S", []))
    await got.until(3)
    deliveries = got.reader._deliveries
    assert deliveries is not None
    await connection.publish(deliveries.subject, b"forged", reply="no.word.of.a.consumer")
    await fill(connection, 2)
    await got.until(5)
    assert got.sequences == [1, 2, 3, 4, 5]
