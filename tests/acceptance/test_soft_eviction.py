"""A lenderd that ends asks its work to end first; what an owner revokes leaves nothing."""

import asyncio
import json

import pytest

from deploy.local.fleet import Fleet, Lender, wait_until
from lender.client.client import Client
from lender.client.job import Job

pytestmark = pytest.mark.timeout(120)

STEPS, SEEN = 60, 5
STEP_BY_STEP = f"""
n=$(cat checkpoint/n 2>/dev/null || echo 0); began=$n
while [ $n -lt {STEPS} ]; do
  sleep 0.1; n=$((n + 1)); echo $n > n; cp n checkpoint/next; mv checkpoint/next checkpoint/n
done
echo $began
"""
# Nothing is kept before it is asked for: that shows that the task was asked, and given time.
WHEN_ASKED = f"""
n=$(cat checkpoint/n 2>/dev/null || echo 0); began=$n
trap 'sleep 0.3; echo $n > checkpoint/n; exit 1' TERM
while [ $n -lt {STEPS} ]; do sleep 0.1; n=$((n + 1)); echo $n > n; done
echo $began
"""


def steps_on(lender: Lender) -> int:
    """How far the task that runs there has come; 0 where none does."""
    try:
        return max(int(path.read_text() or 0) for path in lender.state.glob("scratch/*/n"))
    except (ValueError, OSError):
        return 0


async def holder_of_work(fleet: Fleet) -> Lender:
    lenders = fleet.lenders.values()
    under_way = lambda: max(map(steps_on, lenders)) >= SEEN  # noqa: E731 - a question
    await asyncio.to_thread(wait_until, under_way, "some steps")
    return max(lenders, key=steps_on)


async def began_at(job: Job) -> int:
    return int((await job.result(timeout_s=80)).value)


async def test_a_lenderd_that_ends_asks_first_and_another_goes_on(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["sh", "-c", WHEN_ASKED], checkpoint=True)
        holder = await holder_of_work(fleet)
        await asyncio.to_thread(holder.stop)
        assert await began_at(job) >= SEEN
    (line,) = (holder.state / "receipts.jsonl").read_text().splitlines()
    receipt = json.loads(line)
    assert (receipt["outcome"], receipt["ended"]) == ("evicted", "the lender shut down")
    assert receipt["bytes_out"] >= 2048, "the archive has left the machine, and counts"


async def test_what_an_owner_revokes_leaves_nothing(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["sh", "-c", STEP_BY_STEP], checkpoint=True)
        holder = await holder_of_work(fleet)
        said = await asyncio.to_thread(holder.owner, "revoke", "--all")
        assert said.returncode == 0, said.stderr
        assert await began_at(job) == 0
    (line,) = (holder.state / "receipts.jsonl").read_text().splitlines()
    assert json.loads(line)["bytes_out"] == 0
