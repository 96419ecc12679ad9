"""Jobs that are submitted at the same time are carried together, and nobody notices."""

import asyncio
from collections.abc import Iterator

import pytest
from fleet import StandingFleet

from deploy.local.fleet import Fleet
from lender.client import Cancelled, Client, Job, JobFailed
from lender.protocol.ids import task_named

WAIT_S = 120
JOBS = 40


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", "attic") as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


async def submit_at_once(client: Client, *lines: list[str]) -> list[Job]:
    jobs = await asyncio.gather(*(client.submit(line, retries=0) for line in lines))
    assert len({job.id for job in jobs}) == len(lines)
    arrays = {found[0] for job in jobs if (found := task_named(job.id)) is not None}
    assert len(arrays) == 1, "they went together"
    return list(jobs)


async def value_of(job: Job) -> str:
    return (await job.result(WAIT_S)).value.decode()


async def test_each_has_its_own_words_result_and_name_and_is_told_of_no_other(
    fleet: Fleet,
) -> None:
    told = "echo $LENDER_JOB $LENDER_TASK $LENDER_TASK_COUNT {task} $1 >&1; exit $2"
    lines = [["sh", "-c", told, "sh", f"w{n}", "3" if n == 7 else "0"] for n in range(JOBS)]
    async with Client(fleet.url, fleet.key) as client:
        jobs = await submit_at_once(client, *lines)
        with pytest.raises(JobFailed, match="exit code 3"):
            await jobs[7].result(WAIT_S)
        assert await client.why(jobs[7]) == "exit code 3"
        for n, job in enumerate(jobs):
            if n != 7:
                assert await value_of(job) == f"{job.id} 0 1 0 w{n}\n"
        again = await client.retry(jobs[7])
        assert again.spec.argv[-2:] == ("w7", "3")
        async with Client(fleet.url, fleet.key) as other:
            assert await value_of(await other.get(jobs[8].id)) == f"{jobs[8].id} 0 1 0 w8\n"


async def test_one_that_runs_is_cancelled_and_the_others_are_not(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        endless = ["sh", "-c", "echo runs >&2; exec sleep 1000"]
        sleeper, *others = await submit_at_once(
            client, endless, *(["echo", str(n)] for n in range(6))
        )
        async with asyncio.timeout(WAIT_S):
            async for piece in sleeper.log():
                assert (piece.task, piece.content) == (0, b"runs\n")
                break
        await sleeper.cancel()
        with pytest.raises(Cancelled):
            await sleeper.result(WAIT_S)
        assert [await value_of(one) for one in others] == [f"{n}\n" for n in range(6)]


async def test_others_wait_for_one_of_them(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        first, failing = await submit_at_once(
            client, ["sh", "-c", "sleep 0.3; echo first"], ["sh", "-c", "sleep 0.3; exit 1"]
        )
        follower = await client.submit(["echo", "after"], after=[first.id])
        stranded = await client.submit(["echo", "never"], after=[failing.id])
        assert await value_of(follower) == "after\n"
        with pytest.raises(Cancelled, match=failing.id):
            await stranded.result(WAIT_S)


async def test_each_ends_once_whatever_is_killed(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        lines = [["sh", "-c", f"sleep 0.2; echo {n}"] for n in range(JOBS)]
        jobs = await submit_at_once(client, *lines)
        assert await value_of(jobs[0]) == "0\n"
        fleet.broker.kill()
        fleet.broker.start()
        fleet.lenders["desk"].kill()
        await jobs[-1].cancel()
        fleet.lenders["desk"].start()
        async with asyncio.timeout(WAIT_S):
            ends = await asyncio.gather(*(job.ended() for job in jobs))
        assert [end.state for end in ends[:-1]] == ["succeeded"] * (JOBS - 1)
        assert ends[-1].state in ("cancelled", "succeeded")
        values = [end.result.value for end in ends[:-1] if end.result is not None]
        assert values == [b"%d\n" % n for n in range(JOBS - 1)]
        whole = await client.get(jobs[0].id.rpartition("-")[0])
        seen = [record.result.task async for record in whole.results()]
        assert sorted(seen) == list(range(JOBS))
