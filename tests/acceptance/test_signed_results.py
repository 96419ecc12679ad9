"""Results are known as those of the machines that ran them, from sandbox to submitter."""

from collections.abc import Iterator

import pytest
from fleet import StandingFleet

from deploy.local.fleet import Fleet
from lender.client import Client, UntrustedResult

# The first of them waits for a whole fleet, on a machine that may be busy.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", "attic") as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


def keys(fleet: Fleet) -> list[str]:
    return [lender.status()["lender"] for lender in fleet.lenders.values()]


async def test_results_of_machines_that_are_trusted_come_as_signed(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key, trusted_lenders=keys(fleet)) as client:
        job = await client.submit(
            ["sh", "-c", "echo {task}; echo x > out.txt"], outputs=["out.txt"]
        )
        assert (await job.result(timeout_s=60)).value == b"0\n"
        array = await client.submit(["sh", "-c", "echo {task}"], array=50, retries=1)
        found = [record async for record in array.results()]
        assert sorted(int(one.result.value) for one in found) == list(range(50))
        assert all(one.signed for one in found)
        again = await (await client.get(array.id)).ended(timeout_s=10)
        assert again.state == "succeeded"
        failing = await client.submit(["false"])
        assert (await failing.ended(timeout_s=60)).state == "failed"


async def test_a_result_of_another_machine_is_not_believed(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key, trusted_lenders=[]) as client:
        job = await client.submit(["true"])
        with pytest.raises(UntrustedResult, match="none of those that you trust"):
            await job.result(timeout_s=60)
    async with Client(fleet.url, fleet.key) as client:
        assert (await (await client.get(job.id)).result(timeout_s=60)).terminal.lender


def test_the_command_takes_a_file_of_lenders(fleet: Fleet) -> None:
    trust = fleet.folder / "trust"
    trust.write_text("# of the lab\n\n" + "".join(f"{key} a machine\n" for key in keys(fleet)))
    said = fleet.submit("submit", "--trust", str(trust), "--", "echo", "hello")
    assert (said.returncode, said.stdout) == (0, "hello\n"), said.stderr
    trust.write_text(f"{keys(fleet)[0][:-1]}\n")
    said = fleet.submit("submit", "--trust", str(trust), "--", "true")
    assert said.returncode != 0
    assert "no such key" in said.stderr
    trust.write_text("")
    said = fleet.submit("submit", "--trust", str(trust), "--", "true")
    assert said.returncode != 0
    assert "not to be trusted" in said.stderr
