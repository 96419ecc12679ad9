"""The client of programs that have no event loop."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fleet import StandingFleet

from deploy.local.fleet import Fleet
from lender.client import Cancelled, Client, JobFailed, Unreachable
from lender.client.blocking import BlockingClient

WAIT_S = 60


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", "attic") as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


def test_jobs_are_submitted_followed_and_fetched(fleet: Fleet, tmp_path: Path) -> None:
    with BlockingClient(Client(fleet.url, fleet.key)) as client:
        before = {one.job for one in client.jobs()}
        job = client.submit(
            ["sh", "-c", "echo {task} | tee out; echo said {task} >&2"], array=3, outputs=["out"]
        )
        assert b"".join(sorted(piece.content for piece in job.log())) == b"said 0\nsaid 1\nsaid 2\n"
        found = {one.result.task: one.result for one in job.results()}
        assert sorted(found) == [0, 1, 2]
        assert [job.value(found[task]) for task in range(3)] == [b"0\n", b"1\n", b"2\n"]
        (path,) = job.download(found[2], tmp_path)
        assert path.read_bytes() == b"2\n"
        assert {piece.content for piece in job.log_so_far()} == {
            b"said %d\n" % task for task in range(3)
        }
        assert [piece.task for piece in job.log_so_far(1)] == [1]
        assert job.ended(WAIT_S).state == "succeeded"
        assert client.get(job.id).terminal() is not None
        assert {one.job for one in client.jobs()} - before == {job.id}
        status = client.status(job.id)
        assert status is not None
        assert status.state == client.why(job.id) == client.why(job.id, 2) == "succeeded"
        record = job.task(2)
        assert record is not None
        assert record.result == found[2]

        broken = client.submit(["false"])
        with pytest.raises(JobFailed):
            broken.result(WAIT_S)
        with pytest.raises(JobFailed):
            client.retry(broken).result(WAIT_S)
        assert client.why(broken, 0) == "failed with exit code 1"
        endless = client.submit(["sleep", "1000"])
        with pytest.raises(TimeoutError):
            endless.result(0.01)
        assert endless.task(0) is None
        endless.cancel()
        with pytest.raises(Cancelled):
            endless.result(WAIT_S)


def test_several_threads_share_a_client_and_one_may_stop_half_way(fleet: Fleet) -> None:
    with BlockingClient(Client(fleet.url, fleet.key)) as client, ThreadPoolExecutor(4) as threads:

        def echo(word: str) -> bytes:
            return client.submit(["echo", word]).result(WAIT_S).value

        assert list(threads.map(echo, "abcd")) == [b"a\n", b"b\n", b"c\n", b"d\n"]
        job = client.submit(["true"], array=5)
        for _ in job.results():
            break
        assert len(list(job.results())) == 5
    assert not [one for one in threading.enumerate() if one.name == "lender-client"]


def test_what_is_not_there_or_not_open_says_so_at_once(fleet: Fleet) -> None:
    with (
        pytest.raises(Unreachable),
        BlockingClient(Client("nats://127.0.0.1:1", fleet.key)),
    ):
        raise AssertionError
    assert not [one for one in threading.enumerate() if one.name == "lender-client"]

    blocking = BlockingClient(Client(fleet.url, fleet.key))
    with pytest.raises(RuntimeError, match="with BlockingClient"):
        blocking.jobs()

    async def use_too_early_and_too_late() -> None:
        client = Client(fleet.url, fleet.key)
        for ask in (client.jobs, lambda: client.submit(["true"]), lambda: client.get("job-0001")):
            with pytest.raises(RuntimeError, match="async with Client"):
                await ask()
        async with client:
            pass
        async with asyncio.timeout(WAIT_S / 3):  # sooner than the client's own timeout
            for ask in (client.jobs, lambda: client.submit(["true"])):
                with pytest.raises(Unreachable, match="closed"):
                    await ask()

    asyncio.run(use_too_early_and_too_late())
