"""Jobs that are submitted together travel together, and stay jobs of their own."""

import asyncio
from pathlib import Path

import pytest
from broker_world import BOB
from fake_broker import LENDERS, FakeBroker, echo, fake_broker
from signed_records import chunk, value

from lender.client import (
    Cancelled,
    Client,
    Expired,
    Job,
    JobFailed,
    LedgerFull,
    NoSuchJob,
    Rejected,
    Unreachable,
    UntrustedResult,
)
from lender.client.gathering import Gathering
from lender.client.keys import create_key
from lender.client.ledger import Ledger
from lender.link.connection import Connected
from lender.link.embedded import EmbeddedServer
from lender.protocol.ids import task_named
from lender.protocol.job import JobSpec
from lender.protocol.result import Chunk, TaskResult

TIME_S = 30
MANY = 40


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "submitter.nk"
    create_key(path, bytes(range(32)))
    return path


async def forget(_broker: FakeBroker, _spec: JobSpec) -> None:
    """The job goes on forever."""


def words_of(spec: JobSpec, task: int) -> tuple[str, ...]:
    assert spec.array is not None
    return (*spec.argv, *(spec.array.each[task] if spec.array.each else ()))


def say(spec: JobSpec, *tasks: int) -> Chunk:
    """What a lender that echoes would report of tasks."""
    results = tuple(
        TaskResult(
            task=task,
            state="succeeded",
            exit_code=0,
            value=" ".join(words_of(spec, task)).encode(),
            stderr_tail=b"log of %d" % task,
        )
        for task in tasks
    )
    return Chunk(job=spec.id, lease="l" * 22, attempt=1, lender=LENDERS[0], results=results)


async def echo_each(broker: FakeBroker, spec: JobSpec) -> None:
    """Each job succeeds, those that went together in two parts, the last ones first."""
    if spec.array is None:
        await echo(broker, spec)
        return
    half = spec.task_count // 2
    await broker.commit_record(spec, say(spec, *range(half, spec.task_count)))
    await broker.commit_record(spec, say(spec, *range(half)))
    await broker.finish(
        spec, "succeeded", tasks_succeeded=spec.task_count, tasks_total=spec.task_count
    )


async def submit_at_once(client: Client, *lines: list[str]) -> list[Job]:
    return list(await asyncio.gather(*(client.submit(line) for line in lines)))


async def test_jobs_that_come_at_the_same_time_go_in_few_messages_and_stay_their_own(
    nats: EmbeddedServer, key: Path
) -> None:
    async with (
        fake_broker(nats.url, echo_each) as broker,
        Client(nats.url, key, together=True) as client,
    ):
        jobs = await submit_at_once(client, *(["echo", str(n)] for n in range(MANY)))
        assert [spec.task_count for spec in broker.jobs] == [MANY]
        assert len({job.id for job in jobs}) == MANY
        async with asyncio.timeout(TIME_S):
            results = await asyncio.gather(*(job.result() for job in jobs))
        assert [one.value for one in results] == [b"echo %d" % n for n in range(MANY)]
        last, terminal = jobs[-1], results[-1].terminal
        assert (last.spec.array, last.spec.argv, last.spec.id) == (None, ("echo", "39"), last.id)
        assert (terminal.job, terminal.tasks_total, terminal.lender) == (last.id, 1, LENDERS[0])
        assert terminal.result is not None
        assert terminal.result.task == 0
        assert [record.result async for record in last.results()] == [terminal.result]
        assert [piece.content async for piece in last.log_so_far()] == [b"log of 39"]


async def test_one_after_the_other_goes_alone_and_so_does_who_wants_it(
    nats: EmbeddedServer, key: Path
) -> None:
    async with fake_broker(nats.url, forget) as broker:
        async with Client(nats.url, key, together=True) as client:
            for n in range(3):
                assert task_named((await client.submit([str(n)])).id) is None
        async with Client(nats.url, key, together=False) as client:
            await submit_at_once(client, ["a"], ["a"], ["a"])
        assert [spec.array for spec in broker.jobs] == [None] * 6


async def test_only_what_asks_for_the_same_goes_together(nats: EmbeddedServer, key: Path) -> None:
    async with (
        fake_broker(nats.url, forget) as broker,
        Client(nats.url, key, together=True) as client,
    ):
        both = {"inputs": {"in": b"x"}}, {"inputs": {"in": b"y"}}
        await asyncio.gather(
            *(client.submit(["a"], **kind) for kind in both * 3),  # type: ignore[arg-type]
            *(client.submit(["a"], array=3) for _ in range(3)),
            *(client.submit(["a"], checkpoint=True) for _ in range(3)),
        )
        separate = [one for one in broker.jobs if one.array is not None and one.array.separate]
        assert sorted(one.task_count for one in separate) == [3, 3]
        assert {one.inputs[0].sha256 for one in separate} == {
            one.inputs[0].sha256 for one in broker.jobs if one.inputs
        }
        assert len(broker.jobs) == 2 + 3 + 3


