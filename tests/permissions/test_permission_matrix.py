"""Everybody tries everything on a real server: it lets pass what the table says, and no more."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from nats.aio.msg import Msg
from nats_server import until

from broker.core.endpoints import Endpoints
from broker.deployment.tokens import Key, encode
from broker.service.discovery import Discovery
from lender.link.api import JetStream
from lender.link.connection import ConnectError, Connection, connect
from lender.link.credentials import credentials
from lender.link.embedded import EmbeddedServer
from lender.link.errors import LinkError
from lender.link.puller import Delivery, PullEnded, Puller
from lender.protocol import streams, subjects
from lender.protocol.permissions import permits
from permissions.people import (
    BOUND_LENDER,
    BROKER,
    CLASS,
    JOB,
    LENDER,
    OBSERVER,
    OTHER_CLASS,
    OTHER_LENDER,
    OTHER_SUBMITTER,
    PEOPLE,
    SUBMITTER,
    Deed,
    Person,
    class_of,
    tried,
)
from permissions.trial import NOW, Trial, trial

WITHIN_S = 0.5
"""For what is not to come."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Trial]:
    async with trial(tmp_path) as one:
        yield one


@pytest.mark.parametrize("deed", ["publish", "subscribe"])
@pytest.mark.parametrize("person", PEOPLE, ids=lambda one: one.name)
async def test_the_server_does_as_the_table_says(world: Trial, person: Person, deed: Deed) -> None:
    assert len(tried(deed)) > 100
    assert await world.differences(person, deed) == []


