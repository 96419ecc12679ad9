"""A submitter's view of jobs, against a real server: nothing is missed, nothing done twice."""

import asyncio
import time
from pathlib import Path

import pytest
from fake_broker import LENDERS, FakeBroker, echo, fake_broker

from lender.client import (
    Cancelled,
    Client,
    ContentFault,
    Expired,
    JobFailed,
    JobIdTaken,
    LedgerFull,
    NoSuchJob,
    Rejected,
    Transfer,
    Unreachable,
)
from lender.client.keys import create_key
from lender.client.specs import JobRequest, job_spec, payload_of
from lender.link.api import JetStream
from lender.link.connection import Connected
from lender.link.embedded import EmbeddedServer
from lender.protocol import streams, subjects
from lender.protocol.bounds import PIECE_BYTES, WEEK_S
from lender.protocol.job import JobSpec
from lender.protocol.result import TaskResult

TIME_S = 30


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "submitter.nk"
    create_key(path, bytes(range(32)))
    return path


async def forget(_broker: FakeBroker, _spec: JobSpec) -> None:
    """The job goes on forever."""


async def test_a_job_comes_back_with_its_value(nats: EmbeddedServer, key: Path) -> None:
    async with fake_broker(nats.url, echo), Client(nats.url, key) as client:
        job = await client.submit(["echo", "hi"])
        result = await job.result(TIME_S)
    assert result.value == b"echo hi"
    assert result.terminal.lender == LENDERS[0]


async def test_what_is_tried_again_later_names_contents_that_live_as_long_as_new_ones(
    nats: EmbeddedServer, key: Path
) -> None:
    """Those of the first try age out while the second one waits."""
    today = time.time()

    async def fail(broker: FakeBroker, spec: JobSpec) -> None:
        await broker.finish(spec, "failed", tasks_failed=1, tasks_total=1)

    async with (
        fake_broker(nats.url, fail) as broker,
        Client(nats.url, key, now=lambda: today) as me,
    ):
        first = await me.submit(["x"], wasm=b"program", inputs={"in": b"content", "on": b"content"})
        await first.ended(TIME_S)
        sooner = await me.retry(first)
        assert (sooner.spec.program, sooner.spec.inputs) == (first.spec.program, first.spec.inputs)
        today += WEEK_S
        later = await me.retry(first)
        js, bucket = JetStream(broker.connection), streams.bucket(me.public_key)
        for one in (first.spec.program, *first.spec.inputs):
            assert one is not None
            await js.purge(bucket, subjects.blob(*(me.public_key,) * 2, one.sha256, 0, one.week))
        assert later.spec.program is not None
        contents = me._session.contents
        assert await contents.fetch(later.spec.program) == b"program"
        assert [one.name for one in later.spec.inputs] == ["in", "on"]
        assert [await contents.fetch(one) for one in later.spec.inputs] == [b"content"] * 2
        with pytest.raises(ContentFault, match="does not hold it"):
            await me.retry(first)


async def test_who_asks_is_told_how_far_files_have_come(
    nats: EmbeddedServer, key: Path, tmp_path: Path
) -> None:
    told: list[Transfer] = []

    async def leave(broker: FakeBroker, spec: JobSpec) -> None:
        one = spec.inputs[-1]
        await broker.succeed(spec, outputs=(one.model_dump() | {"name": "out"},))

    async with fake_broker(nats.url, leave), Client(nats.url, key, on_transfer=told.append) as me:
        files = {"a": b"small", "in": bytes(PIECE_BYTES + 1)}
        job = await me.submit(["x"], inputs=files, outputs=["out"])
        total = {"total_bytes": PIECE_BYTES + 1}
        assert told[2] == Transfer("in", to_fleet=True, done_bytes=0, **total)
        assert told[-1] == Transfer("in", to_fleet=True, done_bytes=PIECE_BYTES + 1, **total)
        told.clear()
        result = (await job.result()).terminal.result
        assert result is not None
        await job.download(result, tmp_path / "out")
        assert [one.done_bytes for one in told] == [PIECE_BYTES, PIECE_BYTES + 1]
        assert told[0] == Transfer("out", to_fleet=False, done_bytes=PIECE_BYTES, **total)


