"""A job that keeps checkpoints goes on elsewhere from where it stood."""

import asyncio
from pathlib import Path

import pytest
from fleet import working_folders

from deploy.local.fleet import Fleet, Lender, wait_until
from lender.cli.exits import Exit
from lender.client.client import Client
from lender.client.job import Job

STEPS = 60
SEEN = 10
# Whole fleets start, and each step starts programs.
pytestmark = pytest.mark.timeout(150)

COUNT = """
at=$(cat checkpoint/at 2>/dev/null || echo 0); began=$at
{trap}
while [ $at -lt {steps} ]; do sleep 0.1; at=$((at + 1)); {step} echo $at > at; done
echo $began $at
"""


def step_by_step(steps: int) -> str:
    """Each step is durable as it is made: a whole file gets the name."""
    step = "echo $at > checkpoint/next; mv checkpoint/next checkpoint/at;"
    return COUNT.format(trap="", steps=steps, step=step)


def when_asked(steps: int) -> str:
    """Nothing is durable before it is asked for: so it was asked, and given time."""
    trap = "trap 'sleep 0.3; echo $at > checkpoint/at; exit 1' TERM"
    return COUNT.format(trap=trap, steps=steps, step="")


def stands_at(lender: Lender) -> int:
    """How far the task that runs there has come; 0 where none does."""
    try:
        return max(int(path.read_text() or 0) for path in lender.state.glob("scratch/*/at"))
    except (ValueError, OSError):
        return 0


async def whoever_is_under_way(fleet: Fleet) -> Lender:
    """The lender that has come far enough."""
    lenders = fleet.lenders.values()
    await asyncio.to_thread(
        wait_until, lambda: any(stands_at(one) >= SEEN for one in lenders), "the first steps", 60
    )
    return max(lenders, key=stands_at)


async def owner_says(lender: Lender, *verb: str) -> None:
    """The owner's word counts also where lenderd is too busy to answer at once."""
    said = await asyncio.to_thread(lender.owner, *verb)
    assert said.returncode in (Exit.DONE, Exit.UNREACHABLE), said.stdout + said.stderr


async def began_and_ended(job: Job) -> tuple[int, int]:
    value = (await job.result(timeout_s=80)).value
    began, ended = value.split()
    return int(began), int(ended)


@pytest.mark.parametrize(
    ("script", "deadline"),
    # Of a deadline, a task gets what the upload leaves.
    [(step_by_step(STEPS), "1s"), (when_asked(STEPS), "12s")],
    ids=["step by step", "when asked"],
)
async def test_a_drained_machine_hands_its_work_on(
    script: str, deadline: str, fleet: Fleet
) -> None:
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["sh", "-c", script], checkpoint=True)
        holder = await whoever_is_under_way(fleet)
        await owner_says(holder, "drain", "--deadline", deadline)
        began, ended = await began_and_ended(job)
        assert ended == STEPS
        assert began >= SEEN
        terminal = await job.terminal()
    assert terminal is not None
    assert terminal.attempt == 2
    assert terminal.lender != holder.status()["lender"]
    assert working_folders(holder) == []


async def test_what_stood_still_too_long_is_handed_on_as_it_stood(open_folder: Path) -> None:
    env = {"LENDERD_FROZEN_HANDBACK_S": "1"}
    with Fleet(open_folder, ("desk", "attic"), env=env) as fleet:
        async with Client(fleet.url, fleet.key) as client:
            job = await client.submit(["sh", "-c", step_by_step(STEPS)], checkpoint=True)
            holder = await whoever_is_under_way(fleet)
            await owner_says(holder, "pause")
            began, ended = await began_and_ended(job)
            assert ended == STEPS
            assert began >= SEEN


async def test_it_waits_for_its_machine_through_a_crash_of_the_broker(open_folder: Path) -> None:
    """`drain --wait` returns when nothing is left here: the checkpoint is stored by then."""
    with Fleet(open_folder) as fleet:
        async with Client(fleet.url, fleet.key) as client:
            job = await client.submit(["sh", "-c", step_by_step(STEPS)], checkpoint=True)
            desk = await whoever_is_under_way(fleet)
            await owner_says(desk, "drain", "--deadline", "1s", "--wait")
            fleet.broker.kill()
            await asyncio.to_thread(fleet.start_broker)
            await owner_says(desk, "resume")
            began, ended = await began_and_ended(job)
            assert ended == STEPS
            assert began >= SEEN


async def test_each_task_of_an_array_goes_on_from_its_own(fleet: Fleet) -> None:
    steps = 3 * SEEN
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["sh", "-c", step_by_step(steps)], array=3, checkpoint=True)
        holder = await whoever_is_under_way(fleet)
        await owner_says(holder, "drain", "--deadline", "1s")
        values = {one.result.task: one.result.value.split() async for one in job.results()}
    assert {task: int(ended) for task, (_, ended) in values.items()} == dict.fromkeys(
        range(3), steps
    )
    assert sum(int(began) >= SEEN for began, _ in values.values()) == 1


async def test_without_the_word_a_task_begins_anew(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        script = f"mkdir checkpoint; {step_by_step(3 * SEEN)}"
        job = await client.submit(["sh", "-c", script])
        holder = await whoever_is_under_way(fleet)
        await owner_says(holder, "drain", "--deadline", "1s")
        assert await began_and_ended(job) == (0, 3 * SEEN)
