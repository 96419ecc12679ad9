"""A submitter's client needs its own subjects and no more, and says so when it lacks them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_broker import FakeBroker, fake_broker

from lender.client import Client, NotAdmitted
from lender.client.keys import create_key, read_key
from lender.link.embedded import EmbeddedServer
from lender.protocol.job import JobSpec

ALL = "nats://broker:secret@"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "submitter.nk"
    create_key(path, bytes(range(32)))
    return path


@pytest.fixture
async def guarded(key: Path, tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that lets the submitter use its own subjects only."""
    me = read_key(key).public_key
    publish = [
        f"submit.{me}.*",
        f"cancel.{me}.*",
        f"query.{me}",
        f"$JS.API.DIRECT.GET.JOBS.submit.{me}.*",
        f"$JS.API.DIRECT.GET.RESULTS.res.{me}.>",
    ]
    config = f"""
authorization {{ users: [
  {{ user: broker, password: secret }}
  {{ nkey: {me}, permissions: {{
       publish: {publish}
       subscribe: ["event.{me}.*", "log.{me}.*.*", "_INBOX_{me}.>"] }} }}
] }}"""
    server = EmbeddedServer(tmp_path / "nats", extra_config=config.replace("'", '"'))
    await server.start()
    yield server
    server.kill()


async def work(broker: FakeBroker, spec: JobSpec) -> None:
    broker.events = False
    await broker.chunk(spec, [2, 0])
    await broker.chunk(spec, [1])
    await broker.finish(spec, "succeeded", tasks_succeeded=3, tasks_total=3)


async def test_its_own_subjects_are_enough(guarded: EmbeddedServer, key: Path) -> None:
    broker_url = guarded.url.replace("nats://", ALL)
    async with fake_broker(broker_url, work), Client(guarded.url, key) as client:
        job = await client.submit(["x"], array=3)
        assert (await job.ended(20)).state == "succeeded"
        assert sorted([one.result.task async for one in job.results()]) == [0, 1, 2]
        assert [piece async for piece in job.log()] == []
        assert (await client.get(job.id)).spec == job.spec
        assert await client.jobs()
        await job.cancel()


async def test_a_key_that_the_server_does_not_know(guarded: EmbeddedServer, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.nk"
    create_key(stranger, bytes(32))
    with pytest.raises(NotAdmitted, match="lender-broker allow NAME U"):
        async with Client(guarded.url, stranger, connect_timeout_s=1):
            pass


async def test_a_subject_that_the_server_forbids(guarded: EmbeddedServer, key: Path) -> None:
    broker_url = guarded.url.replace("nats://", ALL)
    async with fake_broker(broker_url, work), Client(guarded.url, key) as client:
        with pytest.raises(NotAdmitted, match="permissions violation"):
            await client.submit(["x"], inputs={"a": b"content"})