async def test_a_result_whose_event_was_lost_is_read(nats: EmbeddedServer, key: Path) -> None:
    async def quietly(broker: FakeBroker, spec: JobSpec) -> None:
        broker.events = False
        await asyncio.sleep(0.2)
        await echo(broker, spec)

    async with fake_broker(nats.url, quietly), Client(nats.url, key) as client:
        job = await client.submit(["x"])
        assert (await job.result(TIME_S)).value == b"x"


async def test_a_result_comes_across_a_crash_of_the_server(nats: EmbeddedServer, key: Path) -> None:
    async with fake_broker(nats.url, forget) as broker, Client(nats.url, key) as client:
        job = await client.submit(["x"])
        waiting = asyncio.create_task(job.result(TIME_S))
        await asyncio.sleep(0)
        back = asyncio.Event()
        broker.connection.watch(lambda state: back.set() if state == Connected() else None)
        nats.kill()
        await nats.start()
        await back.wait()
        await echo(broker, job.spec)
        assert (await waiting).value == b"x"


async def test_a_job_is_accepted_across_a_crash_of_the_server(
    nats: EmbeddedServer, key: Path
) -> None:
    async with fake_broker(nats.url, forget), Client(nats.url, key) as client:
        nats.kill()
        submitting = asyncio.create_task(client.submit(["x"]))
        await asyncio.sleep(0)
        await nats.start()
        job = await submitting
        assert (await client.get(job.id)).spec == job.spec


async def test_array_results_come_once_each_with_their_lender(
    nats: EmbeddedServer, key: Path
) -> None:
    async def work(broker: FakeBroker, spec: JobSpec) -> None:
        await broker.chunk(spec, [0, 1, 2])
        broker.events = False
        await broker.chunk(spec, [5, 3], LENDERS[1])
        broker.events = True
        await broker.chunk(spec, [4, 6])
        await broker.finish(spec, "succeeded", tasks_succeeded=7, tasks_total=7)

    async with fake_broker(nats.url, work), Client(nats.url, key) as client:
        job = await client.submit(["x", "{task}"], array=7)
        async with asyncio.timeout(TIME_S):
            records = [record async for record in job.results()]
            again = [record async for record in job.results()]
        assert (await job.result(TIME_S)).value == b""
    for seen in (records, again):
        assert sorted(record.result.task for record in seen) == list(range(7))
    assert {record.lender for record in records if record.result.task in (3, 5)} == {LENDERS[1]}


async def test_results_are_seen_before_the_job_ends(nats: EmbeddedServer, key: Path) -> None:
    async def half(broker: FakeBroker, spec: JobSpec) -> None:
        broker.events = False
        await broker.chunk(spec, [1, 0])

    async with fake_broker(nats.url, half), Client(nats.url, key) as client:
        job = await client.submit(["x"], array=300)
        seen = []
        async with asyncio.timeout(TIME_S):
            async for record in job.results():
                seen.append(record.result.task)
                if len(seen) == 2:
                    break
        assert seen == [1, 0]
        assert await job.terminal() is None


async def test_cancelling_twice_is_as_good_as_once(nats: EmbeddedServer, key: Path) -> None:
    async with fake_broker(nats.url, forget), Client(nats.url, key) as client:
        job = await client.submit(["x"], array=50)
        await job.cancel()
        await job.cancel()
        with pytest.raises(Cancelled):
            await job.result(TIME_S)
        assert [record async for record in job.results()] == []


