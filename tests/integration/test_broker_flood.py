"""One submitter's flood: it is bounded, it is told so, and nobody else waits behind it."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from broker_parts import (
    ALICE,
    LENDERS,
    MALLORY,
    BrokerProcess,
    FakeLender,
    Submitter,
    class_token,
    connect,
    spec_fields,
)
from nats_server import until as soon

from broker.service.intake import LENDER_MAX
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.link.publisher import Publisher
from lender.protocol import streams, subjects

FLOOD = 5_000
JOBS_MAX = 100


@pytest.fixture
async def broker(nats: EmbeddedServer, tmp_path: Path) -> AsyncIterator[BrokerProcess]:
    process = BrokerProcess(tmp_path / "broker", nats.url)
    process.allow("alice", ALICE.public_key)
    allowed = process.run("allow", "mallory", MALLORY.public_key, "--jobs", str(JOBS_MAX))
    assert allowed.returncode == 0
    await process.start()
    yield process
    process.kill()


async def flood(connection: Connection) -> None:
    """Publish more than any lane holds: as many good jobs as there may be, then what comes."""
    publisher = Publisher(connection)
    mallory = Submitter(await connect(connection.nc.connected_url.geturl()), MALLORY)
    for number in range(JOBS_MAX):
        await mallory.submit(spec_fields(f"good-{number:05d}", MALLORY))
    await mallory.nc.close()
    stored = [
        await publisher.publish(subjects.submit(MALLORY.public_key, f"bad-{number:05d}"), b"x", {})
        for number in range(FLOOD)
    ]
    for one in stored:
        await one
    publisher.close()


async def test_nobody_waits_behind_anothers_flood(
    nats: EmbeddedServer, connection: Connection, broker: BrokerProcess
) -> None:
    nc = await connect(nats.url)
    alice, mallory = Submitter(nc), Submitter(nc, MALLORY)
    jetstream = JetStream(connection)
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)  # so that it finds all of it before Alice's job
    await flood(connection)
    await alice.submit(spec_fields("job-0001"))
    broker.process.send_signal(signal.SIGCONT)
    assert (await alice.status("job-0001"))["state"] == "queued"
    before = (await jetstream.stream_state(streams.RESULTS)).messages
    assert before < FLOOD, "the whole flood was taken in before"
    async with FakeLender(nc, LENDERS[0], [class_token(spec_fields("job-0001"))]):
        assert (await alice.terminal("job-0001"))["state"] == "succeeded"
    await mallory.submit(spec_fields("job-last", MALLORY))
    last = await mallory.terminal("job-last")
    assert (last["state"], last["field"]) == ("rejected", "quota")
    assert f"of {JOBS_MAX}" in last["reason"]
    # Each is told once: the fence, Alice's job, the flood and the one behind it.
    assert (await jetstream.stream_state(streams.RESULTS)).messages == FLOOD + 3
    assert (await mallory.status("good-00000"))["state"] == "queued"
    # Room that is made is room for the next.
    await mallory.js.publish(f"cancel.{MALLORY.public_key}.good-00000", b"")
    assert (await mallory.terminal("good-00000"))["state"] == "cancelled"
    await mallory.submit(spec_fields("job-more", MALLORY))
    assert (await mallory.status("job-more"))["state"] == "queued"
    assert broker.alive
    await nc.close()


async def test_no_lender_is_lost_behind_anothers_flood(
    nats: EmbeddedServer, broker: BrokerProcess
) -> None:
    nc, flooding = await connect(nats.url), await connect(nats.url)
    alice, reports = Submitter(nc), 20 * LENDER_MAX  # more than one turn of the loop brings
    await alice.submit(spec_fields("job-0001"))
    token = class_token(spec_fields("job-0001"))
    async with FakeLender(nc, LENDERS[0], [token], task_s=3.0) as lender:
        await soon(lambda: lender.held)
        for _ in range(reports):
            inbox = flooding.new_inbox()
            await flooding.publish(f"done.{LENDERS[1]}", b"x", reply=inbox)
        assert (await alice.terminal("job-0001"))["attempt"] == 1
    await soon(lambda: f"lender {LENDERS[1]} sends more than is taken up" in broker.log())
    assert LENDERS[0] not in broker.log()
    await nc.close()
    await flooding.close()


async def test_a_cap_counts_at_once_while_the_broker_runs(
    nats: EmbeddedServer, broker: BrokerProcess
) -> None:
    nc = await connect(nats.url)
    alice = Submitter(nc)
    token = class_token(spec_fields("job-0001"))
    assert broker.run("allow", "alice", "--running", "1").returncode == 0
    async with FakeLender(nc, LENDERS[0], [token], slots=4, task_s=30.0) as lender:
        for number in range(4):
            await alice.submit(spec_fields(f"job-{number:04d}"))
        await soon(lambda: len(lender.held) == 1)
        why = (await alice.status("job-0003"))["why"]
        assert "as many as you may" in why
        assert broker.run("allow", "alice", "--running", "3").returncode == 0
        await soon(lambda: len(lender.held) == 3)
    await nc.close()