async def test_a_difference_would_show(world: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = subjects.submit(OTHER_SUBMITTER.key.public, "*")
    wider = {"publish": (*SUBMITTER.may("publish"), beyond), "subscribe": ()}
    monkeypatch.setattr(Person, "may", lambda _, deed: wider[deed])
    found = await world.differences(SUBMITTER, "publish")
    assert f"submitter may publish {beyond}" in found


class Queue:
    """A lender's pulls from one queue."""

    def __init__(self, connection: Connection, queue: str) -> None:
        self.delivered: list[Delivery] = []
        self.ends: list[PullEnded] = []
        self._puller = Puller(
            connection, streams.WORK, queue, self.delivered.append, self.ends.append
        )

    async def pull(self) -> None:
        await self._puller.pull(1, 0.2)
        await until(lambda: self.ends, 10)

    async def close(self) -> None:
        await self._puller.close()


async def _lease(broker: Connection, queue: str) -> None:
    """Put a lease into a queue."""
    await broker.request(subjects.work(queue), b"a lease")


async def _left(broker: Connection) -> int:
    """How many leases WORK holds."""
    return len((await JetStream(broker).get_page(streams.WORK, 1, 10)).messages)


async def test_a_lender_takes_and_ends_leases_of_its_classes_alone(world: Trial) -> None:
    async with (
        await world.connect(BROKER) as broker,
        await world.connect(LENDER) as lender,
        await world.connect(OTHER_LENDER) as other,
    ):
        await _lease(broker, CLASS)
        denied = Queue(other, CLASS)
        await denied._puller.pull(1, 0.2)
        await until(lambda: "ermissions" in str(other.last_error))
        assert denied.delivered == []
        queue = Queue(lender, CLASS)
        await queue.pull()
        (delivery,) = queue.delivered
        # Another who knows how it is called neither ends nor prolongs it.
        with pytest.raises(LinkError):
            await other.request(delivery._ack_subject, b"+ACK", timeout_s=WITHIN_S)
        assert await _left(broker) == 1
        await delivery.in_progress()
        await delivery.ack_sync()
        assert await _left(broker) == 0
        await denied.close()
        await queue.close()


async def test_a_bound_lender_reaches_nothing_of_others(world: Trial) -> None:
    """Whatever its owner grants: see also the matrix, which has it try all that there is."""
    theirs = subjects.blob(OTHER_SUBMITTER.key.public, OTHER_SUBMITTER.key.public, "ab" * 32, 0)
    async with (
        await world.connect(BROKER) as broker,
        await world.connect(OTHER_SUBMITTER) as bob,
        await world.connect(BOUND_LENDER) as lender,
    ):
        await bob.request(theirs, b"a secret")
        for queue in (CLASS, OTHER_CLASS):
            await _lease(broker, queue)
        own, denied = Queue(lender, CLASS), Queue(lender, OTHER_CLASS)
        await own.pull()
        assert len(own.delivered) == 1
        await denied._puller.pull(1, 0.2)
        await until(lambda: "ermissions" in str(lender.last_error))
        assert denied.delivered == []
        for whose in (OTHER_SUBMITTER.key.public, "*"):
            call = f"$JS.API.DIRECT.GET.{streams.bucket(whose)}.{theirs}"
            with pytest.raises(LinkError):
                await lender.request(call, timeout_s=WITHIN_S)
        assert await _left(broker) == 2
        await denied.close()
        await own.close()


async def test_no_lease_is_ended_by_way_of_a_reply(world: Trial) -> None:
    async with (
        await world.connect(BROKER) as broker,
        await world.connect(LENDER) as lender,
        await world.connect(OTHER_LENDER) as mallory,
    ):
        await _lease(broker, CLASS)
        queue = Queue(lender, CLASS)
        await queue.pull()
        acknowledgement = queue.delivered[0]._ack_subject
        own = subjects.head(OTHER_LENDER.key.public)
        await mallory.request(own, b"+ACK")
        await mallory.publish(f"$JS.API.DIRECT.GET.HEADS.{own}", reply=acknowledgement)
        await until(lambda: "with reply of" in str(mallory.last_error))
        await asyncio.sleep(WITHIN_S)
        assert await _left(broker) == 1
        await queue.close()


async def test_a_lease_that_came_on_an_earlier_line_is_not_answered_for(world: Trial) -> None:
    """The permission belongs to the connection: see docs/decisions/0026 for what follows."""
    async with await world.connect(BROKER) as broker, await world.connect(LENDER) as lender:
        await _lease(broker, CLASS)
        queue = Queue(lender, CLASS)
        await queue.pull()
        async with await world.connect(LENDER) as again:
            with pytest.raises(LinkError):
                await again.request(queue.delivered[0]._ack_subject, b"+ACK", timeout_s=WITHIN_S)
        assert await _left(broker) == 1
        await queue.close()


async def test_a_token_may_name_many_classes_or_all(world: Trial) -> None:
    others = [f"class:{class_of(Key.make('user', bytes([100 + n] * 32)))}" for n in range(150)]
    many = LENDER._replace(name="many", tags=(*others, *LENDER.tags))
    every = LENDER._replace(name="every", tags=("class:*",))
    for person in (many, every):
        async with await world.connect(BROKER) as broker, await world.connect(person) as lender:
            await _lease(broker, CLASS)
            queue = Queue(lender, CLASS)
            await queue.pull()
            await queue.delivered[0].ack_sync()
            await queue.close()


async def test_what_a_lender_waited_for_that_is_gone_comes_to_another_at_once(
    world: Trial,
) -> None:
    """The server knows of a pull from another account whether anybody still waits for it."""
    twin = LENDER._replace(name="twin", key=Key.make("user", bytes([36] * 32)))
    async with await world.connect(BROKER) as broker, await world.connect(twin) as other:
        gone = await world.connect(LENDER)
        waiting = Queue(gone, CLASS)
        await waiting._puller.pull(1, 30)
        await gone.nc.flush()
        transport = gone.nc._transport
        assert transport is not None
        port = transport._io_writer.get_extra_info("sockname")[1]
        transport._io_writer.transport.abort()
        await gone.close()
        await until(lambda: port not in _callers(world.server), 25)
        queue = Queue(other, CLASS)
        await queue._puller.pull(1, 20)
        await _lease(broker, CLASS)
        await until(lambda: queue.delivered, 25)
        assert queue.delivered[0].num_delivered == 1, "it came to who is gone first"
        await queue.close()


def _callers(server: EmbeddedServer) -> set[int]:
    """The ports of those who are connected to it."""
    assert server.pid is not None
    return {one.raddr.port for one in psutil.Process(server.pid).net_connections() if one.raddr}


async def test_a_submitter_reads_results_of_its_own_alone(world: Trial) -> None:
    async with (
        await world.connect(BROKER) as broker,
        await world.connect(SUBMITTER) as submitter,
    ):
        for one in (SUBMITTER, OTHER_SUBMITTER):
            await broker.request(subjects.result(one.key.public, JOB), one.name.encode())
        own = subjects.result(SUBMITTER.key.public, JOB)
        mine = await JetStream(submitter).get_last(streams.RESULTS, own)
        assert mine is not None
        assert mine.payload == b"submitter"
        theirs = subjects.result(OTHER_SUBMITTER.key.public, JOB)
        for subject in (theirs, "res.*.*", "res.>"):
            with pytest.raises(LinkError):
                await JetStream(submitter, WITHIN_S).get_last(streams.RESULTS, subject)
        with pytest.raises(LinkError):
            await JetStream(submitter, WITHIN_S).get_page(streams.RESULTS, 1, 10)


BY_REPLY = [
    (streams.RESULTS, subjects.result(OTHER_SUBMITTER.key.public, JOB), BROKER),
    (streams.JOBS, subjects.submit(OTHER_SUBMITTER.key.public, JOB), OTHER_SUBMITTER),
    (streams.WORK, subjects.work(CLASS), BROKER),
    (streams.LEADER, subjects.LEADERSHIP_KEY, BROKER),
    (streams.HEADS, subjects.head(OTHER_LENDER.key.public), OTHER_LENDER),
]


def _own_piece(person: Person) -> str:
    """Where a submitter, or a lender for a submitter of its classes, may store something."""
    return subjects.blob(SUBMITTER.key.public, person.key.public, "ab" * 32, 0)


@pytest.mark.parametrize(
    ("stream", "subject", "reader"), BY_REPLY, ids=[one[0] for one in BY_REPLY]
)
@pytest.mark.parametrize("person", [SUBMITTER, LENDER], ids=lambda one: one.name)
async def test_no_stream_is_written_by_way_of_a_reply(
    world: Trial, person: Person, stream: str, subject: str, reader: Person
) -> None:
    """A server checks no reply subject: its answers, of bytes that the asker chose, go anywhere."""
    own = (
        subjects.submit(person.key.public, JOB)
        if person is SUBMITTER
        else subjects.head(person.key.public)
    )
    source = streams.JOBS if person is SUBMITTER else streams.HEADS

    async def stored() -> list[bytes]:
        if stream == streams.WORK:
            page = await JetStream(witness).get_page(stream, 1, 10, subject=subject)
            return [message.payload for message in page.messages]
        last = await JetStream(witness).get_last(stream, subject)
        return [last.payload] if last else []

    async with await world.connect(reader) as witness, await world.connect(person) as mallory:
        await mallory.request(own, b"forged")
        await mallory.publish(f"$JS.API.DIRECT.GET.{source}.{own}", reply=subject)
        await mallory.publish(_own_piece(person), b"forged", reply=subject)
        await mallory.nc.flush()
        await asyncio.sleep(WITHIN_S)
        assert await stored() == []


async def test_no_reply_reaches_another_role_or_goes_on_under_anothers_name(world: Trial) -> None:
    heard: list[str] = []

    async def hear(msg: object) -> None:
        heard.append(str(msg))

    async with (
        await world.connect(BROKER) as broker,
        await world.connect(LENDER) as lender,
        await world.connect(SUBMITTER) as submitter,
        await world.connect(OTHER_SUBMITTER) as mallory,
        await world.connect(OTHER_LENDER) as mallorys_machine,
    ):
        control = subjects.control(LENDER.key.public)
        event = subjects.event(SUBMITTER.key.public, JOB)
        await lender.nc.subscribe(control, cb=hear)
        await submitter.nc.subscribe(event, cb=hear)
        await lender.nc.flush()
        await submitter.nc.flush()
        own = subjects.submit(OTHER_SUBMITTER.key.public, JOB)
        await mallory.request(own, b"forged")
        await mallory.publish(f"$JS.API.DIRECT.GET.JOBS.{own}", reply=control)
        head = subjects.head(OTHER_LENDER.key.public)
        await mallorys_machine.request(head, b"forged")
        await mallorys_machine.publish(f"$JS.API.DIRECT.GET.HEADS.{head}", reply=event)
        await asyncio.sleep(WITHIN_S)
        for filtered in (subjects.OFFER_FILTER, subjects.DONE_FILTER):
            await broker.nc.subscribe(filtered, cb=hear)
        await broker.nc.flush()
        for another in (subjects.offer(LENDER.key.public), subjects.done(LENDER.key.public)):
            await mallorys_machine.publish(f"$JS.API.DIRECT.GET.HEADS.{head}", reply=another)
        await asyncio.sleep(WITHIN_S)
        assert heard == []


async def test_the_broker_hears_lenders_and_answers_where_they_listen(world: Trial) -> None:
    async with (
        await world.connect(BROKER) as broker,
        await world.connect(LENDER) as lender,
        await world.connect(SUBMITTER) as submitter,
        await world.connect(OBSERVER) as observer,
    ):
        seen: list[str] = []

        async def note(msg: object) -> None:
            seen.append(str(getattr(msg, "subject", "")))

        async def answer(msg: object) -> None:
            await broker.publish(getattr(msg, "reply", ""), b"answer")

        for pattern in (subjects.DONE_FILTER, subjects.QUERY_FILTER):
            await broker.nc.subscribe(pattern, cb=answer)
        await broker.nc.subscribe(subjects.OFFER_FILTER, cb=note)
        await observer.nc.subscribe(subjects.OFFER_FILTER, cb=note)
        await lender.nc.subscribe(subjects.control(LENDER.key.public), cb=note)
        await lender.nc.subscribe(subjects.control(subjects.ALL_LENDERS), cb=note)
        await submitter.nc.subscribe(subjects.event(SUBMITTER.key.public, "*"), cb=note)
        log = subjects.task_log(SUBMITTER.key.public, JOB, LENDER.key.public)
        logs = subjects.task_log_filter(SUBMITTER.key.public, JOB)
        await submitter.nc.subscribe(logs, cb=note)
        for one in (broker, observer, lender, submitter):
            await one.nc.flush()
        assert (await lender.request(subjects.done(LENDER.key.public))).data == b"answer"
        assert (await submitter.request(subjects.query(SUBMITTER.key.public))).data == b"answer"
        offer = subjects.offer(LENDER.key.public)
        await lender.publish(offer)
        await lender.publish(log)
        controls = [subjects.control(LENDER.key.public), subjects.control(subjects.ALL_LENDERS)]
        event = subjects.event(SUBMITTER.key.public, JOB)
        for subject in (*controls, event):
            await broker.publish(subject)
        wanted = sorted([offer, offer, log, event, *controls])
        await until(lambda: len(seen) >= len(wanted), 10)
        assert sorted(seen) == wanted


async def _is_there(line: Connection, broker: str) -> bool:
    with contextlib.suppress(LinkError):
        await line.request(f"$SRV.INFO.lender-broker.{broker}")
        return True  # this one is subscribed to last
    return False


async def test_an_observer_is_told_of_each_broker_and_by_brokers_alone(world: Trial) -> None:
    told: list[dict[str, Any]] = []

    async def note(msg: Msg) -> None:
        told.append(json.loads(msg.data))

    async with contextlib.AsyncExitStack() as stack:
        one, two, observer, lender = [
            await stack.enter_async_context(await world.connect(who))
            for who in (BROKER, BROKER, OBSERVER, LENDER)
        ]
        for line, name in ((one, "one"), (two, "two")):
            discovery = Discovery(line, name, Endpoints(), lambda: False)
            task = asyncio.create_task(discovery.run())
            stack.callback(task.cancel)
            async with asyncio.timeout(20):
                while not await _is_there(line, name):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        answers = f"_INBOX_{OBSERVER.key.public}.x.1"
        await observer.nc.subscribe(answers, cb=note)
        for subject in ("$SRV.PING", "$SRV.INFO.lender-broker", "$SRV.STATS.lender-broker.two"):
            told.clear()
            wanted = ["two"] if subject.endswith("two") else ["one", "two"]
            await observer.nc.publish(subject, b"", reply=answers)
            await until(lambda wanted=wanted: len(told) == len(wanted))
            assert sorted(answer["id"] for answer in told) == wanted
        with pytest.raises(LinkError):
            await lender.request("$SRV.PING", timeout_s=WITHIN_S)
        # A reply subject may name anything: it is answered where inboxes are, and nowhere else.
        await one.nc.subscribe(subjects.offer("x"), cb=note)
        await one.nc.flush()
        told.clear()
        await two.nc.publish("$SRV.STATS.lender-broker.one", b"", reply=subjects.offer("x"))
        await two.request("$SRV.STATS.lender-broker.one")
        await one.nc.flush()
        assert told == []


async def test_who_has_no_token_of_ours_is_not_let_in(world: Trial) -> None:
    mallory = Key.make("user", bytes([77] * 32))
    signing = Key.make("account", bytes([78] * 32))
    core = world.deployment.identities().accounts["core"]
    claim = {"type": "user", "issuer_account": core, "subs": -1, "data": -1, "payload": -1}
    forged = encode(mallory.public, "mallory", claim, signing, NOW)
    stolen = world.deployment.vouch("broker", BROKER.key.public, "broker", (), NOW)
    lenders_key = world.deployment.key("broker/lender-signing.nk")
    lenders = world.deployment.identities().accounts["lenders"]
    wider = encode(
        mallory.public,
        "mallory",
        {"type": "user", "issuer_account": lenders, "pub": {"allow": [">"]}, "subs": -1},
        lenders_key,
        NOW,
    )
    elsewhere = encode(
        mallory.public, "mallory", {"type": "user", "issuer_account": core}, lenders_key, NOW
    )
    files = {
        "nothing": None,
        "a bare key": mallory.seed.decode(),
        "a token of its own": credentials(forged, mallory.seed),
        "another's token": credentials(stolen, mallory.seed),
        "more than the scope": credentials(wider, mallory.seed),
        "another account": credentials(elsewhere, mallory.seed),
    }
    for name, content in files.items():
        path = None
        if content is not None:
            path = world.folder / "mallory.creds"
            path.write_text(content)
            path.chmod(0o600)
        with pytest.raises(ConnectError):
            async with await connect(
                world.server.url, name=name, credentials=path, timeout_s=WITHIN_S
            ):
                pytest.fail(f"let in: {name}")


def test_everybody_tries_what_is_everybody_elses() -> None:
    publishes, subscribes = tried("publish"), tried("subscribe")
    for one in PEOPLE:
        for deed, subjects_tried in (("publish", publishes), ("subscribe", subscribes)):
            for pattern in one.may(deed):  # type: ignore[arg-type]
                assert pattern in subjects_tried
                literal = pattern.replace("*", JOB).replace(">", JOB)
                assert permits([pattern], literal)
                assert literal in subjects_tried
    assert f"$JS.API.CONSUMER.MSG.NEXT.WORK.{OTHER_CLASS}" in publishes
    assert json.dumps(publishes)
