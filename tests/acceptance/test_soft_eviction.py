"""Work that keeps checkpoints goes on elsewhere where it was, unless its owner said no."""

import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.fleet import Fleet, Lender, wait_until
from lender.client.client import Client
from lender.client.job import Job
from lender.client.specs import JobRequest, job_spec, payload_of

pytestmark = pytest.mark.timeout(120)

STEPS = 60
ASKED = f"""
began=$(cat checkpoint/n 2>/dev/null || echo 0); n=$began
trap 'echo $n > checkpoint/n; exit 3' TERM
while [ $n -lt {STEPS} ]; do sleep 0.05; n=$((n+1)); done
echo $began
"""
"""Writes down how far it came when it is asked to end."""

ALWAYS = f"""
began=$(cat checkpoint/n 2>/dev/null || echo 0); n=$began
while [ $n -lt {STEPS} ]; do sleep 0.05; n=$((n+1)); echo $n > .n; mv .n checkpoint/n; done
echo $began
"""
"""Writes it down after every step."""


@pytest.fixture
def fleet(fleet_folder: Path) -> Iterator[Fleet]:
    env = {"LENDERD_FROZEN_HANDBACK_S": "0.5"}
    with Fleet(fleet_folder, ("desk", "attic"), env=env) as running:
        yield running


async def submit(client: Client, script: str) -> Job:
    request = JobRequest(argv=("sh", "-c", script))
    spec = job_spec(
        request,
        job=f"job-{secrets.token_hex(6)}",
        submitter=client.public_key,
        now=time.time(),
        program=None,
        inputs={},
    ).model_copy(update={"checkpoint": True})
    await client._session.ledger.submit(spec.id, payload_of(spec))
    return await client.get(spec.id)


def holder(fleet: Fleet) -> Lender:
    wait_until(lambda: any(map(Lender.busy, fleet.lenders.values())), "a task at work")
    (busy,) = (one for one in fleet.lenders.values() if one.busy())
    time.sleep(0.5)  # some steps of the task
    return busy


async def began_at(job: Job) -> int:
    terminal = await job.ended(timeout_s=60)
    assert terminal.state == "succeeded", terminal
    assert terminal.result is not None
    return int(terminal.result.value)


async def test_a_lender_that_stops_asks_first_and_another_goes_on(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await submit(client, ASKED)
        holder(fleet).stop()
        assert await began_at(job) > 0


async def test_a_drain_of_the_owners_asks_before_its_deadline(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await submit(client, ASKED)
        said = holder(fleet).owner("drain", "--deadline", "10s")
        assert said.returncode == 0, said.stderr
        assert await began_at(job) > 0


async def test_frozen_work_is_handed_back_as_it_stands(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await submit(client, ALWAYS)
        said = holder(fleet).owner("pause")
        assert said.returncode == 0, said.stderr
        assert await began_at(job) > 0


async def test_what_was_revoked_leaves_nothing(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await submit(client, ALWAYS)
        said = holder(fleet).owner("revoke", "--all")
        assert said.returncode == 0, said.stderr
        assert await began_at(job) == 0


async def test_the_receipt_of_an_attempt_counts_what_left_with_it(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await submit(client, ASKED)
        desk = holder(fleet)
        desk.stop()
        await began_at(job)
    log = (desk.state / "receipts.jsonl").read_text()
    assert re.search(r'"outcome": ?"evicted"', log)
    found = re.search(r'"bytes_out": ?([0-9]+)', log)
    assert found is not None
    assert int(found[1]) >= 2048, "an archive"
