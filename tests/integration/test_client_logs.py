"""A submitter's side of a log: what it sees of it, and what a stranger's bytes can't do to it."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_broker import LENDERS, FakeBroker, fake_broker
from nats.aio.subscription import Subscription

from lender.client import Client, LogPiece, NotAdmitted
from lender.client.keys import create_key, read_key
from lender.link.connection import Connection
from lender.link.embedded import EmbeddedServer
from lender.protocol import codec, subjects
from lender.protocol.bounds import LOG_PIECE_BYTES_MAX
from lender.protocol.job import JobSpec
from lender.protocol.task_log import TaskLogPiece

LENDER = str(Path(sys.executable).parent / "lender")
_NOTHING = codec.encode(TaskLogPiece(task=0, attempt=1, offset_bytes=0, content=b""))
HOSTILE = b"\x1b]0;owned\x07\x1b[2J\x9b31mred\r\xc2\x9bfine\n"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "submitter.nk"
    create_key(path, bytes(range(32)))
    return path


@pytest.fixture
async def client(nats: EmbeddedServer, key: Path) -> AsyncIterator[Client]:
    async with Client(nats.url, key) as one:
        yield one


class Writer:
    """Writes a log as a lender would, once somebody follows it."""

    def __init__(self, connection: Connection, spec: JobSpec, lender: str = LENDERS[0]) -> None:
        self._connection = connection
        self._subject = subjects.task_log(spec.submitter, spec.id, lender)
        self._offsets: dict[int, int] = {}

    async def until_followed(self) -> None:
        async with asyncio.timeout(20):
            while not await self._is_followed():  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)

    async def _is_followed(self) -> bool:
        """The server says at once that nobody listens, and before it answers a flush."""
        nc = self._connection.nc
        answers = await nc.subscribe(inbox := nc.new_inbox())
        try:
            await nc.publish(self._subject, _NOTHING, reply=inbox)
            await nc.flush()
            return not answers.delivered
        finally:
            await answers.unsubscribe()

    async def write(self, content: bytes, task: int = 0) -> None:
        offset = self._offsets.get(task, 0)
        self._offsets[task] = offset + len(content)
        piece = TaskLogPiece(task=task, attempt=1, offset_bytes=offset, content=content)
        await self.send(codec.encode(piece))

    async def send(self, payload: bytes, content_type: str = codec.MSGPACK) -> None:
        headers = {codec.CONTENT_TYPE_HEADER: content_type}
        await self._connection.publish(self._subject, payload, headers)


async def test_a_log_comes_while_its_task_runs_and_its_end_with_the_result(
    nats: EmbeddedServer, client: Client
) -> None:
    read = asyncio.Event()

    async def work(broker: FakeBroker, spec: JobSpec) -> None:
        writer = Writer(broker.connection, spec)
        await writer.until_followed()
        await writer.write(b"one\n")
        await asyncio.wait_for(read.wait(), 20)
        await writer.write(b"two\n")
        await broker.succeed(spec, stderr_tail=b"one\ntwo\nthree\n")

    async with fake_broker(nats.url, work):
        job = await client.submit(["x"])
        found = []
        async for piece in job.log():
            found.append(piece)
            read.set()
        assert (await job.ended(10)).state == "succeeded"
        again = [piece async for piece in job.log()]
    assert found == [
        LogPiece(0, 1, LENDERS[0], b"one\n"),
        LogPiece(0, 1, LENDERS[0], b"two\n"),
        LogPiece(0, 1, LENDERS[0], b"three\n", last=True),
    ]
    assert again == [LogPiece(0, 1, LENDERS[0], b"one\ntwo\nthree\n", last=True)]


async def test_one_task_of_an_array_is_followed_to_its_own_end(
    nats: EmbeddedServer, client: Client
) -> None:
    async def work(broker: FakeBroker, spec: JobSpec) -> None:
        writer = Writer(broker.connection, spec)
        await writer.until_followed()
        for task in range(3):
            await writer.write(b"of %d\n" % task, task)
        await broker.chunk(spec, [0, 1])  # and the job goes on

    async with fake_broker(nats.url, work):
        job = await client.submit(["x"], array=3)
        async with asyncio.timeout(20):
            found = [piece async for piece in job.log(task=1)]
    assert [(one.task, one.content, one.last) for one in found] == [
        (1, b"of 1\n", False),
        (1, b"", True),
    ]


async def test_what_breaks_the_protocol_is_passed_over(
    nats: EmbeddedServer, client: Client
) -> None:
    async def work(broker: FakeBroker, spec: JobSpec) -> None:
        writer = Writer(broker.connection, spec)
        await writer.until_followed()
        await writer.send(b"", "text/plain")
        await writer.send(b"{}", codec.JSON)
        await writer.send(b"\xff" * 100)
        oversized = {"task": 0, "attempt": 1, "offset_bytes": 0}
        content = bytes(LOG_PIECE_BYTES_MAX + 1)
        await writer.send(codec.encode(TaskLogPiece.model_construct(**oversized, content=content)))
        await writer.write(b"not of this job\n", task=7)
        await writer.write(b"sound\n")
        await broker.succeed(spec)

    async with fake_broker(nats.url, work):
        job = await client.submit(["x"])
        found = [piece async for piece in job.log()]
    assert b"".join(one.content for one in found) == b"sound\n"


async def test_who_floods_a_log_keeps_nobody_from_its_end(
    nats: EmbeddedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of a lender that sends faster than anybody reads.
    monkeypatch.setattr(Subscription, "pending_msgs", property(lambda _: 1))

    async def work(broker: FakeBroker, spec: JobSpec) -> None:
        writer = Writer(broker.connection, spec)
        await writer.until_followed()
        await writer.write(b"before\n")
        await broker.succeed(spec, stderr_tail=b"before\nend\n")

    async with fake_broker(nats.url, work):
        job = await client.submit(["x"])
        async with asyncio.timeout(20):
            found = [piece.content async for piece in job.log()]
    assert found == [b"before\n", b"end\n"]


async def test_a_server_that_forbids_the_log_is_named(key: Path, tmp_path: Path) -> None:
    me = read_key(key).public_key
    config = f"""
