"""The main job as people use it: real commands, real daemons, real sandboxes."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import nats
import pytest
from fleet import StandingFleet, working_folders
from nats.aio.subscription import Subscription

from deploy.local.fleet import Fleet, wait_until
from lender.client import catalogue
from lender.client.client import Client

CONTENT = b"lend me your ears\n" * 10_000


# The first of them waits for a whole fleet, on a machine that may be busy.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", "attic", workloads=("command", "wasm")) as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


def test_a_file_is_hashed_on_somebody_elses_machine(fleet: Fleet) -> None:
    (fleet.folder / "file.bin").write_bytes(CONTENT)
    said = fleet.submit("submit", "--", "sha256sum", "file.bin", "--in", "file.bin")
    assert said.returncode == 0, said.stderr
    assert said.stdout == f"{hashlib.sha256(CONTENT).hexdigest()}  file.bin\n"


def test_a_wasm_module_runs_over_an_input(fleet: Fleet) -> None:
    (fleet.folder / "file.bin").write_bytes(CONTENT)
    module = catalogue.load()["checksum"].module
    said = fleet.submit("submit", "--wasm", str(module), "--in", "file.bin", "--", "file.bin")
    assert said.returncode == 0, said.stderr
    assert said.stdout == f"{hashlib.sha256(CONTENT).hexdigest()}  file.bin\n"


async def test_work_goes_to_the_machine_that_has_its_large_input(fleet: Fleet) -> None:
    async def run(content: bytes) -> str | None:
        job = await client.submit(["true"], inputs={"model.bin": content})
        return (await job.result(timeout_s=60)).terminal.lender

    async def goes_where_it_is(content: bytes) -> bool:
        holder = await run(content)
        heard = await offers.subscribe(f"offer.{holder}")
        while hashlib.sha256(content).hexdigest() not in (await _next(heard))["blobs"]:
            pass
        await heard.unsubscribe()
        return await run(content) == holder

    async with Client(fleet.url, fleet.key) as client:
        offers = await nats.connect(fleet.url)
        # Each with an input of its own: where one has come too late, both machines hold that.
        went = [await goes_where_it_is(os.urandom(9 << 20)) for _ in range(8)]
        await offers.close()
    assert went.count(True) >= 7


async def _next(heard: Subscription) -> dict[str, Any]:
    fields: dict[str, Any] = msgpack.unpackb((await heard.next_msg(timeout=30)).data)
    return fields


def test_a_list_is_a_task_for_each_of_its_lines(fleet: Fleet) -> None:
    (fleet.folder / "list").write_text("a b\n\n$HOME\n{task}\nno such\n")
    script = 'test "$1" = "no such" && exit 3; echo "<$1>"'
    said = fleet.submit("submit", "--each", "list", "--", "sh", "-c", script, "sh")
    assert said.stdout == "<a b>\n<$HOME>\n<2>\n"
    assert said.returncode == 1
    assert "task 3 (no such) failed on" in said.stderr
    assert "exit code 3" in said.stderr
    module = str(catalogue.load()["checksum"].module)
    for name in ("a", "b"):
        (fleet.folder / name).write_text(name)
    (fleet.folder / "files").write_text("a\nb\n")
    of_wasm = ("--wasm", module, "--in", "a", "--in", "b", "--each", "files", "--json")
    told = [json.loads(line) for line in fleet.submit("map", *of_wasm).stdout.splitlines()]
    assert [(one["each"], one["value"].split()[0]) for one in told] == [
        ([name], hashlib.sha256(name.encode()).hexdigest()) for name in ("a", "b")
    ]


def test_a_task_of_an_array_is_asked_for_and_ended_by_its_own_name(fleet: Fleet) -> None:
    (fleet.folder / "list").write_text("0\n60\n3\n")
    script = 'echo "say $1" >&2; test "$1" = 60 && sleep 60; echo "did $1"; exit "$1"'
    submit = ("submit", "--no-wait", "--each", "list", "--", "sh", "-c", script, "sh")
    job = fleet.submit(*submit).stdout.strip()
    first, second, third = (f"{job}-{task}" for task in range(3))
    said = fleet.submit("get", "--wait", first)
    assert (said.returncode, said.stdout) == (0, "did 0\n")
    said = fleet.submit("get", "--wait", third)
    assert (said.returncode, said.stdout) == (3, "did 3\n")
    assert "has not ended (attempt 1 " in fleet.submit("get", second).stderr
    (status,) = json.loads(fleet.submit("jobs", "--json", second).stdout)["jobs"]
    assert (status["job"], status["tasks_total"]) == (second, 1)
    assert status["state"] in ("queued", "running")
    assert "attempt 1 " in fleet.submit("why", second).stdout
    assert fleet.submit("cancel", second).stdout == f"cancelled {second}\n"
    assert "was cancelled" in fleet.submit("get", second).stderr
    assert "✗ ended: " in fleet.submit("why", second).stdout
    assert fleet.submit("logs", first).stdout == "say 0\n"
    assert "once more" in fleet.submit("retry", third).stderr
    assert "tasks      3: 1 succeeded, 2 failed" in fleet.submit("jobs", job).stdout
    assert f"no job {job}-3" in fleet.submit("get", f"{job}-3").stderr
    logs = [lender.owner("log", first).stdout for lender in fleet.lenders.values()]
    assert any(job in log for log in logs)


def test_an_output_file_comes_back(fleet: Fleet) -> None:
    arguments = ("--out", "sum.txt", "--", "sh", "-c", "echo forty-two > sum.txt")
    said = fleet.submit("submit", *arguments)
    assert said.returncode == 0, said.stderr
    assert (fleet.folder / "sum.txt").read_text() == "forty-two\n"


def test_the_exit_code_is_the_tasks_own(fleet: Fleet) -> None:
    said = fleet.submit("submit", "--", "sh", "-c", "echo no >&2; exit 7")
    assert said.returncode == 7
    assert "no" in said.stderr


async def test_pause_moves_the_work_on_and_resume_brings_it_back(fleet: Fleet) -> None:
    desk, attic = fleet.lenders["desk"], fleet.lenders["attic"]
    said = desk.owner("pause", "--json")
    assert said.returncode == 0, said.stderr
    assert desk.owner("status", "--check").returncode == 3
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["sh", "-c", "echo {task}"], array=10)
        ran_on = {record.lender async for record in job.results()}
        assert ran_on == {attic.status()["lender"]}
        assert desk.owner("resume").returncode == 0
        wait_until(desk.lending, "desk lending again")
        assert attic.owner("pause").returncode == 0
        job = await client.submit(["sh", "-c", "echo {task}"], array=10)
        assert {record.lender async for record in job.results()} == {desk.status()["lender"]}


async def test_a_revoked_task_runs_elsewhere_and_costs_no_retry(fleet: Fleet) -> None:
    """The job must not notice, though it allows no retry."""
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["sh", "-c", "sleep 1; echo done"], array=4)
        holder = _whoever_runs(fleet, job.id)
        said = fleet.lenders[holder].owner("revoke", "--all")
        assert said.returncode == 0, said.stdout + said.stderr
        values = [record.result.value async for record in job.results()]
        assert values == [b"done\n"] * 4
        terminal = await job.ended(timeout_s=10)
        assert (terminal.state, terminal.tasks_failed) == ("succeeded", 0)
    log = json.loads(fleet.lenders[holder].owner("log", job.id, "--json").stdout)
    assert "revoked" in json.dumps(log)
    assert not working_folders(fleet.lenders[holder])


def test_nothing_runs_on_a_machine_whose_owner_has_said_nothing(open_folder: Path) -> None:
    with Fleet(open_folder, ("desk",), grant=False) as fleet:
        said = fleet.submit("submit", "--no-wait", "--", "true")
        assert said.returncode == 0, said.stderr
        waiting = fleet.submit("jobs", "--json")
        assert '"queued"' in waiting.stdout
        assert fleet.lenders["desk"].status()["phase"] == "unconsented"


def _whoever_runs(fleet: Fleet, job: str) -> str:
    found: list[str] = []

    def running() -> bool:
        for name, lender in fleet.lenders.items():
            listed = lender.status()["running"]
            assert isinstance(listed, list)
            if any(one["job"] == job and one["state"] == "running" for one in listed):
                found.append(name)
        return bool(found)

    wait_until(running, f"job {job} running somewhere")
    return found[0]
