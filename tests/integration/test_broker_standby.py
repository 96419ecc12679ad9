"""Several brokers for one fleet: one leads, the others stand by and take over."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

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

from lender.link.embedded import EmbeddedServer

TASKS = 100
LEADING = "leading"
STANDING_BY = "standing by: broker"


@pytest.fixture
async def brokers(nats: EmbeddedServer, tmp_path: Path) -> AsyncIterator[list[BrokerProcess]]:
    """Two of them: the first leads, the second stands by."""
    both = [BrokerProcess(tmp_path / name, nats.url) for name in ("one", "two")]
    try:
        for broker in both:
            broker.run("allow", "alice", ALICE.public_key)
        await both[0].start()
        both[1].spawn()
        await until(lambda: STANDING_BY in both[1].log(), "the second broker standing by")
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
    broker.run("allow", "alice", ALICE.public_key)
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
