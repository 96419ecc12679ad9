"""The broker's process, submitters with plain nats-py, lenders that know only the wire."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgpack
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
    until,
)
from nats.js.errors import APIError

from lender.link.embedded import EmbeddedServer
from lender.protocol import bounds


@pytest.fixture
async def broker(nats: EmbeddedServer, tmp_path: Path) -> AsyncIterator[BrokerProcess]:
    process = BrokerProcess(tmp_path / "broker", nats.url)
    process.allow("alice", ALICE.public_key)
    await process.start()
    yield process
    process.kill()


@pytest.fixture
async def alice(nats: EmbeddedServer, broker: BrokerProcess) -> AsyncIterator[Submitter]:
    assert broker.alive
    nc = await connect(nats.url)
    yield Submitter(nc)
    await nc.close()


@pytest.fixture
async def lender(nats: EmbeddedServer) -> AsyncIterator[FakeLender]:
    nc = await connect(nats.url)
    async with FakeLender(nc, LENDERS[0], [class_token(spec_fields("job-0001"))]) as one:
        yield one
    await nc.close()


async def test_a_job_comes_back_with_its_result(alice: Submitter, lender: FakeLender) -> None:
    events = await alice.nc.subscribe(f"event.{ALICE.public_key}.job-0001")
    await alice.submit(spec_fields("job-0001"))
    terminal = await alice.terminal("job-0001")
    assert terminal["state"] == "succeeded"
    assert base64.b64decode(terminal["result"]["value"]) == b"0"
    assert terminal["lender"] == lender.lender
    copies = []
    while not copies:
        event = await events.next_msg(timeout=5)
        if "Lender-Subject" in event.headers:
            copies.append(json.loads(event.data))
    assert copies == [terminal]
    await until(lambda: lender.verdicts == {"committed": 1}, "the answer")


async def test_an_array_comes_back_complete(alice: Submitter, lender: FakeLender) -> None:
    await alice.submit(spec_fields("job-0001", array={"count": 5000}))
    terminal = await alice.terminal("job-0001")
    assert (terminal["state"], terminal["tasks_succeeded"]) == ("succeeded", 5000)
    results = await alice.all_results("job-0001")
    assert sorted(result["task"] for result in results) == list(range(5000))
    assert all(base64.b64decode(one["value"]) == str(one["task"]).encode() for one in results)
    assert sum(lender.verdicts.values()) < 500, "short tasks go in few leases"


BAD = [
    ("colour", lambda: spec_fields("job-0001", colour="red")),
    ("retries", lambda: spec_fields("job-0001", retries="3")),
    ("array.count", lambda: spec_fields("job-0001", array={"count": 0})),
    ("array.count", lambda: spec_fields("job-0001", array={"count": 10_000_001})),
    ("id", lambda: spec_fields("job-0002")),
    ("submitter", lambda: spec_fields("job-0001", MALLORY)),
    ("not_after", lambda: spec_fields("job-0001", created_at=1.0, not_after=2.0)),
]


@pytest.mark.parametrize(("field", "make"), BAD)
async def test_a_bad_specification_is_rejected_by_its_field(
    alice: Submitter, field: str, make: Callable[[], dict[str, object]]
) -> None:
    await alice.submit(make(), "job-0001")
    terminal = await alice.terminal("job-0001")
    assert (terminal["state"], terminal["field"]) == ("rejected", field)
    assert terminal["reason"]


async def test_bad_bytes_and_signatures_are_rejected(
    broker: BrokerProcess, alice: Submitter
) -> None:
    good = msgpack.packb(spec_fields("job-0001"))
    signed = {"Lender-Signature": ALICE.sign(good)}
    for job, payload, headers, field in (
        ("job-aaaa", b"\xc1", signed, "payload"),
        ("job-bbbb", b"{", {"Content-Type": "application/json"}, "payload"),
        ("job-cccc", b"\x00" * (bounds.SPEC_BYTES_MAX + 1), signed, "payload"),
        ("job-dddd", good, {**signed, "Content-Type": "text/plain"}, "payload"),
        ("job-0001", good, {}, "signature"),
        ("job-eeee", b"", {}, "payload"),
        ("x", good, signed, "subject"),
    ):
        await alice.submit_raw(job, payload, headers)
        terminal = await alice.terminal(job)
        assert (terminal["state"], terminal["field"]) == ("rejected", field), job
    forged = spec_fields("job-ffff")
    mallory_signs = Submitter(alice.nc)
    payload = json.dumps(forged).encode()
    await mallory_signs.submit_raw(
        "job-ffff",
        payload,
        {"Content-Type": "application/json", "Lender-Signature": MALLORY.sign(payload)},
    )
    assert (await alice.terminal("job-ffff"))["field"] == "signature"
    assert broker.alive


async def test_a_stranger_is_refused_until_the_operator_allows_it(
    broker: BrokerProcess, alice: Submitter
) -> None:
    mallory = Submitter(alice.nc, MALLORY)
    await mallory.submit(spec_fields("job-0001", MALLORY))
    terminal = await mallory.terminal("job-0001")
    assert (terminal["state"], terminal["field"]) == ("rejected", "submitter")
    assert "lender-broker allow" in terminal["reason"]
    assert broker.run("allow", "mallory", MALLORY.public_key).returncode == 0
    await mallory.submit(spec_fields("job-0002", MALLORY))
    assert (await mallory.status("job-0002"))["state"] == "queued"
    assert broker.run("forbid", "mallory").returncode == 0
    await mallory.submit(spec_fields("job-0003", MALLORY))
    assert (await mallory.terminal("job-0003"))["field"] == "submitter"


async def test_a_job_that_nobody_lends_for_waits_and_says_so(alice: Submitter) -> None:
    await alice.submit(spec_fields("job-0001"))
    status = await alice.status("job-0001")
    assert status["state"] == "queued"
    assert status["why"].startswith("no machine offers it")


async def test_a_job_id_is_taken_once(alice: Submitter, lender: FakeLender) -> None:
    first = spec_fields("job-0001")
    payload = await alice.submit(first)
    for again in (first, spec_fields("job-0001", argv=["false"])):
        with pytest.raises(APIError) as refused:
            await alice.submit(again)
        assert refused.value.err_code == 10077
    await alice.terminal("job-0001")
    stored = await alice.js.get_last_msg("JOBS", f"submit.{ALICE.public_key}.job-0001")
    assert stored.data == payload
    assert lender.ran == {0: 1}


async def test_a_cancelled_job_ends_and_its_work_stops(
    alice: Submitter, lender: FakeLender
) -> None:
    lender.task_s = 60.0
    await alice.submit(spec_fields("job-0001", array={"count": 10}))
    await until(lambda: len(lender.held) == 2, "two leases")
    await alice.js.publish(f"cancel.{ALICE.public_key}.job-0001", b"")
    assert (await alice.terminal("job-0001"))["state"] == "cancelled"
    await until(lambda: not lender.held, "the cancellation at the lender", 2.0)

    for _ in range(200):
        left = (await alice.js.stream_info("WORK")).state.messages
        if not left:
            break
        await asyncio.sleep(0.02)
    assert left == 0


async def test_the_work_of_a_lender_that_vanished_goes_elsewhere_in_seconds(
    nats: EmbeddedServer, alice: Submitter, lender: FakeLender
) -> None:
    lender.task_s = 60.0
    await alice.submit(spec_fields("job-0001"))
    await until(lambda: lender.held, "the lease")
    await until(lambda: lender.offered, "the offer that tells of it")
    await lender.vanish()
    nc = await connect(nats.url)
    async with FakeLender(nc, LENDERS[1], lender.classes):
        terminal = await alice.terminal("job-0001", within_s=8)
    await nc.close()
    assert (terminal["lender"], terminal["attempt"]) == (LENDERS[1], 2)
