"""The same task on several machines: answers that have to agree, and copies of what is late."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_parts import (
    ALICE,
    LENDERS,
    BrokerProcess,
    FakeLender,
    Submitter,
    class_token,
    spec_fields,
)
from broker_parts import connect as connect_to
from fleet import StandingFleet
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from deploy.local.fleet import Fleet
from lender.client import Client, Verify
from lender.client.job import Job
from lender.link.embedded import EmbeddedServer

# The first of them waits for a whole fleet, on a machine that may be busy.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", "attic") as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


async def told(client: Client, job: Job, word: str) -> str:
    """Wait until the broker says so of a job."""
    for _ in range(400):
        if word in (why := await client.why(job)):
            return why
        await asyncio.sleep(0.1)
    raise AssertionError(f"{word!r} was not said, but {why!r}")


async def test_both_machines_run_each_task_and_one_result_comes_back(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["sh", "-c", "echo {task}"], array=10, verify=Verify())
        values = {record.result.task: record.result.value async for record in job.results()}
        assert values == {task: f"{task}\n".encode() for task in range(10)}
    for lender in fleet.lenders.values():
        assert lender.owner("log", job.id, "--json").returncode == 0, "both ran it"


async def test_answers_that_differ_are_no_result(fleet: Fleet) -> None:
    words = ["sh", "-c", "head -c 8 /dev/urandom | od"]
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(words, verify=Verify())
        why = await told(client, job, "differ")
        assert why == ("2 of 3 answers in, they differ; waiting for a machine of another owner")
        await job.cancel()
        assert (await job.ended(timeout_s=20)).state == "cancelled"


async def test_what_stands_still_runs_once_more_elsewhere(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["sh", "-c", "sleep 4; echo done"], expected_s=0.2)
        why = await told(client, job, "machine more")
        assert why == "1 task runs on one machine more, since the first takes far longer than usual"
        terminal = await job.ended(timeout_s=40)
        assert terminal.state == "succeeded"
        assert terminal.result is not None
        assert terminal.result.value == b"done\n"


class OneLease(FakeLender):
    """Takes one lease and no other: what it took and never told of would wait for its ack wait."""

    async def _pull(self, token: str) -> None:
        js = self.nc.jetstream(timeout=2)
        while True:
            with contextlib.suppress(NatsError, JetStreamError, TimeoutError):
                queue = await js.pull_subscribe_bind(token, stream="WORK")
                for msg in await queue.fetch(1, timeout=20):
                    self._take(msg)
                return
            await asyncio.sleep(0.05)


async def test_an_answer_that_was_acknowledged_outlives_the_broker(
    nats: EmbeddedServer, tmp_path: Path
) -> None:
    broker = BrokerProcess(tmp_path / "broker", nats.url)
    broker.allow("alice", ALICE.public_key)
    spec = spec_fields("job-0001", verify={"replicas": 2, "quorum": 2})
    try:
        await broker.start()
        alice = Submitter(await connect_to(nats.url))
        await alice.submit(spec)
        first = OneLease(await connect_to(nats.url), LENDERS[0], [class_token(spec)])
        async with first:
            for _ in range(600):
                if first.verdicts["committed"]:
                    break
                await asyncio.sleep(0.05)
        broker.kill()
        await broker.start()
        second = FakeLender(await connect_to(nats.url), LENDERS[1], [class_token(spec)])
        async with second:
            terminal = await alice.terminal("job-0001")
        assert (terminal["state"], terminal["lender"]) == ("succeeded", LENDERS[1])
        assert (sum(first.ran.values()), sum(second.ran.values())) == (1, 1)
        for nc in (first.nc, second.nc, alice.nc):
            await nc.close()
    finally:
        broker.kill()