authorization {{ users: [
  {{ user: broker, password: secret }}
  {{ nkey: {me}, permissions: {{
       publish: [">"]
       subscribe: ["event.{me}.*", "_INBOX_{me}.>"] }} }}
] }}"""

    async def forget(_broker: FakeBroker, _spec: JobSpec) -> None:
        """The job goes on forever."""

    async with EmbeddedServer(tmp_path / "nats", extra_config=config) as server:
        url = server.url.replace("nats://", "nats://broker:secret@")
        async with fake_broker(url, forget), Client(server.url, key) as client:
            job = await client.submit(["x"])
            with pytest.raises(NotAdmitted, match="permissions violation"):
                await asyncio.wait_for(anext(job.log()), 20)


@pytest.fixture
def environment(nats: EmbeddedServer, key: Path) -> dict[str, str]:
    return {
        "LENDER_URL": nats.url,
        "LENDER_KEY": str(key),
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
    }


async def hostile(broker: FakeBroker, spec: JobSpec) -> None:
    await broker.succeed(spec, HOSTILE, stderr_tail=HOSTILE)


async def on_terminal(environment: dict[str, str], *words: str) -> bytes:
    """What a terminal gets of a verb that succeeds and says little."""
    reading, writing = os.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            LENDER,
            *words,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
        )
        assert await asyncio.wait_for(process.wait(), 30) == 0
        os.close(writing)  # the kernel passes on what was written, then says that this was all
        writing, shown = -1, b""
        with contextlib.suppress(OSError):
            while piece := os.read(reading, 1 << 16):
                shown += piece
        return shown
    finally:
        if writing >= 0:
            os.close(writing)
        os.close(reading)


async def test_no_task_steers_the_terminal_of_who_reads_it(
    nats: EmbeddedServer, environment: dict[str, str]
) -> None:
    async with fake_broker(nats.url, hostile) as broker:
        shown = await on_terminal(environment, "submit", "--", "x")
        job = broker.jobs[0].id
        for words in (("get", job), ("get", "--json", job), ("logs", job)):
            shown += await on_terminal(environment, *words)
        shown += await on_terminal(environment, "submit", "--follow", "--", "x")
    assert not set(b"\x1b\x07\x9b\xc2") & set(shown)
    assert shown.count(rb"\x1b]0;owned\x07\x1b[2J\x9b31mred\r\x9bfine") == 8


async def test_a_pipe_and_who_asks_for_it_raw_get_every_byte(
    nats: EmbeddedServer, environment: dict[str, str]
) -> None:
    async with fake_broker(nats.url, hostile) as broker:
        said = await piped(environment, "submit", "--follow", "--", "x")
        assert said == (0, HOSTILE, HOSTILE)
        job = broker.jobs[0].id
        assert await piped(environment, "get", job) == (0, HOSTILE, HOSTILE)
        assert await piped(environment, "logs", "-f", job) == (0, HOSTILE, b"")
        assert await piped(environment, "logs", job) == (0, HOSTILE, b"")
        code, out, _ = await piped(environment, "logs", "-f", "--json", job)
        fields = json.loads(out)
        assert (code, fields["schema"], fields["last"]) == (0, "lender.logs/1", True)
        for verb in (("logs", "-f"), ("get",)):
            assert b"\x1b]0;owned\x07" in await on_terminal(environment, *verb, "--raw", job)


async def piped(environment: dict[str, str], *words: str) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        LENDER,
        *words,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode or 0, out, err


async def test_a_task_that_the_job_does_not_have_is_named(
    nats: EmbeddedServer, environment: dict[str, str]
) -> None:
    async with fake_broker(nats.url, hostile) as broker:
        await piped(environment, "submit", "--", "x")
        said = await piped(environment, "logs", "-f", "--task", "1", broker.jobs[0].id)
    assert said[0] == 2
    assert b"has the tasks 0 to 0" in said[2]


async def test_lines_of_several_tasks_come_with_their_task(
    nats: EmbeddedServer, environment: dict[str, str]
) -> None:
    followed = asyncio.Event()

    async def work(broker: FakeBroker, spec: JobSpec) -> None:
        writer = Writer(broker.connection, spec)
        await writer.until_followed()
        followed.set()
        await writer.write(b"one\ntw", 0)
        await writer.write(b"other\n", 1)
        await writer.write(b"o\n", 0)
        await broker.chunk(spec, [0, 1])
        await broker.finish(spec, "succeeded", tasks_succeeded=2, tasks_total=2)

    async with fake_broker(nats.url, work) as broker:
        submitted = await piped(environment, "map", "--no-wait", "--array", "0-1", "--", "x")
        said = await piped(environment, "logs", "-f", submitted[1].decode().strip())
        assert followed.is_set()
        assert len(broker.jobs) == 1
    assert said == (0, b"0: one\n1: other\n0: two\n", b"")
