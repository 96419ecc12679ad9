"""What an operator reads of a broker while a job runs."""

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import open_folder
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from deploy.local.fleet import Fleet, Part, wait_until
from lender.client.client import Client
from lender.service.logs import ALWAYS, WHERE_KNOWN

__all__ = ["open_folder"]


SECRET = "s3cr3t-of-alice"


@pytest.fixture
def fleet(open_folder: Path) -> Iterator[Fleet]:
    env = {"LENDERD_METRICS": "0", "LENDERD_LOG_FORMAT": "json", "LENDERD_LOG_LEVEL": "debug"}
    one = Fleet(open_folder, ("desk",), workloads=("command",), env=env)
    one.broker.env["LENDER_BROKER_METRICS"] = "0"
    one.broker.env["LENDER_BROKER_LOG_FORMAT"] = "json"
    one.broker.env["LENDER_BROKER_LOG_LEVEL"] = "debug"
    with one as running:
        yield running


def address(part: Part) -> str:
    """Where a part of the fleet serves its metrics, as it says in its log."""
    found = re.findall(r'metrics: (http://[^\s"]+)', part.log.read_text())
    return str(found[-1])


def scrape(part: Part) -> dict[str, float]:
    """All series of a part; the parser is the reference one, and strict."""
    with urllib.request.urlopen(address(part), timeout=20) as answer:
        text = answer.read().decode()
    return {
        sample.name + "".join(f".{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sees(part: Part, series: str, value: float) -> None:
    """Wait until it says so."""
    wait_until(lambda: scrape(part)[series] == value, f"{series} {value}")


async def run_jobs(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        sleeper = await client.submit(["sleep", "60"])
        await asyncio.to_thread(sees, fleet.broker, "lender_broker_leases.held", 1)
        found = await asyncio.to_thread(scrape, fleet.broker)
        assert found["lender_broker_leading"] == 1
        assert found["lender_broker_jobs.running"] == 1
        assert found["lender_broker_lenders.lending"] == 1
        assert found["lender_broker_lent_cores"] >= 1
        await sleeper.cancel()
        await sleeper.ended(timeout_s=20)
        good = await client.submit(["true"])
        assert str((await good.ended(timeout_s=20)).state) == "succeeded"


async def run_one(fleet: Fleet) -> str:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["true"], env={"TOKEN": SECRET})
        assert str((await job.ended(timeout_s=20)).state) == "succeeded"
        return job.id


def both_tell_of(fleet: Fleet, job: str) -> None:
    """The logs of both name the job and its attempt in fields, every line is JSON, no secret is."""
    leases = []
    for part in (fleet.broker, fleet.lenders["desk"]):
        text = part.log.read_text()
        lines = [json.loads(one) for one in text.splitlines()]
        assert all({*one} <= {*ALWAYS, *WHERE_KNOWN} for one in lines)
        named = [one for one in lines if one.get("job") == job]
        leases += [{one["lease"] for one in named if one.get("attempt") == 1}]
        seed = (fleet.lenders["desk"].state / "identity.nk").read_text().strip()
        for secret in (SECRET, fleet.submitter_seed.decode(), seed):
            assert secret not in text
    assert len(leases[0]) == 1
    assert leases[0] == leases[1]


def test_what_broker_and_lender_tell_while_jobs_run(fleet: Fleet) -> None:
    asyncio.run(run_jobs(fleet))
    sees(fleet.broker, "lender_broker_jobs_ended_total.succeeded", 1)
    found = scrape(fleet.broker)
    assert found["lender_broker_submissions_total"] == 2
    assert found["lender_broker_jobs_ended_total.succeeded"] == 1
    assert found["lender_broker_jobs_ended_total.cancelled"] == 1
    assert found["lender_broker_tasks_ended_total.succeeded"] == 1
    assert found["lender_broker_leases_placed_total"] == 2
    assert found["lender_broker_lease_wait_seconds_count"] == 2
    assert found["lender_broker_records_stored_total"] >= 2
    assert found["lender_broker_results_sequence"] >= 3
    assert found["lender_broker_takeover_seconds"] > 0
    ready = address(fleet.broker).replace("/metrics", "/ready")
    with urllib.request.urlopen(ready, timeout=20) as answer:
        assert answer.status == 200
    sees(fleet.broker, "lender_broker_jobs.running", 0)
    tells_of_a_day_when_it_is_over(fleet)


def tells_of_a_day_when_it_is_over(fleet: Fleet) -> None:
    """A lending machine, at the same fleet: to start one takes seconds."""
    desk = fleet.lenders["desk"]
    sees(desk, "lenderd_connected", 1)
    before = scrape(desk)
    assert before["lenderd_slots"] == 1
    both_tell_of(fleet, asyncio.run(run_one(fleet)))
    assert desk.owner("pause").returncode == 0
    assert desk.owner("resume").returncode == 0
    assert scrape(desk) == before
    desk.stop()
    kept = json.loads((desk.state / "metrics.json").read_text())
    kept["day"] -= 1
    (desk.state / "metrics.json").write_text(json.dumps(kept))
    desk.log.unlink()
    desk.start()
    wait_until(lambda: desk.lending() and "metrics: " in desk.said(), "a lender that is back")
    found = scrape(desk)
    assert found["lenderd_attempts_total.succeeded"] == 2
    assert found["lenderd_pause_seconds_count"] == 1
    assert found["lenderd_phase_seconds_total.lending"] > 0
