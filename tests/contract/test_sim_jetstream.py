"""The simulation's JetStream does what a nats-server does: the same scripts, run against both.

A script asks and notes what it hears; the streams and the consumer are those of the product, but
for a shorter ack wait.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import pytest
from nats_server import until
from sim.jetstream import Delivered, PullExpired, Record, Refused
from sim.jetstream import JetStream as Model

from lender.link.api import JetStream, answer
from lender.link.batch import Record as LinkRecord
from lender.link.batch import SubjectTakenError, WrongLastSequenceError, commit
from lender.link.connection import Connection
from lender.link.errors import JetStreamError
from lender.link.puller import Delivery, PullEnded, Puller
from lender.protocol import streams, subjects

CLASS = "default_wasm_any_none_U_render"
WORK_SUBJECT = subjects.work(CLASS)
ACK_WAIT_S = 1.0
CONSUMER = {**streams.consumer_config(CLASS), "ack_wait": int(ACK_WAIT_S * 1e9)}
CONFIGS = (*streams.stream_configs(), streams.leader_config())
NO_DELIVERY = f"$JS.ACK.{streams.WORK}.{CLASS}.1.999999.999999.0.0"
MOMENT_S = 0.25
"""Within it a server does what it does at once."""


class Port(Protocol):
    """What a script may ask; `got` and `ended` are what its pulls have brought so far."""

    got: list[tuple[bytes, int, int]]
    ended: list[str]

    async def store(self, stream: str, *records: Record, last: int | None = None) -> int: ...
    async def swap(self, record: Record, last: int) -> int: ...
    async def delete(self, stream: str, sequence: int) -> bool: ...
    async def last(self, stream: str, subject: str) -> tuple[int, bytes] | None: ...
    async def page(self, stream: str, sequence: int, count: int) -> list[tuple[int, str]]: ...
    async def pull(self, batch: int, expires_s: float = 20.0, consumer: str = CLASS) -> None: ...
    async def ack(self, delivery: int) -> None: ...
    async def nak(self, delivery: int, delay_s: float = 0.0) -> None: ...
    async def in_progress(self, delivery: int) -> None: ...
    async def until_got(self, count: int) -> None: ...
    async def until_ended(self, count: int) -> None: ...
    async def wait(self, duration_s: float) -> None: ...


Script = Callable[[Port], Awaitable[list[object]]]


class ModelPort:
    """The simulation's model, with a clock of its own."""

    def __init__(self) -> None:
        self.js = Model(CONFIGS, streams.WORK)
        self.js.ensure_consumer(CONSUMER)
        self.now = 0.0
        self.got: list[tuple[bytes, int, int]] = []
        self.ended: list[str] = []
        self._left: dict[int, int] = {}

    async def store(self, stream: str, *records: Record, last: int | None = None) -> int:
        return self._number(self.js.publish(stream, records, last))

    async def swap(self, record: Record, last: int) -> int:
        return self._number(self.js.publish(streams.LEADER, [record], None, last))

    async def delete(self, stream: str, sequence: int) -> bool:
        return self.js.delete(stream, sequence)

    async def last(self, stream: str, subject: str) -> tuple[int, bytes] | None:
        found = self.js.streams[stream].get_last(subject)
        return None if found is None else (found.sequence, found.payload)

    async def page(self, stream: str, sequence: int, count: int) -> list[tuple[int, str]]:
        found = self.js.streams[stream].page(sequence, count)
        return [(one.sequence, one.subject) for one in found]

    async def pull(self, batch: int, expires_s: float = 20.0, consumer: str = CLASS) -> None:
        number = len(self._left) + 1
        self._left[number] = batch
        if not self.js.pull(self.now, consumer, number, batch, expires_s):
            self.ended.append("no consumer")
        self._advance()

    async def ack(self, delivery: int) -> None:
        self.js.ack(CLASS, self.got[delivery][1])
        self._advance()

    async def nak(self, delivery: int, delay_s: float = 0.0) -> None:
        self.js.nak(self.now, CLASS, self.got[delivery][1], delay_s)
        self._advance()

    async def in_progress(self, delivery: int) -> None:
        self.js.in_progress(self.now, CLASS, self.got[delivery][1])
        self._advance()

    async def until_got(self, count: int) -> None:
        while len(self.got) < count:
            await self.wait(self.js.next_deadline() - self.now)

    async def until_ended(self, count: int) -> None:
        while len(self.ended) < count:
            await self.wait(self.js.next_deadline() - self.now)

    async def wait(self, duration_s: float) -> None:
        end = self.now + duration_s
        while self.js.next_deadline() <= end:
            self.now = self.js.next_deadline()
            self._advance()
        self.now = end

    def _number(self, stored: object) -> int:
        self._advance()
        return -stored.err_code if isinstance(stored, Refused) else stored.sequence

    def _advance(self) -> None:
        for sent in self.js.advance(self.now):
            match sent:
                case Delivered():
                    message = sent.message
                    self.got.append((message.payload, message.sequence, sent.count))
                    self._left[sent.pull] -= 1
                    if not self._left[sent.pull]:
                        self.ended.append("complete")
                case PullExpired():
                    self.ended.append("expired")


