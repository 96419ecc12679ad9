"""kill -9 of any part in the middle of an array: every task ends in exactly one result."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.fleet import Fleet
from lender.client.client import Client
from lender.client.job import Job
from lender.link.embedded import EmbeddedServer
from lender.protocol import codec
from lender.protocol.result import Chunk, Terminal

TASKS = 200
KILL_AFTER = 40
# Each task is slow enough that the array is far from over when the kill comes.
COMMAND = ("sh", "-c", "sleep 0.02; echo {task}")
# A lender killed between taking a lease and saying so is noticed by the queue's ack wait, 30 s.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def fleet_on_server(
    open_folder: Path, nats: EmbeddedServer
) -> AsyncIterator[tuple[Fleet, EmbeddedServer]]:
    """A fleet on a NATS server that can be killed by itself."""
    fleet = Fleet(open_folder, ("desk", "attic"), workloads=("command",), url=nats.url)
    try:
        await asyncio.to_thread(fleet.start)
        yield fleet, nats
    finally:
        await asyncio.to_thread(fleet.stop)


async def test_a_killed_lender_costs_no_task(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(COMMAND, array=TASKS)
        await _some_done(job)
        fleet.lenders["desk"].kill()
        await _every_task_once(job)
        await asyncio.to_thread(fleet.lenders["desk"].start)


async def test_a_killed_broker_costs_no_task(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(COMMAND, array=TASKS)
        await _some_done(job)
        fleet.broker.kill()
        await asyncio.to_thread(fleet.start_broker)
        await _every_task_once(job)


async def test_a_killed_nats_server_costs_no_task(
    fleet_on_server: tuple[Fleet, EmbeddedServer],
) -> None:
    fleet, nats = fleet_on_server
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(COMMAND, array=TASKS)
        await _some_done(job)
        nats.kill()
        await nats.start()
        await _every_task_once(job)


async def _some_done(job: Job) -> None:
    """Return while the array is under way."""
    done = 0
    async for _ in job.results():
        done += 1
        if done >= KILL_AFTER:
            return


async def _every_task_once(job: Job) -> None:
    terminal = await job.ended(timeout_s=120)
    assert terminal.state == "succeeded", terminal
    assert (terminal.tasks_succeeded, terminal.tasks_failed) == (TASKS, 0)
    values = {one.result.task: one.result.value async for one in job.results()}
    assert values == {task: f"{task}\n".encode() for task in range(TASKS)}
    # The stream itself, not what a client makes of it, holds each task once.
    stored = Counter[int]()
    jetstream = job._session.jetstream
    sequence, pending = 1, 1
    while pending:
        page = await jetstream.get_page(
            "RESULTS", sequence, 100, subject=f"res.{job.spec.submitter}.{job.id}.>"
        )
        for message in page.messages:
            chunk = codec.decode(Chunk, message.payload)
            stored.update(result.task for result in chunk.results)
            sequence = message.sequence + 1
        pending = page.num_pending
    assert stored == Counter(range(TASKS))
    assert isinstance(await job.terminal(), Terminal)
