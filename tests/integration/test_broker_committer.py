"""The group commit on a real server: in order, once, whatever the line does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from broker_parts import until

from broker.core.effects import Commit, Record
from broker.core.events import Committed
from broker.service import committer as module
from broker.service.committer import Committer, FencedError
from lender.link.api import JetStream
from lender.link.batch import CommitUnknownError, commit
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.protocol import streams, subjects


class Running:
    """A committer at work, and what it has reported."""

    def __init__(self, connection: Connection) -> None:
        self.reported: list[int] = []
        self.committer = Committer(connection, 0, self._on_committed)
        self.task = asyncio.create_task(self.committer.run())

    def _on_committed(self, event: Committed) -> None:
        self.reported.append(event.token)

    def add(self, tokens: Sequence[int], size_bytes: int = 10) -> None:
        for token in tokens:
            record = Record(f"res.S.job.{token}", {"N": str(token)}, b"x" * size_bytes)
            self.committer.add(Commit(token, (record,)))

    async def all_reported(self, count: int) -> None:
        await until(lambda: len(self.reported) == count or self.task.done(), "the commits")
        assert self.reported == list(range(count))


@pytest.fixture
async def running(connection: Connection) -> AsyncIterator[Running]:
    for config in streams.stream_configs():
        await JetStream(connection).ensure_stream(config)
    one = Running(connection)
    yield one
    one.task.cancel()
    with contextlib.suppress(asyncio.CancelledError, FencedError):
        await one.task


async def stored(connection: Connection) -> list[str]:
    page = await JetStream(connection).get_page(streams.RESULTS, 1, 5000)
    return [message.headers["N"] for message in page.messages]


async def test_the_server_itself_tells_of_a_jobs_end(
    running: Running, connection: Connection
) -> None:
    told = await connection.nc.subscribe("event.S.*")
    chunk, end = (Record(f"res.S.{name}", {}, b"x") for name in ("job-1.0", "job-1"))
    running.committer.add(Commit(0, (chunk, end)))
    running.committer.add(Commit(1, (Record("res.S.job-2", {}, b"y"),)))
    await running.all_reported(2)
    for job, payload in (("job-1", b"x"), ("job-2", b"y")):
        msg = await told.next_msg(20)
        assert (msg.subject, msg.data) == (f"event.S.{job}", payload)
        assert (msg.headers or {})[subjects.REPUBLISHED_HEADER] == f"res.S.{job}"


async def test_commits_land_in_order_and_in_few_batches(
    running: Running, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    async def counted(line: Connection, records: Sequence[Any], last: int) -> int:
        batches.append(len(records))
        return await commit(line, records, last)

    monkeypatch.setattr(module, "commit", counted)
    running.add(range(2500))
    await running.all_reported(2500)
    assert await stored(connection) == [str(n) for n in range(2500)]
    assert batches == [1000, 1000, 500]


async def test_large_records_go_in_batches_of_bounded_size(
    running: Running, connection: Connection
) -> None:
    running.add(range(20), size_bytes=1_000_000)
    await running.all_reported(20)
    assert len(await stored(connection)) == 20


async def test_a_server_killed_under_load_loses_and_doubles_nothing(
    running: Running, connection: Connection, nats: EmbeddedServer
) -> None:
    for round_number in range(3):
        start = round_number * 300
        for token in range(start, start + 300):
            running.add([token])
            if token == start + 150:
                await asyncio.sleep(0.004)
                nats.kill()
                await nats.start()
            elif token % 20 == 0:
                await asyncio.sleep(0.001)
    await running.all_reported(900)
    assert await stored(connection) == [str(n) for n in range(900)]


@pytest.mark.parametrize("landed", [True, False])
async def test_an_unknown_outcome_is_looked_up(
    running: Running,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    *,
    landed: bool,
) -> None:
    calls = 0

    async def unanswered_once(line: Connection, records: Sequence[Any], last: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            return await commit(line, records, last)
        if landed:
            await commit(line, records, last)
        raise CommitUnknownError("no answer")

    monkeypatch.setattr(module, "commit", unanswered_once)
    running.add([0, 1, 2])
    await running.all_reported(3)
    running.add([3])
    await running.all_reported(4)
    assert await stored(connection) == ["0", "1", "2", "3"]
    assert calls == (2 if landed else 3)


async def test_another_writer_fences_it_off(running: Running, connection: Connection) -> None:
    running.add([0])
    await running.all_reported(1)
    await connection.request("res.S.other", b"", {"N": "other"})
    running.add([1])
    with pytest.raises(FencedError, match="another broker"):
        await asyncio.wait_for(running.task, 10)
    assert await stored(connection) == ["0", "other"]
    assert running.reported == [0]


async def test_a_taken_subject_keeps_its_first_record_and_holds_up_nothing(
    running: Running, connection: Connection
) -> None:
    running.add([0])
    await running.all_reported(1)
    again = Record("res.S.job.0", {"N": "again"}, b"")
    new = Record("res.S.job.1", {"N": "1"}, b"")
    running.committer.add(Commit(1, (again, new)))
    running.add([2])
    await running.all_reported(3)
    assert await stored(connection) == ["0", "1", "2"]
