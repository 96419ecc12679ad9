"""Jobs that wait for jobs, jobs that take too long, and jobs that are cancelled while they run."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import StandingFleet

from deploy.local.fleet import Fleet, wait_until
from lender.client import After, Cancelled, Client, Expired, JobFailed, Limits

# The first of them waits for a whole fleet, on a machine that may be busy.
pytestmark = pytest.mark.timeout(120)

TIME_S = 30


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk") as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


async def test_jobs_follow_each_other_and_a_new_broker_knows(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        first = await client.submit(["sh", "-c", "sleep 5; exit 3"], name="first")
        needs = await client.submit(["true"], after=[first.id])
        anyhow = await client.submit(["echo", "done"], after=[After(job=first.id, on="end")])
        last = await client.submit(["true"], after=[anyhow.id], queue_s=300.0)
        assert (await client.why(needs)).startswith(f"waits for job {first.id} (")
        fleet.broker.kill()
        fleet.start_broker()
        with pytest.raises(JobFailed):
            await first.result(TIME_S)
        with pytest.raises(Cancelled, match=first.id):
            await needs.result(TIME_S)
        assert (await anyhow.result(TIME_S)).value == b"done\n"
        ended = [(await job.ended(TIME_S)).finished_at for job in (first, anyhow, last)]
        assert ended == sorted(ended)


def test_a_dependency_is_an_option_of_submit(fleet: Fleet) -> None:
    first = fleet.submit("submit", "--no-wait", "--", "true").stdout.strip()
    said = fleet.submit(
        "submit", "--after", f"{first}:end", "--queue-time", "1m", "--", "echo", "2"
    )
    assert (said.returncode, said.stdout) == (0, "2\n"), said.stderr


async def test_a_machine_that_prepares_for_too_long_hands_back_with_the_reason(
    fleet: Fleet,
) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["true"], limits=Limits(prepare_s=1e-4), queue_s=3600.0)
        why = ""
        async with asyncio.timeout(TIME_S):
            while "not prepared within 0.0001 s (limits.prepare_s)" not in why:
                why = await client.why(job)
        await job.cancel()


async def test_what_nobody_begins_with_in_time_expires(fleet: Fleet) -> None:
    assert fleet.lenders["desk"].owner("pause").returncode == 0
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["true"], queue_s=1.0)
        with pytest.raises(Expired, match="no task of it had begun after 1 s"):
            await job.result(TIME_S)


@pytest.mark.parametrize("stands", ["running", "paused"])
async def test_cancelling_kills_what_runs(fleet: Fleet, stands: str) -> None:
    mark = f"3{secrets.randbelow(10**9)}"
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["sh", "-c", f"trap '' TERM; sleep {mark} & wait"])
        wait_until(lambda: bool(_running(mark)), "the task runs")
        if stands == "paused":
            assert fleet.lenders["desk"].owner("pause").returncode == 0
        await job.cancel()
        wait_until(lambda: not _running(mark), "its processes are gone")
        assert (await job.ended(TIME_S)).state == "cancelled"


def _running(mark: str) -> list[str]:
    """The processes with `mark` as an argument."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(process.parent.name)
    return found
