"""Tasks that run at the same time, on machines of several owners, or not at all."""

import asyncio
from collections.abc import Iterator

import pytest
from fleet import StandingFleet

from deploy.local.fleet import Fleet, wait_until
from lender.client.client import Client
from lender.client.job import Job

pytestmark = pytest.mark.timeout(120)

SPAN = ("sh", "-c", "date +%s.%N; sleep 2; date +%s.%N")
LONG_SPAN = ("sh", "-c", "date +%s.%N; sleep 8; date +%s.%N")


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", "attic") as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


async def check_ran_at_once(job: Job, fleet: Fleet) -> None:
    """Each began before any ended, on a machine of its own."""
    records = [one async for one in job.results()]
    spans = [tuple(map(float, one.result.value.split())) for one in records]
    assert max(begin for begin, _ in spans) < min(end for _, end in spans)
    assert {one.lender for one in records} == {
        one.status()["lender"] for one in fleet.lenders.values()
    }


def slots(fleet: Fleet) -> int:
    return sum(int(one.status()["slots_total"]) for one in fleet.lenders.values())


async def test_all_tasks_of_a_gang_run_at_the_same_time(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(SPAN, array=slots(fleet), gang=True)
        await check_ran_at_once(job, fleet)


async def test_a_gang_begins_anew_when_a_machine_is_taken_back(fleet: Fleet) -> None:
    attic = fleet.lenders["attic"]
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(LONG_SPAN, array=slots(fleet), gang=True)
        wait_until(lambda: all(one.busy() for one in fleet.lenders.values()), "both at work")
        assert attic.owner("revoke", "--all").returncode == 0
        wait_until(lambda: not fleet.lenders["desk"].busy(), "the other one stopped too")
        async with asyncio.timeout(30):
            while "can't ever run at once" not in await client.why(job):  # noqa: ASYNC110 - the broker tells nobody by itself
                await asyncio.sleep(0.1)
        fleet.grant(attic, "command")
        await check_ran_at_once(job, fleet)
        assert min([one.attempt async for one in job.results()]) >= 2


async def test_a_gang_that_runs_outlives_the_broker(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(LONG_SPAN, array=slots(fleet), gang=True)
        wait_until(lambda: all(one.busy() for one in fleet.lenders.values()), "both at work")
        fleet.broker.kill()
        await asyncio.to_thread(fleet.start_broker)
        await check_ran_at_once(job, fleet)
        assert {one.attempt async for one in job.results()} == {1}
