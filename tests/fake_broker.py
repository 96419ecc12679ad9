"""A broker that commits what a test tells it to, by docs/protocol.md, on a real server.

The real one is held to the same contract by tests/acceptance.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from nats.aio.msg import Msg

from lender.link.api import JetStream, answer
from lender.link.connection import Connection, connect
from lender.protocol import codec, streams, subjects
from lender.protocol.ids import task_named
from lender.protocol.job import JobSpec
from lender.protocol.query import JobStatus, Query, QueryReply, TaskStatus
from lender.protocol.result import Chunk, TaskResult, Terminal, TerminalState
from lender.protocol.signature import SIGNATURE_HEADER, verify

LENDERS = ("U" + "A" * 55, "U" + "B" * 55)

COMMIT_S = 20.0
"""A disk that all tests share may be busy for seconds."""

OnJob = Callable[["FakeBroker", JobSpec], Awaitable[None]]


class FakeBroker:
    """Hands each new job to `on_job`.

    `events` tells whether commits are told of, `listens` whether it takes up submissions.
    """

    def __init__(self, connection: Connection, on_job: OnJob) -> None:
        self.connection = connection
        self.on_job = on_job
        self.events = True
        self.listens = True
        self.jobs: list[JobSpec] = []
        self._content_types: dict[str, codec.ContentType] = {}
        self._buckets: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        jetstream = JetStream(self.connection)
        for config in streams.stream_configs():
            await jetstream.ensure_stream(config)
        nc = self.connection.nc
        await nc.subscribe(subjects.SUBMIT_FILTER, cb=self._on_submit)
        await nc.subscribe(subjects.CANCEL_FILTER, cb=self._on_cancel)
        await nc.subscribe(subjects.QUERY_FILTER, cb=self._on_query)
        await nc.subscribe(subjects.of_bucket("*"), cb=self._on_blob)
        await nc.subscribe(subjects.of_left("*"), cb=self._on_blob)
        await nc.flush()

    async def stop(self) -> None:
        """End what goes on; raises what made the work on a job fail: nobody else would say it."""
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def finish(self, spec: JobSpec, state: TerminalState, **fields: object) -> None:
        terminal = Terminal.model_validate(
            {"job": spec.id, "state": state, "finished_at": 1.0, **fields}
        )
        await self.commit_record(spec, terminal)

    async def succeed(self, spec: JobSpec, value: bytes = b"", **fields: object) -> None:
        result = TaskResult.model_validate(
            {"task": 0, "state": "succeeded", "exit_code": 0, "value": value, **fields}
        )
        await self.finish(
            spec,
            "succeeded",
            result=result,
            lender=LENDERS[0],
            attempt=1,
            tasks_succeeded=1,
            tasks_total=1,
        )

    async def chunk(self, spec: JobSpec, tasks: list[int], lender: str = LENDERS[0]) -> None:
        results = tuple(
            TaskResult(task=task, state="succeeded", exit_code=0, value=b"v%d\n" % task)
            for task in tasks
        )
        record = Chunk(job=spec.id, lease="l" * 22, attempt=1, lender=lender, results=results)
        await self.commit_record(spec, record)

    async def commit_record(self, spec: JobSpec, record: Chunk | Terminal) -> None:
        """Store it, and tell of it."""
        payload, headers = self._written(spec, record)
        subject = _subject_of(spec, record)
        answer(await self.connection.request(subject, payload, headers, COMMIT_S))
        if self.events:
            await self.tell(spec, record)

    async def tell(self, spec: JobSpec, record: Chunk | Terminal) -> None:
        """Say that it is stored."""
        payload, headers = self._written(spec, record)
        event = subjects.event(spec.submitter, spec.id)
        told = {**headers, subjects.SUBJECT_HEADER: _subject_of(spec, record)}
        await self.connection.publish(event, payload, told)

    def _written(self, spec: JobSpec, record: Chunk | Terminal) -> tuple[bytes, dict[str, str]]:
        content_type = self._content_types.get(spec.id, codec.MSGPACK)
        return codec.encode(record, content_type), {codec.CONTENT_TYPE_HEADER: content_type}

    async def _on_submit(self, msg: Msg) -> None:
        if not self.listens:
            return
        headers = msg.headers or {}
        content_type = codec.content_type_of(headers.get(codec.CONTENT_TYPE_HEADER))
        spec = codec.decode(JobSpec, msg.data, content_type)
        verify(spec.submitter, msg.data, headers.get(SIGNATURE_HEADER))
        self.jobs.append(spec)
        self._content_types[spec.id] = content_type
        self._tasks.append(asyncio.create_task(self.on_job(self, spec)))

    async def _on_cancel(self, msg: Msg) -> None:
        parsed = subjects.parse_job_subject(msg.subject)
        for spec in self.jobs:
            if spec.id == parsed.job:
                await self.finish(spec, "cancelled", tasks_total=spec.task_count)
            elif task_named(parsed.job) in [(spec.id, task) for task in range(spec.task_end)]:
                task = int(parsed.job.rpartition("-")[2])
                result = TaskResult(task=task, state="failed", cancelled=True)
                await self.commit_record(spec, Chunk(job=spec.id, results=(result,)))

    async def _on_blob(self, msg: Msg) -> None:
        """Make the buckets that the first piece is for: nobody has told who is allowed."""
        submitter = msg.subject.split(".")[1]
        if submitter not in self._buckets:
            self._buckets.add(submitter)
            for config in (streams.bucket_config(submitter), streams.left_config(submitter)):
                await JetStream(self.connection).ensure_stream(config)
            await self.connection.nc.publish(msg.subject, msg.data, msg.reply)

    async def _on_query(self, msg: Msg) -> None:
        query = codec.decode(Query, msg.data)
        task = query.task
        statuses = tuple(
            JobStatus(
                job=spec.id,
                name=spec.name,
                state="queued",
                tasks_total=spec.task_count,
                tasks_succeeded=0,
                tasks_failed=0,
                tasks_running=0,
                submitted_at=spec.created_at,
                why="2 machines match it: 2 busy",
                task=None if task is None else TaskStatus(task=task, state="waiting", why="rests"),
            )
            for spec in reversed(self.jobs)
            if query.job in (None, spec.id)
        )
        await msg.respond(codec.encode(QueryReply(jobs=statuses)))


def _subject_of(spec: JobSpec, record: Chunk | Terminal) -> str:
    if isinstance(record, Terminal):
        return subjects.result(spec.submitter, spec.id)
    first = min(one.task for one in record.results)
    return subjects.chunk(spec.submitter, spec.id, first)


@contextlib.asynccontextmanager
async def fake_broker(url: str, on_job: OnJob) -> AsyncIterator[FakeBroker]:
    """A running fake broker."""
    async with await connect(url, name="fake-broker", timeout_s=10) as connection:
        broker = FakeBroker(connection, on_job)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.stop()


async def echo(broker: FakeBroker, spec: JobSpec) -> None:
    """Every job succeeds at once with its command line as value."""
    await broker.succeed(spec, " ".join(spec.argv).encode())
