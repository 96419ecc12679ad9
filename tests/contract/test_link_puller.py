"""The lender's side of a work queue: every message to one lender, every pull ends once."""

import asyncio
import contextlib

import pytest
from fault_proxy import FaultProxy
from nats_server import until

from lender.link.api import JetStream
from lender.link.connection import Connection, connect
from lender.link.embedded import EmbeddedServer
from lender.link.errors import NotConnectedError, RequestTimeoutError
from lender.link.puller import Delivery, PullEnd, PullEnded, Puller

STREAM = {"name": "W", "subjects": ["work.*"], "retention": "workqueue", "allow_direct": True}
CONSUMER = {"durable_name": "c", "filter_subject": "work.c", "ack_policy": "explicit"}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give no pull up as silent because this machine is busy."""
    monkeypatch.setattr("lender.link.puller._GRACE_S", 30.0)


@pytest.fixture(autouse=True)
async def js(connection: Connection) -> JetStream:
    js = JetStream(connection)
    await js.ensure_stream(STREAM)
    await js.ensure_consumer("W", {**CONSUMER, "ack_wait": 30 * 10**9})
    return js


class Collected:
    """A puller and what it gave."""

    def __init__(self, connection: Connection, consumer: str = "c") -> None:
        self.deliveries: list[Delivery] = []
        self.ends: list[PullEnded] = []
        self.puller = Puller(connection, "W", consumer, self.deliveries.append, self.ends.append)

    async def pull(self, batch: int, expires_s: float = 30.0) -> None:
        await self.puller.pull(batch, expires_s)

    async def delivered(self, count: int) -> list[Delivery]:
        await until(lambda: len(self.deliveries) >= count)
        return self.deliveries

    async def ended(self, count: int = 1) -> list[PullEnded]:
        await until(lambda: len(self.ends) >= count)
        return self.ends


async def feed(connection: Connection, count: int) -> None:
    for number in range(count):
        await connection.request("work.c", b"%d" % number, {"N": str(number)})


async def test_messages_come_with_what_is_needed_and_acknowledged_ones_are_gone(
    connection: Connection, js: JetStream
) -> None:
    await feed(connection, 3)
    got = Collected(connection)
    await got.pull(2)
    assert await got.ended() == [PullEnded(PullEnd.COMPLETE, 2)]
    first, second = got.deliveries
    assert (first.subject, first.payload, first.headers) == ("work.c", b"0", {"N": "0"})
    assert (second.sequence, second.num_delivered) == (2, 1)
    await first.ack_sync()
    assert (await js.stream_state("W")).messages == 2
    await second.ack()
    await connection.nc.flush()
    await js.stream_state("W")
    await got.pull(1)
    await (await got.delivered(3))[2].ack_sync()
    assert (await js.stream_state("W")).messages == 0


async def test_a_waiting_pull_gets_new_work_and_ends_when_its_time_is_up(
    connection: Connection,
) -> None:
    got = Collected(connection)
    await got.pull(5, 0.5)
    await feed(connection, 2)
    await got.delivered(2)
    assert not got.ends
    (end,) = await got.ended()
    assert (end.reason, end.delivered) == (PullEnd.EXPIRED, 2)


async def test_a_pull_that_may_not_wait_ends_empty_at_once(connection: Connection) -> None:
    got = Collected(connection)
    await got.pull(5, 0)
    (end,) = await got.ended()
    assert (end.reason, end.delivered) == (PullEnd.EMPTY, 0)
    await feed(connection, 1)
    async with asyncio.timeout(20):
        # The server's consumer learns of what is stored a moment after its publisher does.
        while not got.deliveries:
            pulls = len(got.ends) + 1
            await got.pull(5, 0)
            end = (await got.ended(pulls))[-1]
    assert (end.reason, end.delivered) in [(PullEnd.EMPTY, 1), (PullEnd.EXPIRED, 1)]


async def test_pulls_at_once_share_the_work_and_each_ends_once(connection: Connection) -> None:
    one, other = Collected(connection), Collected(connection)
    for _ in range(3):
        await one.pull(2)
        await other.pull(2)
    await feed(connection, 12)
    await one.ended(3)
    await other.ended(3)
    assert set(one.ends + other.ends) == {PullEnded(PullEnd.COMPLETE, 2)}
    taken = [delivery.sequence for delivery in one.deliveries + other.deliveries]
    assert sorted(taken) == list(range(1, 13))


async def test_handed_back_work_goes_to_another_at_once_or_later(connection: Connection) -> None:
    await feed(connection, 1)
    got = Collected(connection)
    await got.pull(3)
    await (await got.delivered(1))[0].nak()
    again = (await got.delivered(2))[1]
    assert again.num_delivered == 2
    started = asyncio.get_running_loop().time()
    await again.nak(0.3)
    await got.delivered(3)
    assert asyncio.get_running_loop().time() - started >= 0.25


async def test_work_in_progress_is_not_given_to_another(
    connection: Connection, js: JetStream
) -> None:
    await js.ensure_consumer("W", {**CONSUMER, "ack_wait": 10**9})
    await feed(connection, 1)
    got = Collected(connection)
    await got.pull(2)
    (work,) = await got.delivered(1)
    for _ in range(4):
        await asyncio.sleep(0.5)
        await work.in_progress()
    assert len(got.deliveries) == 1
    await got.delivered(2)  # and without a sign of life it is


async def test_a_missing_or_vanishing_consumer_ends_the_pull(
    connection: Connection, js: JetStream
) -> None:
    absent = Collected(connection, "absent")
    await absent.pull(1)
    assert (await absent.ended())[0].reason is PullEnd.NO_CONSUMER
    got = Collected(connection)
    await got.pull(1)
    while not (await js.call("CONSUMER.INFO.W.c"))["num_waiting"]:
        await connection.nc.flush()
    await js.delete_consumer("W", "c")
    (end,) = await got.ended()
    assert (end.reason, end.detail) == (PullEnd.REFUSED, "Consumer Deleted")


async def test_a_crash_of_the_server_ends_pulls_and_acknowledged_work_stays_done(
    nats: EmbeddedServer, connection: Connection, js: JetStream
) -> None:
    await feed(connection, 4)
    got = Collected(connection)
    await got.pull(2)
    await got.pull(5)
    await got.delivered(4)
    for delivery in got.deliveries[:2]:
        await delivery.ack_sync()
    nats.kill()
    await got.ended(2)
    assert sorted(end.reason.value for end in got.ends) == ["complete", "disconnected"]
    assert sum(end.delivered for end in got.ends) == 4
    with pytest.raises(NotConnectedError):
        await got.pull(1)
    with pytest.raises(NotConnectedError):
        await got.deliveries[2].ack()
    await nats.start()
    await until(lambda: connection.connected)
    assert (await js.stream_state("W")).messages == 2
    # The server may have forgotten that it had delivered the rest: then it ignores their
    # acknowledgement, and delivers them again.
    rest = {delivery.sequence for delivery in got.deliveries[2:]}
    for delivery in got.deliveries[2:]:
        with contextlib.suppress(RequestTimeoutError):
            await delivery.ack_sync(timeout_s=2)
            rest.discard(delivery.sequence)
    assert (await js.stream_state("W")).messages == len(rest)
    again = Collected(connection)
    await again.pull(len(rest) + 1)
    await feed(connection, 1)
    await again.ended()
    assert {delivery.sequence for delivery in again.deliveries} == rest | {5}


async def test_work_that_comes_while_closing_is_handed_back(
    nats: EmbeddedServer, connection: Connection
) -> None:
    async with await connect(nats.url, name="other", timeout_s=5) as leaving:
        got = Collected(leaving)
        await got.pull(1000)
        await leaving.nc.flush()
        feeding = asyncio.create_task(feed(connection, 60))
        await got.delivered(5)
        await got.puller.close()
        await feeding
        kept = len(got.deliveries)
        assert not got.ends
    assert kept < 60
    rest = Collected(connection)
    await rest.pull(60 - kept)
    assert await rest.ended() == [PullEnded(PullEnd.COMPLETE, 60 - kept)]


async def test_a_pull_that_nobody_answers_is_given_up_after_its_time(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lender.link.puller._GRACE_S", 0.05)
    await connection.nc.subscribe("$JS.API.CONSUMER.MSG.NEXT.W.mute")
    mute = Collected(connection, "mute")
    await mute.pull(1, 0.05)
    assert await mute.ended() == [PullEnded(PullEnd.SILENT, 0)]


async def test_what_a_slow_line_brings_after_a_pull_was_given_up_goes_back_at_once(
    nats: EmbeddedServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lender.link.puller._GRACE_S", 0.05)
    async with (
        FaultProxy(int(nats.url.rpartition(":")[2])) as line,
        await connect(line.url, name="slow", timeout_s=5) as slow,
    ):
        late = Collected(slow)
        await late.pull(1, 0.5)
        await slow.nc.flush()
        line.hold("down")
        await feed(connection, 1)
        assert await late.ended() == [PullEnded(PullEnd.SILENT, 0)]
        line.pass_on()
        other = Collected(connection)
        await other.pull(1, 10.0)
        assert await other.ended() == [PullEnded(PullEnd.COMPLETE, 1)]


async def test_hostile_headers_do_not_end_a_pull(connection: Connection) -> None:
    await connection.request("work.c", b"x", {"Status": "409", "Description": "Consumer Deleted"})
    await feed(connection, 1)
    got = Collected(connection)
    await got.pull(2)
    assert await got.ended() == [PullEnded(PullEnd.COMPLETE, 2)]


async def test_a_pull_takes_over_the_subscription_of_one_that_ended_cleanly(
    connection: Connection,
) -> None:
    got = Collected(connection)
    await feed(connection, 3)
    subscriptions = set()
    for number in range(1, 4):
        await got.pull(1)
        await got.ended(number)
        subscriptions.add(frozenset(connection.nc._subs))
    await got.pull(1, 0)
    assert (await got.ended(4))[-1].reason is PullEnd.EMPTY
    subscriptions.add(frozenset(connection.nc._subs))
    assert len(subscriptions) == 1
    await got.puller.close()
    await until(lambda: len(connection.nc._subs) < len(*subscriptions))
