"""kill -9 of the broker and of NATS in the middle of an array; a second broker; a full id."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

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

TASKS = 200


async def array_survives(
    nats: EmbeddedServer, broker: BrokerProcess, disaster: Callable[[], Awaitable[None]]
) -> None:
    """Run an array on two lenders, let disaster strike in its middle; every task counts once."""
    broker.allow("alice", ALICE.public_key)
    await broker.start()
    connections = [await connect(nats.url) for _ in range(3)]
    alice = Submitter(connections[0])
    classes = [class_token(spec_fields("job-0001"))]
    async with (
        FakeLender(connections[1], LENDERS[0], classes, task_s=0.02) as one,
        FakeLender(connections[2], LENDERS[1], classes, task_s=0.02) as two,
    ):
        await alice.submit(spec_fields("job-0001", array={"count": TASKS}))
        await until(lambda: len(one.ran + two.ran) >= TASKS // 4, "a quarter of the tasks")
        await disaster()
        terminal = await alice.terminal("job-0001", within_s=40)
    results = await alice.all_results("job-0001")
    assert (terminal["state"], terminal["tasks_succeeded"]) == ("succeeded", TASKS)
    assert sorted(result["task"] for result in results) == list(range(TASKS))
    assert len(one.ran + two.ran) == TASKS
    for connection in connections:
        await connection.close()


async def test_broker_killed_in_the_middle_of_an_array(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    broker = BrokerProcess(tmp_path / "broker", nats.url)

    async def disaster() -> None:
        for _ in range(2):
            broker.kill()
            await asyncio.sleep(0.1)
            await broker.start()
            await asyncio.sleep(0.1)

    try:
        await array_survives(nats, broker, disaster)
        assert await broker.stop() == 0
    finally:
        broker.kill()


async def test_nats_killed_in_the_middle_of_an_array(nats: EmbeddedServer, tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "broker", nats.url)

    async def disaster() -> None:
        nats.kill()
        await asyncio.sleep(0.5)
        await nats.start()

    try:
        await array_survives(nats, broker, disaster)
        assert broker.alive, broker.log()
    finally:
        broker.kill()


async def test_an_embedded_server_that_is_killed_comes_back(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "broker", "nats://127.0.0.1:1", "--embedded", "--port", "0")
    broker.allow("alice", ALICE.public_key)
    try:
        await broker.start()
        nc = await connect(broker.url)
        (child,) = broker.children()
        child.kill()
        await until(lambda: not nc.is_connected, "the loss")
        await until(lambda: nc.is_connected, "the server's return")
        alice = Submitter(nc)
        await alice.submit(spec_fields("job-0001", colour="red"))
        assert (await alice.terminal("job-0001"))["state"] == "rejected"
        await nc.close()
        assert await broker.stop() == 0
    finally:
        broker.kill()


async def test_an_id_whose_result_outlived_its_job_keeps_the_first_result(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    broker.allow("alice", ALICE.public_key)
    try:
        await broker.start()
        nc = await connect(nats.url)
        alice = Submitter(nc)
        await alice.submit(spec_fields("job-0001", colour="red"))
        first = await alice.terminal("job-0001")
        await alice.js.purge_stream("JOBS")
        await broker.stop()
        await broker.start()
        await alice.submit(spec_fields("job-0001", colour="blue"))
        await alice.submit(spec_fields("job-0002", colour="red"))
        assert (await alice.terminal("job-0002"))["state"] == "rejected"
        assert await alice.terminal("job-0001") == first
        assert "job-0001 is taken" in broker.log()
        assert broker.alive
        await nc.close()
    finally:
        broker.kill()
