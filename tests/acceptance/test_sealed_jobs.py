"""Sealed jobs: machines of the submitter's choice work on what nobody between them can read."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import live_files
import pytest
from fleet import StandingFleet

from deploy.local.fleet import Fleet, Lender, wait_until
from lender.client import Client, JobFailed, Rejected, UntrustedResult

pytestmark = pytest.mark.timeout(120)

TIME_S = 60


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", "attic", workloads=("command", "python")) as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


def key(fleet: Fleet, name: str) -> str:
    found: str = fleet.lenders[name].status()["lender"]
    return found


def stored(fleet: Fleet, marks: list[bytes]) -> list[bytes]:
    """Which of these stand anywhere in what the server has on its disk."""
    found = set()
    for path, content in live_files.contents(fleet.folder):
        if "jetstream" in path.parts:
            found |= {mark for mark in marks if mark in content}
    return sorted(found)


async def test_nothing_that_a_sealed_job_reads_or_leaves_is_stored_in_the_clear(
    fleet: Fleet, tmp_path: Path
) -> None:
    marks = [f"secret-{name}-{os.urandom(8).hex()}" for name in ("in", "out", "said", "value")]
    shown = f"shown-{os.urandom(8).hex()}"
    script = (
        f'cat in.txt; printf %s "$(echo {marks[3][::-1]} | rev)"; tr a-z A-Z < in.txt > out.txt;'
        " cat in.txt >&2"
    )
    trusted = [key(fleet, "desk")]
    async with Client(fleet.url, fleet.key, trusted_lenders=trusted) as client:
        job = await client.submit(
            ["sh", "-c", script],
            inputs={"in.txt": f"{marks[0]}\n".encode() * 9000},
            outputs=["out.txt"],
            name=shown,
            sealed=True,
        )
        result = await job.result(TIME_S)
        assert result.terminal.lender == trusted[0]
        assert result.value == f"{marks[0]}\n".encode() * 9000 + marks[3].encode()
        assert result.terminal.result is not None
        assert result.terminal.result.stderr_tail.endswith(f"{marks[0]}\n".encode())
        (path,) = await job.download(result.terminal.result, tmp_path)
        assert path.read_text() == f"{marks[0].upper()}\n" * 9000
        said = [piece.content async for piece in job.log()]
        assert b"".join(said).endswith(f"{marks[0]}\n".encode())
    async with Client(fleet.url, fleet.key, trusted_lenders=trusted) as client:
        again = await client.get(job.id)  # another process, with the same key
        assert (await again.result(TIME_S)).value == result.value
    hidden = [mark.encode() for mark in (marks[0], marks[0].upper(), marks[3])]
    assert stored(fleet, [*hidden, shown.encode()]) == [shown.encode()]


async def test_a_sealed_function_and_its_error_are_read_by_its_submitter_alone(
    fleet: Fleet,
) -> None:
    secret = f"secret-{os.urandom(8).hex()}"

    def work(number: int) -> str:
        if number == 2:
            raise ValueError(secret)
        return f"{secret} {number}"

    async with Client(fleet.url, fleet.key, trusted_lenders=[key(fleet, "attic")]) as client:
        job = (await client.map(work, range(3), sealed=True)).job
        found = {one.result.task: one.result async for one in job.results()}
        assert [found[n].state for n in range(3)] == ["succeeded", "succeeded", "failed"]
        assert found[0].value.endswith(f'{secret} 0"'.encode())
        told = (found[2].error or "") + found[2].stderr_tail.decode()
        assert f"ValueError: {secret}" in told
        alone = (await client.submit_function(work, 2, sealed=True)).job
        with pytest.raises(JobFailed):
            await alone.result(TIME_S)
    assert stored(fleet, [secret.encode()]) == []


async def test_no_other_machine_gets_it_to_do(fleet: Fleet) -> None:
    desk = fleet.lenders["desk"]
    await asyncio.to_thread(desk.owner, "pause")
    async with Client(fleet.url, fleet.key, trusted_lenders=[key(fleet, "desk")]) as client:
        job = await client.submit(["true"], sealed=True)
        in_the_clear = await client.submit(["true"])
        with pytest.raises(UntrustedResult):  # the other machine's, which works
            await in_the_clear.result(TIME_S)
        assert (await job.terminal()) is None
        await asyncio.to_thread(desk.owner, "resume")
        assert (await job.result(TIME_S)).terminal.lender == key(fleet, "desk")


async def test_a_task_goes_on_from_a_sealed_checkpoint(fleet: Fleet) -> None:
    mark = f"secret-{os.urandom(8).hex()}"
    script = (
        "if test -e checkpoint/seen; then cat checkpoint/seen; exit; fi;"
        f" echo {mark[::-1]} | rev > checkpoint/next; mv checkpoint/next checkpoint/seen;"
        " while :; do sleep 0.1; done"
    )
    lenders = fleet.lenders
    trusted = [key(fleet, name) for name in lenders]
    async with Client(fleet.url, fleet.key, trusted_lenders=trusted) as client:
        job = await client.submit(["sh", "-c", script], checkpoint=True, sealed=True)
        await asyncio.to_thread(
            wait_until, lambda: bool(under_way(fleet)), "the checkpoint", TIME_S
        )
        (holder,) = under_way(fleet)
        await asyncio.to_thread(holder.owner, "drain", "--deadline", "1s")
        result = await job.result(TIME_S)
        assert result.value.strip() == mark.encode()
        assert result.terminal.lender != holder.status()["lender"]
    assert stored(fleet, [mark.encode()]) == []


def under_way(fleet: Fleet) -> list[Lender]:
    """Who has a task that left its mark."""
    return [
        one for one in fleet.lenders.values() if list(one.state.glob("scratch/*/checkpoint/seen"))
    ]


async def test_what_was_opened_goes_with_the_owners_word(fleet: Fleet) -> None:
    mark, desk = f"secret-{os.urandom(8).hex()}", fleet.lenders["desk"]
    async with Client(fleet.url, fleet.key, trusted_lenders=[key(fleet, "desk")]) as client:
        job = await client.submit(["sleep", "600"], inputs={"in.txt": mark.encode()}, sealed=True)
        await asyncio.to_thread(
            wait_until, lambda: holding(desk.state, mark) != [], "it runs", TIME_S
        )
        assert desk.process is not None
        desk.process.send_signal(signal.SIGSTOP)  # lenderd hears nothing of it, and is killed
        said = await asyncio.to_thread(desk.owner, "revoke", "--all")
        assert said.returncode == 0, said.stdout + said.stderr
        assert holding(desk.state, mark) == []
        await job.cancel()


def holding(folder: Path, mark: str) -> list[Path]:
    """Files that hold it."""
    return [path for path, content in live_files.contents(folder) if mark.encode() in content]


async def test_who_is_to_read_it_must_be_said(fleet: Fleet) -> None:
    async with Client(fleet.url, fleet.key) as client:
        with pytest.raises(Rejected, match="which lenders may read it"):
            await client.submit(["true"], sealed=True)


def test_the_command_seals_and_opens(fleet: Fleet, tmp_path: Path) -> None:
    trust = tmp_path / "trust"
    trust.write_text(f"{key(fleet, 'desk')}\n")
    (tmp_path / "in.txt").write_text("hello")
    said = fleet.submit(
        *("submit", "--trust", str(trust), "--seal", "--in", f"{tmp_path / 'in.txt'}=in.txt"),
        *("--", "cat", "in.txt"),
    )
    assert (said.returncode, said.stdout) == (0, "hello"), said.stderr
    said = fleet.submit("submit", "--seal", "--", "true")
    assert said.returncode != 0
    assert "--trust" in said.stderr