async def test_a_fault_of_one_is_its_own(nats: EmbeddedServer, key: Path) -> None:
    async with fake_broker(nats.url, echo_each), Client(nats.url, key, together=True) as client:
        lines = [["a"], ["b"], ["no\0such"], ["c"], ["x" * 40_000], ["y" * 30_000], ["z" * 30_000]]
        told = await asyncio.gather(*map(client.submit, lines), return_exceptions=True)
        faulty = [one for one in told if isinstance(one, BaseException)]
        assert [type(one) for one in faulty] == [Rejected, Rejected]
        sound = [one for one in told if isinstance(one, Job)]
        values = [(await one.result(TIME_S)).value for one in sound]
        assert values == [b"a", b"b", b"c", b"y" * 30_000, b"z" * 30_000]


async def test_who_gives_up_before_it_is_sent_has_submitted_nothing(
    nats: EmbeddedServer, key: Path
) -> None:
    async with (
        fake_broker(nats.url, forget) as broker,
        Client(nats.url, key, together=True) as client,
    ):
        asked = [asyncio.ensure_future(client.submit([word])) for word in ("a", "b", "c")]
        await asyncio.sleep(0)
        asked[1].cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        (together,) = broker.jobs
        assert [words_of(together, task) for task in (0, 1)] == [("a",), ("c",)]
        assert together.task_count == 2


async def test_one_is_cancelled_and_the_others_go_on(nats: EmbeddedServer, key: Path) -> None:
    async with (
        fake_broker(nats.url, forget) as broker,
        Client(nats.url, key, together=True) as client,
    ):
        _, second, third = await submit_at_once(client, ["a"], ["b"], ["c"])
        await second.cancel()
        with pytest.raises(Cancelled):
            await second.result(TIME_S)
        waiting = asyncio.create_task(third.result(TIME_S))
        await broker.commit_record(broker.jobs[0], say(broker.jobs[0], 2))
        assert (await waiting).value == b"c"
        ended = await second.ended()
        assert (ended.state, ended.tasks_failed, ended.result) == ("cancelled", 0, None)
        assert [record async for record in second.results()] == []
        assert await second.task(0) is None


