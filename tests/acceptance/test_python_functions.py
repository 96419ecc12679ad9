"""A submitter's own functions run on somebody else's machine, and their values come back."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import StandingFleet

from deploy.local.fleet import Fleet
from lender.client import Client, JobFailed, Limits, Rejected, TaskFailed, UntrustedValue

# The first of them waits for a whole fleet, on a machine that may be busy.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    """A machine whose owner lets functions run."""
    with StandingFleet("desk", workloads=("python",)) as fleet:
        yield fleet


@pytest.fixture
def pythons(standing: StandingFleet) -> Fleet:
    return standing.in_order()


async def test_functions_run_elsewhere_and_their_values_come_back(pythons: Fleet) -> None:
    offset = 100

    def add(one: int, other: int) -> dict[str, object]:
        return {"sum": one + other + offset, "folder": str(Path.cwd()), "data": (b"\0", None)}

    async with Client(pythons.url, pythons.key) as client:
        job = await client.submit_function(add, 20, 3)
        found = await job.value(timeout_s=40)
        assert found == {"sum": 123, "folder": "/work", "data": (b"\0", None)}

        squares = await client.map(lambda number: number * number, range(300))
        assert await squares.in_order() == [number * number for number in range(300)]

        with pytest.raises(Rejected, match="nothing to call"):
            await client.map(add, [])
        with pytest.raises(Rejected, match="can't be pickled"):
            await client.submit_function(lambda: client)


async def test_what_a_function_raises_is_told(pythons: Fleet) -> None:
    def divide(number: int) -> float:
        print("about to divide by", number)  # noqa: T201 - it goes along with the result
        return 1 / number

    async with Client(pythons.url, pythons.key) as client:
        job = await client.submit_function(divide, 0)
        with pytest.raises(JobFailed, match="ZeroDivisionError: division by zero"):
            await job.value(timeout_s=40)
        terminal = await job.job.ended(timeout_s=10)
        assert terminal.result is not None
        assert terminal.result.stderr_tail.startswith(b"about to divide by 0\nTraceback")

        halves = await client.map(divide, [2, 0, 4])
        with pytest.raises(TaskFailed, match="task 1 of job"):
            await halves.in_order()

        job = await client.submit_function(
            lambda: bytearray(1 << 33), limits=Limits(memory_bytes=64 << 20)
        )
        with pytest.raises(JobFailed, match="memory limit"):
            await job.value(timeout_s=40)


async def test_a_pickle_from_a_lender_is_opened_on_demand_only(pythons: Fleet) -> None:
    async with Client(pythons.url, pythons.key) as client:
        job = await client.submit_function(lambda: {1, 2})
        with pytest.raises(UntrustedValue):
            await job.value(timeout_s=40)
        assert await job.value(timeout_s=10, trust=True) == {1, 2}


async def test_a_function_for_a_python_that_nobody_has_waits_and_says_so(
    pythons: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lender.client.functions.VERSION", "3.99")
    async with Client(pythons.url, pythons.key) as client:
        job = await client.submit_function(lambda: 1)
        async with asyncio.timeout(20):
            while not (why := await client.why(job.job)):  # noqa: ASYNC110 - the broker is asked
                await asyncio.sleep(0.05)
        assert "none lends python (python 3.99)" in why
        await job.job.cancel()
