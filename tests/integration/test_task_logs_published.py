"""A lender's side of a log on a real server: who listens gets it, where nobody does it is cheap."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from core_world import ALICE, LENDER, lease_id, make_lease, make_spec
from nats.aio.msg import Msg
from nats_server import until

from lender.daemon.log_queues import ANSWER_S, ASK_AGAIN_S
from lender.daemon.task_logs import TaskLogs
from lender.link.connection import Connection, connect
from lender.link.embedded import EmbeddedServer
from lender.protocol import codec, subjects
from lender.protocol.codec import JSON
from lender.protocol.task_log import TaskLogPiece

SPEC = make_spec()
LEASE = lease_id(1)


class Bench:
    """The logs of a lender whose clock a test moves."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.now = 0.0
        self.logs = TaskLogs(LENDER, lambda: self.now)
        self.logs.open(make_lease(SPEC))
        self.running = asyncio.create_task(self.logs.run(connection))

    @property
    def sent(self) -> int:
        return int(self.connection.nc.stats["out_msgs"])

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.logs.go_on(LEASE)

    async def until_unheard(self) -> None:
        queue = self.logs._queues._queues[LEASE]
        await until(lambda: not queue.audience.asked and queue.audience.ready_at > self.now)


class Listener:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.messages: list[Msg] = []

    async def start(self) -> None:
        subject = subjects.task_log_filter(ALICE.public_key, SPEC.id)
        await self.connection.nc.subscribe(subject, cb=self._hear)
        for _ in range(2):  # nats-py's first PING may overtake what is still to be sent
            await self.connection.nc.flush()

    async def _hear(self, msg: Msg) -> None:
        self.messages.append(msg)

    @property
    def text(self) -> bytes:
        return b"".join(codec.decode(TaskLogPiece, one.data).content for one in self.messages)


@pytest.fixture
async def bench(connection: Connection) -> AsyncIterator[Bench]:
    one = Bench(connection)
    yield one
    one.running.cancel()
    await asyncio.wait([one.running])


@pytest.fixture
async def listener(nats: EmbeddedServer) -> AsyncIterator[Listener]:
    async with await connect(nats.url, name="listener", timeout_s=10) as connection:
        yield Listener(connection)


async def test_who_listens_gets_the_first_line_at_once(bench: Bench, listener: Listener) -> None:
    await listener.start()
    bench.logs.write(LEASE, 0, b"one\n")
    await until(lambda: listener.text == b"one\n")
    bench.logs.write(LEASE, 0, b"two\n")
    bench.pass_time(ANSWER_S)
    await until(lambda: listener.text == b"one\ntwo\n")
    assert {one.subject for one in listener.messages} == {
        subjects.task_log(ALICE.public_key, SPEC.id, LENDER)
    }


async def test_where_nobody_listens_a_message_a_second_is_all(
    bench: Bench, connection: Connection
) -> None:
    before = bench.sent
    bench.logs.write(LEASE, 0, b"a line\n")
    await bench.until_unheard()
    for _ in range(2):
        for _ in range(200):
            bench.logs.write(LEASE, 0, b"a line\n")
            await asyncio.sleep(0)
        await connection.nc.flush()
        bench.pass_time(ASK_AGAIN_S)
        await bench.until_unheard()
    assert bench.sent - before == 3


async def test_who_comes_late_gets_what_nobody_has_read(bench: Bench, listener: Listener) -> None:
    for line in (b"one\n", b"two\n"):
        bench.logs.write(LEASE, 0, line)
    await bench.until_unheard()
    await listener.start()
    bench.pass_time(ASK_AGAIN_S)
    await until(lambda: listener.text == b"one\n")
    bench.pass_time(ANSWER_S)
    await until(lambda: listener.text == b"one\ntwo\n")


async def test_nothing_goes_out_of_what_stands_still_or_was_closed(
    bench: Bench, listener: Listener
) -> None:
    await listener.start()
    bench.logs.halt(LEASE)
    bench.logs.write(LEASE, 0, b"held\n")
    other = make_lease(SPEC, 2)
    bench.logs.open(other)
    bench.logs.write(other.lease, 1, b"other\n")
    await until(lambda: listener.text == b"other\n")
    bench.logs.go_on(LEASE)
    bench.pass_time(ANSWER_S)
    await until(lambda: listener.text == b"other\nheld\n")
    bench.logs.close(LEASE)
    bench.logs.write(LEASE, 0, b"late\n")
    bench.logs.write(other.lease, 1, b"end\n")
    await until(lambda: listener.text.endswith(b"end\n"))
    assert b"late" not in listener.text


async def test_a_line_that_breaks_holds_up_nobody(
    bench: Bench, listener: Listener, nats: EmbeddedServer
) -> None:
    await listener.start()
    bench.logs.write(LEASE, 0, b"one\n")
    await until(lambda: listener.text == b"one\n")
    bench.pass_time(ANSWER_S)
    nats.kill()
    await until(lambda: not bench.connection.connected)
    for number in range(1000):
        bench.logs.write(LEASE, 0, b"%d\n" % number)
    await nats.start()
    await until(lambda: bench.connection.connected and listener.connection.connected, 20)
    # A piece that goes out before the listener is back may be lost, and with it what it says.
    await listener.connection.nc.flush()

    def ended() -> bool:
        bench.pass_time(ASK_AGAIN_S)
        return listener.text.endswith(b"999\n")

    await until(ended, 20)
    pieces = [codec.decode(TaskLogPiece, one.data) for one in listener.messages]
    seen, missed = 0, 0
    for piece in pieces:
        missed += piece.offset_bytes - seen
        seen = piece.offset_bytes + len(piece.content)
    assert missed >= sum(piece.left_out_bytes for piece in pieces) > 0


async def test_the_specifications_content_type_is_the_logs(
    bench: Bench, listener: Listener
) -> None:
    await listener.start()
    lease = make_lease(SPEC, 2, content_type=JSON)
    bench.logs.open(lease)
    bench.logs.write(lease.lease, 0, b"\xff\n")
    await until(lambda: listener.messages)
    (msg,) = listener.messages
    assert (msg.headers or {})[codec.CONTENT_TYPE_HEADER] == JSON
    assert codec.decode(TaskLogPiece, msg.data, JSON).content == b"\xff\n"


async def test_who_listens_does_not_learn_where_the_brokers_answers_come(
    bench: Bench, listener: Listener
) -> None:
    await listener.start()
    bench.logs.write(LEASE, 0, b"one\n")
    await until(lambda: listener.messages)
    (msg,) = listener.messages
    assert msg.reply.startswith(f"_INBOX_{LENDER}.log.")
    assert bench.connection.inbox.id not in msg.reply
    assert LEASE not in msg.reply
    assert LEASE.encode() not in msg.data