async def test_bad_ends_are_typed_errors(nats: EmbeddedServer, key: Path) -> None:
    async def end(broker: FakeBroker, spec: JobSpec) -> None:
        if spec.name == "failed":
            result = TaskResult(task=0, state="failed", exit_code=3, stderr_tail=b"no")
            await broker.finish(spec, "failed", result=result, tasks_failed=1, tasks_total=1)
        else:
            await broker.finish(spec, spec.name, field="program", reason="no wasm")  # type: ignore[arg-type]  # the test names a state

    async with fake_broker(nats.url, end), Client(nats.url, key) as client:
        with pytest.raises(JobFailed) as failed:
            await (await client.submit(["x"], name="failed")).result(TIME_S)
        with pytest.raises(Rejected) as rejected:
            await (await client.submit(["x"], name="rejected")).result(TIME_S)
        with pytest.raises(Expired):
            await (await client.submit(["x"], name="expired")).result(TIME_S)
    assert failed.value.exit_code == 3
    assert (rejected.value.field, rejected.value.reason) == ("program", "no wasm")


async def test_a_full_ledger_says_so(nats: EmbeddedServer, key: Path) -> None:
    async with fake_broker(nats.url, forget) as broker, Client(nats.url, key) as client:
        bounds = {streams.JOBS: 2_000}
        (jobs,) = (one for one in streams.stream_configs(1, bounds) if one["name"] == streams.JOBS)
        await JetStream(broker.connection).ensure_stream(jobs)
        await client.submit(["x"])
        with pytest.raises(LedgerFull, match="submit again later"):
            await client.submit(["x", "y" * 2_000])


async def test_a_job_id_is_taken_by_its_first_bytes(nats: EmbeddedServer, key: Path) -> None:
    async with fake_broker(nats.url, forget) as broker, Client(nats.url, key) as client:
        job = await client.submit(["x"])
        ledger = client._session.ledger
        await ledger.submit(job.id, payload_of(job.spec))
        other = job_spec(
            JobRequest(argv=["y"]),
            job=job.id,
            submitter=client.public_key,
            now=1e9,
            program=None,
            inputs={},
        )
        with pytest.raises(JobIdTaken, match=job.id):
            await ledger.submit(job.id, payload_of(other))
        stored = await JetStream(broker.connection).get_last(
            streams.JOBS, subjects.submit(client.public_key, job.id)
        )
        assert stored is not None
        assert stored.payload == payload_of(job.spec)


async def test_questions_about_jobs(nats: EmbeddedServer, key: Path) -> None:
    async with fake_broker(nats.url, forget), Client(nats.url, key) as client:
        first = await client.submit(["x"], name="first")
        second = await client.submit(["x"], name="second")
        assert [status.name for status in await client.jobs()] == ["second", "first"]
        assert await client.why(second) == "2 machines match it: 2 busy"
        assert (await client.get(first.id)).spec == first.spec
        with pytest.raises(NoSuchJob, match="lender jobs"):
            await client.get("never-submitted")


async def test_who_asks_over_a_closed_connection_is_told_to_connect_again(
    nats: EmbeddedServer, key: Path
) -> None:
    async with fake_broker(nats.url, forget), Client(nats.url, key) as client:
        job = await client.submit(["x"])
    with pytest.raises(Unreachable, match="connect again"):
        await job.ended()
    with pytest.raises(Unreachable, match="connect again"):
        await anext(aiter(job.log()))


async def test_waiting_may_be_given_up(nats: EmbeddedServer, key: Path) -> None:
    async with fake_broker(nats.url, forget), Client(nats.url, key) as client:
        job = await client.submit(["x"])
        with pytest.raises(TimeoutError):
            await job.result(0.3)
        assert await job.terminal() is None


async def test_no_server_and_no_broker_are_told_apart(nats: EmbeddedServer, key: Path) -> None:
    with pytest.raises(Unreachable, match="no NATS server at nats:"):
        async with Client("nats://127.0.0.1:1", key, connect_timeout_s=0.5):
            pass
    async with Client(nats.url, key, timeout_s=0.5) as client:
        with pytest.raises(Unreachable, match="check that NATS and the broker run"):
            await client.jobs()
        with pytest.raises(Unreachable, match="do the same again"):
            await client.submit(["x"])
