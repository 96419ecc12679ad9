"""The sandbox of a job waits for more of it, and is gone when anything else holds."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from fleet import StandingFleet, working_folders

from deploy.local.fleet import Fleet, Lender, wait_until
from lender.client.client import Client
from lender.client.job import Job
from lender.core.kept_sandboxes import KEEP_S
from lender.sandbox.processes import tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords

pytestmark = pytest.mark.timeout(240)

TASKS = 12
COMMAND = ("sh", "-c", "sleep 0.05; echo {task}")


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    """One machine with one slot: leases of a job follow each other."""
    with StandingFleet("desk") as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    fleet = standing.in_order()
    desk = fleet.lenders["desk"]
    if warm(desk):
        desk.owner("pause")
        desk.owner("resume")
        fleet.wait_lending(desk)
    wait_until(lambda: not records(desk), "the end of the sandboxes of the test before")
    return fleet


@pytest.fixture
def desk(fleet: Fleet) -> Lender:
    return fleet.lenders["desk"]


def records(desk: Lender) -> tuple[AttemptRecord, ...]:
    return AttemptRecords(desk.state / "attempts").read_all().records


def receipts(desk: Lender, job: Job) -> list[dict[str, object]]:
    lines = (desk.state / "receipts.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if one.get("job") == job.id]


def warm(desk: Lender) -> object:
    return desk.status()["warm"]


async def run_to_the_end(client: Client, desk: Lender) -> tuple[Job, set[tree.Root], set[str]]:
    """Run an array; return it, the sandboxes seen, and the leases they had."""
    job = await client.submit(COMMAND, array=TASKS)
    roots: set[tree.Root] = set()
    leases: set[str] = set()
    ended = asyncio.create_task(job.ended(timeout_s=100))
    while not ended.done():
        for one in records(desk):
            if one.job == job.id:
                roots.update(one.roots)
                leases.add(one.lease)
        await asyncio.sleep(0.005)
    assert ended.result().state == "succeeded"
    values = {one.result.task: one.result.value async for one in job.results()}
    assert values == {task: f"{task}\n".encode() for task in range(TASKS)}
    return job, roots, leases


async def test_one_sandbox_serves_lease_after_lease_and_each_has_its_receipt(
    fleet: Fleet, desk: Lender
) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job, roots, leases = await run_to_the_end(client, desk)
    assert len(leases) > 1
    assert len(roots) == 1, "all of them in the sandbox of the first"
    wait_until(lambda: len(receipts(desk, job)) >= len(leases), "a receipt for each lease")
    written = receipts(desk, job)
    assert {one["outcome"] for one in written} == {"succeeded"}
    assert sum(int(str(one["tasks_run"])) for one in written) == TASKS
    # Each second of the sandbox's processor time counts once, for the lease that used it.
    assert sum(float(str(one["cpu_s"])) for one in written) < 1.0
    assert warm(desk) == [{"job": job.id, "sandboxes": 1}]
    (root,) = roots
    wait_until(lambda: not tree.alive(root), "the end of the idle sandbox", KEEP_S + 5)
    wait_until(lambda: not records(desk), "the record goes with it")
    assert warm(desk) == []
    assert len(receipts(desk, job)) == len(written)
    assert not working_folders(desk)


@pytest.mark.parametrize("verb", [("pause",), ("revoke", "--all"), ("drain",)])
async def test_the_owners_word_ends_an_idle_sandbox_at_once(
    fleet: Fleet, desk: Lender, verb: tuple[str, ...]
) -> None:
    async with Client(fleet.url, fleet.key) as client:
        _job, roots, _leases = await run_to_the_end(client, desk)
    assert warm(desk), "it waits"
    said = desk.owner(*verb)
    assert said.returncode == 0, said.stdout + said.stderr
    assert not any(map(tree.alive, roots))


async def test_lenderd_that_is_killed_leaves_no_second_receipt(fleet: Fleet, desk: Lender) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job, roots, leases = await run_to_the_end(client, desk)
        wait_until(lambda: len(receipts(desk, job)) >= len(leases), "a receipt for each lease")
        assert records(desk), "the idle sandbox has a record"
        desk.kill()
        wait_until(lambda: not any(map(tree.alive, roots)), "its end, with the launcher's")
        desk.start()
        wait_until(desk.lending, "lending again")
    assert not records(desk)
    assert [one["outcome"] for one in receipts(desk, job)] == ["succeeded"] * len(leases)


async def test_a_revoke_without_lenderd_finds_an_idle_sandbox(fleet: Fleet, desk: Lender) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job, roots, leases = await run_to_the_end(client, desk)
    wait_until(lambda: len(receipts(desk, job)) >= len(leases), "a receipt for each lease")
    assert desk.process is not None
    desk.process.send_signal(19)  # SIGSTOP: it hangs, and keeps its sandbox
    said = desk.owner("revoke", "--all", "--json")
    assert not any(map(tree.alive, roots))
    assert json.loads(said.stdout)["verified"] is True
    assert [one["outcome"] for one in receipts(desk, job)] == ["succeeded"] * len(leases)


async def test_another_job_goes_on_in_it_if_it_asks_for_the_same_and_is_told_its_own_names(
    fleet: Fleet, desk: Lender
) -> None:
    tell = ("sh", "-c", "ls /work /tmp; touch /work/left /tmp/left; echo $LENDER_JOB")
    async with Client(fleet.url, fleet.key) as client:
        _job, first, _leases = await run_to_the_end(client, desk)
        _job, second, _leases = await run_to_the_end(client, desk)
        assert first == second
        jobs = [await client.submit(tell) for _ in range(3)]
        values = [(await job.result(60)).value.decode().split() for job in jobs]
    assert [one[-1] for one in values] == [job.id for job in jobs]
    assert not any("left" in one for one in values)


async def test_a_list_of_other_words_goes_on_in_it_and_outlives_lenderd(
    fleet: Fleet, desk: Lender
) -> None:
    command = ("sh", "-c", 'sleep 0.05; printf "%s|" "$LENDER_JOB" "$@"', "sh", "all")
    lists = ((("a b",), ("", "-x"), ()), (("ü",), ("{task}",)), [(f"late {n}",) for n in range(6)])
    seen: list[set[tree.Root]] = []
    async with Client(fleet.url, fleet.key) as client:
        for number, each in enumerate(lists):
            job = await client.submit(command, each=each)
            values: dict[int, bytes] = {}
            async for record in job.results():
                assert record.result.task not in values
                values[record.result.task] = record.result.value
                if number == 0 or (number == 1 and len(values) == 1):
                    seen.append({root for one in records(desk) for root in one.roots})
                if number == 2 and len(values) == 1:
                    desk.stop()
                    desk.start()
            told = [(job.id, "all", *(word.replace("{task}", "1") for word in one)) for one in each]
            assert [values[task].decode() for task in range(len(each))] == [
                "".join(f"{word}|" for word in one) for one in told
            ]
    assert all(one == seen[0] for one in seen), "all of them in the sandbox of the first"


async def test_jobs_that_go_together_are_each_told_of_themselves_alone(fleet: Fleet) -> None:
    command = ("sh", "-c", 'echo "$LENDER_JOB" "$LENDER_TASK" "$LENDER_TASK_COUNT" "$1"', "sh")
    async with Client(fleet.url, fleet.key, together=True) as client:
        jobs = await asyncio.gather(*(client.submit([*command, f"{n}"]) for n in range(6)))
        said = [(await job.result(60)).value.decode().split() for job in jobs]
    assert said == [[job.id, "0", "1", f"{n}"] for n, job in enumerate(jobs)]
    assert any("-" in job.id for job in jobs), "some of them went together"