async def test_it_is_found_by_its_id(
    nats: EmbeddedServer, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, honest = list[str](), Ledger.read

    async def note(self: Ledger, job: str) -> tuple[JobSpec, bytes]:
        read.append(job)
        return await honest(self, job)

    async with (
        fake_broker(nats.url, echo_each) as broker,
        Client(nats.url, key, together=True) as client,
    ):
        submitted = await submit_at_once(client, ["a"], ["b"], ["c"])
        last = submitted[-1]
        assert (await last.result(TIME_S)).value == b"c"
        async with Client(nats.url, key, together=True) as other:
            monkeypatch.setattr(Ledger, "read", note)
            handles = [await other.get(one.id) for one in submitted]
            assert [(await one.result(TIME_S)).value for one in handles] == [b"a", b"b", b"c"]
            assert read.count(broker.jobs[0].id) == 1, "what they went in was read once"
            found = await other.get(last.id)
            assert (found.id, found.spec) == (last.id, last.spec)
            terminal = await found.terminal()
            assert terminal is not None
            assert terminal.state == "succeeded"
            assert (await found.result(TIME_S)).value == b"c"
            for name in (f"{broker.jobs[0].id}-3", f"{last.id}-0", "12345678-1"):
                with pytest.raises(NoSuchJob):
                    await other.get(name)
            again = await other.retry(await _failed(broker, other))
            assert again.spec.argv == ("e",)


async def _failed(broker: FakeBroker, client: Client) -> Job:
    broker.on_job = forget
    *_, last = await submit_at_once(client, ["d"], ["e"], ["e"])
    spec = broker.jobs[-1]
    result = TaskResult(task=2, state="failed", exit_code=3)
    await broker.commit_record(
        spec, Chunk(job=spec.id, lease="l" * 22, attempt=1, lender=LENDERS[0], results=(result,))
    )
    with pytest.raises(JobFailed, match="exit code 3"):
        await last.result(TIME_S)
    return last


async def test_a_task_of_any_array_is_found_by_its_name(nats: EmbeddedServer, key: Path) -> None:
    async with (
        fake_broker(nats.url, forget) as broker,
        Client(nats.url, key, together=True) as client,
    ):
        whole = await client.submit(["x", "{task}"], array=5)
        one = await client.get(f"{whole.id}-3")
        assert one.spec.task_ranges == ((3, 1),)
        assert await one.terminal() is None
        await broker.chunk(whole.spec, [2, 3])
        assert (await one.result(TIME_S)).value == b"v3\n"
        assert [record.result.task async for record in one.results()] == [3]


async def test_they_end_with_what_ended_all_of_them(nats: EmbeddedServer, key: Path) -> None:
    async def expire(broker: FakeBroker, spec: JobSpec) -> None:
        await broker.commit_record(spec, say(spec, 1))
        count = spec.task_count
        await broker.finish(spec, "expired", reason="late", tasks_succeeded=1, tasks_total=count)

    async with fake_broker(nats.url, expire), Client(nats.url, key, together=True) as client:
        _, second, third = await submit_at_once(client, ["a"], ["b"], ["c"])
        with pytest.raises(Expired, match="late"):
            await third.result(TIME_S)
        assert (await second.result(TIME_S)).value == b"b"
        terminal = await (await client.get(third.id)).terminal()
        assert terminal is not None
        assert (terminal.state, terminal.reason) == ("expired", "late")


async def test_results_of_nobody_trusted_are_the_fault_of_these_alone(
    nats: EmbeddedServer, key: Path
) -> None:
    """What the broker itself says of a job is believed, whoever is trusted."""
    async with (
        fake_broker(nats.url, forget) as broker,
        Client(nats.url, key, trusted_lenders=[BOB.public_key], together=True) as client,
    ):
        _, second, third, fourth = await submit_at_once(client, ["a"], ["b"], ["c"], ["d"])
        await broker.commit_record(broker.jobs[0], say(broker.jobs[0], 1))
        for _ in range(2):
            with pytest.raises(UntrustedResult):
                await second.result(TIME_S)
        assert await fourth.terminal() is None
        assert await fourth.task(0) is None
        assert [piece async for piece in fourth.log_so_far()] == []
        with pytest.raises(UntrustedResult):
            await second.terminal()
        await third.cancel()
        with pytest.raises(Cancelled):
            await third.result(TIME_S)
        with pytest.raises(TimeoutError):
            await fourth.result(0.05)


async def test_they_end_in_the_same_words_as_one_that_went_alone(
    nats: EmbeddedServer, key: Path
) -> None:
    async with (
        fake_broker(nats.url, forget) as broker,
        Client(nats.url, key, together=True) as client,
    ):
        _, second, third = await submit_at_once(client, ["a"], ["b"], ["c"])
        failed = TaskResult(task=2, state="failed", exit_code=3)
        await broker.commit_record(broker.jobs[0], chunk(broker.jobs[0], value(1), failed))
        assert (await third.ended(TIME_S)).reason == "exit code 3"
        assert [record.signed async for record in second.results()] == [True]


@pytest.mark.parametrize("together", [False, True])
async def test_who_waits_is_told_when_the_client_is_closed(
    nats: EmbeddedServer, key: Path, *, together: bool
) -> None:
    async with fake_broker(nats.url, forget):
        async with Client(nats.url, key, together=together) as client:
            jobs = await submit_at_once(client, ["a"], ["b"])
            waiting = [asyncio.create_task(one.result()) for one in jobs]
            await asyncio.wait(waiting, timeout=0.1)  # they follow by now
        done, _ = await asyncio.wait(waiting, timeout=TIME_S)
        assert [type(one.exception()) for one in done] == [Unreachable, Unreachable]


async def test_what_was_refused_is_under_way_no_more(
    nats: EmbeddedServer, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    async def refuse(*_: object) -> None:
        raise LedgerFull

    def note(_self: Gathering, count: int, _took_s: float | None = None) -> None:
        ended.append(count)

    monkeypatch.setattr(Ledger, "submit", refuse)
    monkeypatch.setattr(Gathering, "note_ended", note)
    async with fake_broker(nats.url, forget), Client(nats.url, key, together=True) as client:
        for _ in range(2):  # nobody has been told that they go
            told = await asyncio.gather(
                *(client.submit([word]) for word in "abc"), return_exceptions=True
            )
            assert [type(one) for one in told] == [LedgerFull] * 3
            await asyncio.sleep(0)
    assert sum(ended) == 0


async def test_results_come_across_a_crash_of_the_server(nats: EmbeddedServer, key: Path) -> None:
    async with (
        fake_broker(nats.url, forget) as broker,
        Client(nats.url, key, together=True) as client,
    ):
        jobs = await submit_at_once(client, ["a"], ["b"], ["c"])
        waiting = [asyncio.create_task(one.result(TIME_S)) for one in jobs[1:]]
        await asyncio.sleep(0)
        back = asyncio.Event()
        broker.connection.watch(lambda state: back.set() if state == Connected() else None)
        nats.kill()
        await nats.start()
        await back.wait()
        await broker.commit_record(broker.jobs[0], say(broker.jobs[0], 1, 2))
        assert [one.value for one in await asyncio.gather(*waiting)] == [b"b", b"c"]


async def test_nothing_is_followed_for_nobody(nats: EmbeddedServer, key: Path) -> None:
    async with (
        fake_broker(nats.url, forget) as broker,
        Client(nats.url, key, together=True) as client,
    ):
        before = asyncio.all_tasks()
        jobs = await submit_at_once(client, ["a"], ["b"], ["c"])
        with pytest.raises(TimeoutError):
            await jobs[1].result(0.05)
        spec = broker.jobs[0]
        del jobs
        await broker.commit_record(spec, say(spec, 0))
        async with asyncio.timeout(TIME_S):
            while asyncio.all_tasks() - before:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