class ServerPort:
    """A real nats-server."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.js = JetStream(connection)
        self.got: list[tuple[bytes, int, int]] = []
        self.ended: list[str] = []
        self._deliveries: list[Delivery] = []
        self._pullers: list[Puller] = []

    async def start(self) -> None:
        for config in CONFIGS:
            await self.js.ensure_stream(config)
        await self.js.ensure_consumer(streams.WORK, CONSUMER)

    async def store(self, _stream: str, *records: Record, last: int | None = None) -> int:
        try:
            if last is not None:
                batch = [LinkRecord(one.subject, one.payload) for one in records]
                return await commit(self.connection, batch, last)
            (record,) = records
            return await self._publish(record, {})
        except WrongLastSequenceError:
            return -10071
        except SubjectTakenError:
            return -10077

    async def swap(self, record: Record, last: int) -> int:
        return await self._publish(record, {"Nats-Expected-Last-Subject-Sequence": str(last)})

    async def _publish(self, record: Record, headers: dict[str, str]) -> int:
        msg = await self.connection.request(record.subject, record.payload, headers)
        try:
            return int(answer(msg)["seq"])
        except JetStreamError as error:
            return -error.err_code

    async def delete(self, stream: str, sequence: int) -> bool:
        return await self.js.delete_message(stream, sequence)

    async def last(self, stream: str, subject: str) -> tuple[int, bytes] | None:
        found = await self.js.get_last(stream, subject)
        return None if found is None else (found.sequence, found.payload)

    async def page(self, stream: str, sequence: int, count: int) -> list[tuple[int, str]]:
        found = await self.js.get_page(stream, sequence, count)
        return [(one.sequence, one.subject) for one in found.messages]

    async def pull(self, batch: int, expires_s: float = 20.0, consumer: str = CLASS) -> None:
        puller = Puller(self.connection, streams.WORK, consumer, self._on_delivery, self._on_end)
        self._pullers.append(puller)
        await puller.pull(batch, expires_s)
        await self.connection.nc.flush()

    def _on_delivery(self, delivery: Delivery) -> None:
        self._deliveries.append(delivery)
        self.got.append((delivery.payload, delivery.sequence, delivery.num_delivered))

    def _on_end(self, end: PullEnded) -> None:
        self.ended.append(end.reason.value)

    async def ack(self, delivery: int) -> None:
        await self._deliveries[delivery].ack()
        await self._until_taken_up()

    async def nak(self, delivery: int, delay_s: float = 0.0) -> None:
        await self._deliveries[delivery].nak(delay_s)
        await self._until_taken_up()

    async def in_progress(self, delivery: int) -> None:
        await self._deliveries[delivery].in_progress()
        await self._until_taken_up()

    async def _until_taken_up(self) -> None:
        """What is said of deliveries waits in a queue of its own, in order: ask behind it."""
        await self.connection.request(NO_DELIVERY, b"+WPI")

    async def until_got(self, count: int) -> None:
        await until(lambda: len(self.got) >= count)

    async def until_ended(self, count: int) -> None:
        await until(lambda: len(self.ended) >= count)

    async def wait(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)


def record(subject: str, payload: bytes = b"") -> Record:
    return Record(subject, payload)


async def feed(port: Port, *payloads: bytes) -> list[int]:
    return [await port.store(streams.WORK, record(WORK_SUBJECT, one)) for one in payloads]


async def one_message_per_subject(port: Port) -> list[object]:
    one, other = record("submit.S.job-1", b"one"), record("submit.S.job-1", b"other")
    return [
        await port.last(streams.JOBS, one.subject),
        await port.store(streams.JOBS, one),
        await port.store(streams.JOBS, other),
        await port.store(streams.JOBS, one),
        await port.store(streams.JOBS, record("cancel.S.job-1")),
        await port.last(streams.JOBS, one.subject),
        await port.page(streams.JOBS, 1, 10),
        await port.page(streams.JOBS, 2, 1),
        await port.page(streams.JOBS, 3, 10),
        await port.delete(streams.JOBS, 1),
        await port.delete(streams.JOBS, 1),
        await port.delete(streams.JOBS, 99),
        await port.last(streams.JOBS, one.subject),
        await port.store(streams.JOBS, other),
        await port.last(streams.JOBS, one.subject),
        await port.page(streams.JOBS, 1, 10),
    ]


async def commits(port: Port) -> list[object]:
    a, b, c, d = (record(f"res.S.job-1.{number}", b"v") for number in range(4))
    return [
        await port.store(streams.RESULTS, a, b, last=0),
        await port.store(streams.RESULTS, c, last=1),
        await port.store(streams.RESULTS, c, d, last=1),
        await port.store(streams.RESULTS, c, d, last=9),
        await port.store(streams.RESULTS, a, last=2),
        await port.store(streams.RESULTS, c, a, d, last=2),
        await port.store(streams.RESULTS, c, d, c, last=2),
        await port.store(streams.RESULTS, a, last=0),  # two reasons to refuse it
        await port.store(streams.RESULTS, a, c, last=0),
        await port.page(streams.RESULTS, 1, 10),
        await port.store(streams.RESULTS, c, last=2),
        await port.store(streams.RESULTS, d, last=3),
        await port.last(streams.RESULTS, d.subject),
    ]


async def the_leadership_key(port: Port) -> list[object]:
    mine, theirs = (record(subjects.LEADERSHIP_KEY, one) for one in (b"mine", b"theirs"))
    return [
        await port.swap(mine, 1),
        await port.swap(mine, 0),
        await port.swap(theirs, 0),
        await port.swap(theirs, 1),
        await port.last(streams.LEADER, subjects.LEADERSHIP_KEY),
        await port.swap(mine, 1),
        await port.page(streams.LEADER, 1, 10),
    ]


async def deliveries(port: Port) -> list[object]:
    fed = await feed(port, b"a", b"b", b"c")
    await port.pull(2)
    await port.until_ended(1)
    await port.ack(0)
    await port.wait(MOMENT_S)
    seen: list[object] = [fed, list(port.got), await port.page(streams.WORK, 1, 10)]
    await port.pull(5)
    await port.until_got(3)
    seen += [list(port.got), await port.delete(streams.WORK, 2)]
    await port.ack(1)  # it is not there any more
    await port.nak(1)
    await feed(port, b"d")
    await port.until_got(4)
    await port.wait(MOMENT_S)
    return [*seen, list(port.got), list(port.ended), await port.page(streams.WORK, 1, 10)]


async def a_pull_ends_when_its_time_is_up(port: Port) -> list[object]:
    await port.pull(3, 0.8)
    await feed(port, b"a")
    await port.until_got(1)
    await port.ack(0)
    await port.until_ended(1)
    await feed(port, b"b")
    await port.wait(MOMENT_S)
    await port.pull(1, consumer="absent")
    await port.until_ended(2)
    return [list(port.got), list(port.ended)]


async def the_ack_wait(port: Port) -> list[object]:
    await feed(port, b"a", b"b")
    await port.pull(5)
    await port.until_got(2)
    await port.ack(1)
    await port.until_got(3)  # the other is given again
    await port.ack(0)  # by whom it was given to first
    await port.wait(MOMENT_S)
    return [list(port.got), await port.page(streams.WORK, 1, 10)]


async def an_ack_after_the_ack_wait(port: Port) -> list[object]:
    await feed(port, b"a")
    await port.pull(1)
    await port.until_got(1)
    await port.wait(ACK_WAIT_S + 2 * MOMENT_S)
    await port.ack(0)
    await port.wait(MOMENT_S)
    await port.pull(1)
    await feed(port, b"b")
    await port.until_got(2)
    return [list(port.got), await port.page(streams.WORK, 1, 10)]


async def work_in_progress(port: Port) -> list[object]:
    await feed(port, b"a")
    await port.pull(5)
    await port.until_got(1)
    for _ in range(3):
        await port.wait(0.6 * ACK_WAIT_S)
        await port.in_progress(0)
    seen = len(port.got)
    await port.until_got(2)
    return [seen, list(port.got)]


async def handed_back(port: Port) -> list[object]:
    await feed(port, b"a", b"b", b"c")
    await port.pull(1)
    await port.until_got(1)
    await port.nak(0)
    await port.pull(2)
    await port.until_got(3)  # what was handed back comes before what is new
    await port.nak(1, 2 * MOMENT_S)
    await port.pull(3)
    await port.until_got(4)
    seen = list(port.got)
    await port.until_got(5)
    await port.ack(4)
    await port.nak(4)
    await port.wait(MOMENT_S)
    return [seen, list(port.got), await port.page(streams.WORK, 1, 10)]


SCRIPTS = (
    one_message_per_subject,
    commits,
    the_leadership_key,
    deliveries,
    a_pull_ends_when_its_time_is_up,
    the_ack_wait,
    an_ack_after_the_ack_wait,
    work_in_progress,
    handed_back,
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.__name__))
async def test_the_model_does_what_the_server_does(script: Script, connection: Connection) -> None:
    server: Any = ServerPort(connection)
    await server.start()
    assert await script(ModelPort()) == await script(server)
