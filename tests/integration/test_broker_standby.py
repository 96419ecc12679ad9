"""Several brokers for one fleet: one leads, the others stand by and take over."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from broker_parts import (
    ALICE,
    LENDERS,
    BrokerProcess,
    FakeLender,
    Submitter,
    class_token,
    connect,
    spec_fields,
    until,
)
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker.core.leadership import TAKEOVER_S
from broker.service.replay import FOLLOW_S
from lender.link.embedded import EmbeddedServer
from lender.protocol.signature import Signer, seed_from_entropy

BOB = Signer(seed_from_entropy(bytes([2] * 32)))

TASKS = 100
LEADING = "leading"
STANDING_BY = "standing by: broker"
HAS_READ = "has read the streams"
MOST = 3
WITH_SMALL_QUOTAS = f"""
import sys
from broker.core.intake import quotas
quotas.DEFAULT = quotas.DEFAULT._replace(jobs_max={MOST})
from broker.service.main import main
sys.exit(main())
"""


@pytest.fixture
def small_quotas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers that take a few jobs of each submitter: what is usual takes long to fill."""
    monkeypatch.setattr("broker_parts.COMMAND", [sys.executable, "-c", WITH_SMALL_QUOTAS])


@pytest.fixture
async def brokers(nats: EmbeddedServer, tmp_path: Path) -> AsyncIterator[list[BrokerProcess]]:
    """Two of them: the first leads, the second stands by."""
    both = [BrokerProcess(tmp_path / name, nats.url) for name in ("one", "two")]
    try:
        for broker in both:
            broker.allow("alice", ALICE.public_key)
        await both[0].start()
        both[1].spawn()
        for sign in (STANDING_BY, HAS_READ):
            await until(lambda sign=sign: sign in both[1].log(), "the second broker standing by")
        assert not both[1].ready_file.exists()
        yield both
    finally:
        for broker in both:
            broker.kill()


async def refused(alice: Submitter, job: str) -> str:
    """Submit what a broker refuses by itself: the state shows that one is at work."""
    await alice.submit(spec_fields(job, colour="red"))
    return str((await alice.terminal(job))["state"])


async def test_a_leader_that_is_killed_is_followed(
    nats: EmbeddedServer, brokers: list[BrokerProcess]
) -> None:
    connections = [await connect(nats.url) for _ in range(2)]
    alice = Submitter(connections[0])
    classes = [class_token(spec_fields("job-0001"))]
    async with FakeLender(connections[1], LENDERS[0], classes, task_s=0.02) as lender:
        await alice.submit(spec_fields("job-0001", array={"count": TASKS}))
        await until(lambda: len(lender.ran) >= TASKS // 4, "a quarter of the tasks")
        brokers[0].kill()
        terminal = await alice.terminal("job-0001")
    results = await alice.all_results("job-0001")
    assert (terminal["state"], terminal["tasks_succeeded"]) == ("succeeded", TASKS)
    assert sorted(result["task"] for result in results) == list(range(TASKS))
    assert brokers[1].alive
    for connection in connections:
        await connection.close()


async def services(nc: Client, count: int) -> list[dict[str, Any]]:
    """What so many brokers say of themselves (ADR-32), the leader first."""
    told: dict[str, dict[str, Any]] = {}

    async def note(msg: Msg) -> None:
        answer = json.loads(msg.data)
        told[answer["id"]] = answer

    inbox = nc.new_inbox()
    listening = await nc.subscribe(inbox, cb=note)
    await nc.publish("$SRV.STATS.lender-broker", reply=inbox)
    await until(lambda: len(told) == count, "the answers of all brokers")
    await listening.unsubscribe()
    return sorted(told.values(), key=lambda one: one["metadata"]["leads"], reverse=True)


async def test_each_broker_is_found_and_says_who_leads_and_what_it_was_asked(
    nats: EmbeddedServer, brokers: list[BrokerProcess]
) -> None:
    nc = await connect(nats.url)
    query = f"query.{ALICE.public_key}"
    for question in (b"no question", msgpack.packb({"v": 1})):
        await nc.request(query, question)
    leader, other = await services(nc, 2)
    counts = [
        next(
            (one["num_requests"], one["num_errors"])
            for one in broker["endpoints"]
            if one["name"] == "query"
        )
        for broker in (leader, other)
    ]
    assert counts == [(2, 1), (0, 0)]
    assert [one["metadata"]["leads"] for one in (leader, other)] == ["true", "false"]
    brokers[0].kill()
    async with asyncio.timeout(30):
        while (await services(nc, 1))[0]["metadata"]["leads"] != "true":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert (await services(nc, 1))[0]["id"] == other["id"]
    await nc.close()


async def test_who_stands_by_knows_what_the_leader_knows(
    nats: EmbeddedServer, brokers: list[BrokerProcess]
) -> None:
    """What it has read it need not read again: what JOBS has lost since goes on all the same."""
    connections = [await connect(nats.url) for _ in range(3)]
    alice = Submitter(connections[0])
    jobs = [spec_fields("job-0001", array={"count": TASKS})]
    jobs += [spec_fields(f"job-000{number}", workload="render") for number in range(2, 5)]
    one, two = (
        FakeLender(connection, lender, [class_token(job)], task_s=0.02)
        for connection, lender, job in zip(connections[1:], LENDERS, jobs, strict=False)
    )
    async with one:
        for job in jobs:
            await alice.submit(job)
        await until(lambda: len(one.ran) >= TASKS // 4, "a quarter of the tasks")
        await alice.submit(spec_fields("job-0009", colour="red"))
        assert (await alice.terminal("job-0009"))["state"] == "rejected"
        await asyncio.sleep(2 * FOLLOW_S)  # nothing tells how far another broker has read
        for stream, subject in (
            ("JOBS", "submit.*.job-0002"),
            ("JOBS", "submit.*.job-0009"),
            ("RESULTS", "res.*.job-0009"),
        ):
            await alice.js.purge_stream(stream, subject=subject)
        brokers[0].kill()
        async with two:
            terminals = [await alice.terminal(job["id"]) for job in jobs]
    assert [one["state"] for one in terminals] == ["succeeded"] * len(jobs)
    results = await alice.all_results("job-0001")
    assert sorted(result["task"] for result in results) == list(range(TASKS))
    assert two.ran.total() == 3
    assert "is taken" not in brokers[1].log()
    assert "Traceback" not in brokers[1].log()
    for connection in connections:
        await connection.close()


@pytest.mark.usefixtures("small_quotas")
async def test_who_stands_by_reads_on_beside_a_submitter_that_has_its_most(
    nats: EmbeddedServer, brokers: list[BrokerProcess]
) -> None:
    """What it has read it need not read again: what JOBS has lost since goes on all the same."""
    connections = [await connect(nats.url) for _ in range(2)]
    alice, bob = Submitter(connections[0]), Submitter(connections[0], BOB)
    for broker in brokers:
        broker.allow("bob", BOB.public_key)
    for number in range(MOST):
        await alice.submit(spec_fields(f"job-000{number}"))
    await asyncio.sleep(2 * FOLLOW_S)  # nothing tells how far another broker has read
    leader = brokers[0].process
    assert leader is not None
    leader.send_signal(signal.SIGSTOP)  # else a rejection may come before what it is about
    await alice.submit(spec_fields("job-0008"))
    await asyncio.sleep(2 * FOLLOW_S)
    leader.send_signal(signal.SIGCONT)
    assert (await alice.terminal("job-0008"))["field"] == "quota"
    await bob.submit(spec_fields("job-0009", BOB))
    await asyncio.sleep(2 * FOLLOW_S)
    await alice.js.purge_stream("JOBS", subject="submit.*.job-0009")
    brokers[0].kill()
    classes = [class_token(spec_fields("job-0009", signer)) for signer in (ALICE, BOB)]
    async with FakeLender(connections[1], LENDERS[0], classes):
        assert (await bob.terminal("job-0009"))["state"] == "succeeded"
        assert (await alice.terminal("job-0000"))["state"] == "succeeded"
    assert "Traceback" not in brokers[1].log()
    for connection in connections:
        await connection.close()


async def test_who_stood_still_while_standing_by_takes_nothing_over(
    nats: EmbeddedServer, brokers: list[BrokerProcess]
) -> None:
    first, second = brokers
    connections = [await connect(nats.url) for _ in range(2)]
    alice = Submitter(connections[0])
    classes = [class_token(spec_fields("job-0001"))]
    async with FakeLender(connections[1], LENDERS[0], classes, task_s=0.05) as lender:
        await alice.submit(spec_fields("job-0001", array={"count": 3 * TASKS}))
        await until(lambda: len(lender.ran) > 0, "the first task")
        assert second.process is not None
        second.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(TAKEOVER_S + 1.0)
        second.process.send_signal(signal.SIGCONT)
        before = len(lender.ran)
        await until(lambda: len(lender.ran) > before + TASKS // 4, "work that goes on")
        assert "candidate: leading" not in second.log()
        assert first.alive
        first.kill()
        terminal = await alice.terminal("job-0001", within_s=40)
    results = await alice.all_results("job-0001")
    assert (terminal["state"], terminal["tasks_succeeded"]) == ("succeeded", 3 * TASKS)
    assert sorted(result["task"] for result in results) == list(range(3 * TASKS))
    for connection in connections:
        await connection.close()


async def test_a_leader_that_ends_hands_over(
    nats: EmbeddedServer, brokers: list[BrokerProcess]
) -> None:
    assert await brokers[0].stop() == 0
    await until(brokers[1].ready_file.exists, "the second broker leading")
    nc = await connect(nats.url)
    assert await refused(Submitter(nc), "job-0001") == "rejected"
    await nc.close()


async def test_a_leader_that_hung_finds_another_in_its_place(
    nats: EmbeddedServer, brokers: list[BrokerProcess]
) -> None:
    first, second = brokers
    assert first.process is not None
    first.process.send_signal(signal.SIGSTOP)
    await until(second.ready_file.exists, "the second broker leading")
    nc = await connect(nats.url)
    alice = Submitter(nc)
    assert await refused(alice, "job-0001") == "rejected"
    first.process.send_signal(signal.SIGCONT)
    await until(lambda: "another broker leads" in first.log(), "the first standing by")
    assert first.alive
    assert second.alive
    assert "Traceback" not in first.log()
    second.kill()
    assert await refused(alice, "job-0002") == "rejected", "the first leads again"
    state = (await alice.js.stream_info("RESULTS", subjects_filter="res.*.*")).state
    records = [subject for subject in (state.subjects or {}) if not subject.startswith("res.b")]
    assert sorted(records) == [f"res.{ALICE.public_key}.job-000{n}" for n in (1, 2)]
    await nc.close()


async def test_a_leader_without_its_key_goes_on_when_the_server_is_back(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    """The key is kept in the server's memory: a restart of it must not cost a replay."""
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    broker.allow("alice", ALICE.public_key)
    try:
        await broker.start()
        nats.kill()
        await until(lambda: "may not serve" in broker.log(), "the end of its term")
        await nats.start()
        await until(lambda: "serves again" in broker.log(), "the leader's return")
        nc = await connect(nats.url)
        assert await refused(Submitter(nc), "job-0001") == "rejected"
        assert broker.log().count("candidate: leading") == 1
        await nc.close()
    finally:
        broker.kill()
