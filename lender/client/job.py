"""A submitted job, seen from its submitter's side."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lender.client.collector import TaskRecord
from lender.client.contents import Contents
from lender.client.destinations import destination
from lender.client.errors import ContentFault, UntrustedResult, error_of
from lender.client.following import Following, OnUntrusted
from lender.client.insistence import insist
from lender.client.ledger import Ledger
from lender.client.log_following import LogFollowing, assembly_of
from lender.client.log_pieces import LogPiece
from lender.client.news import News
from lender.client.records import Record, read_record
from lender.client.seals import Seal
from lender.client.trust import Trust
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.protocol import subjects
from lender.protocol.job import JobSpec
from lender.protocol.result import Output, TaskResult, Terminal
from lender.protocol.sealing import sealed_size
from lender.protocol.signature import Signer


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job that succeeded.

    Attributes:
        terminal: its committed last word.
        value: what its task wrote to standard output; empty for an array, see `Job.results`.
    """

    terminal: Terminal
    value: bytes


@dataclass(frozen=True, slots=True)
class Session:
    """What the jobs of one client share."""

    connection: Connection
    jetstream: JetStream
    ledger: Ledger
    news: News
    contents: Contents
    timeout_s: float
    trust: Trust
    signer: Signer


class Job:
    """A handle: holds no state of the job, so that any number of them may be made and dropped."""

    def __init__(self, session: Session, spec: JobSpec, payload: bytes) -> None:
        self._spec = spec
        self._session = session
        self._spec_sha256 = sha256(payload).digest()
        self._seal = Seal.of(spec, session.signer)

    @property
    def id(self) -> str:
        """The job's id."""
        return self.spec.id

    @property
    def spec(self) -> JobSpec:
        """What was submitted."""
        return self._spec

    async def terminal(self) -> Terminal | None:
        """Return the job's last word as of now, None while it goes on.

        Raises:
            NotAdmitted, Unreachable: it can't be read.
            UntrustedResult: it has a result that is not its lender's, or not one's to trust.
        """
        session, spec = self._session, self.spec
        subject = subjects.result(spec.submitter, spec.id)

        async def attempt() -> Record | None:
            return await read_record(session.jetstream, subject)

        record = await insist(session.connection, subject, attempt, session.timeout_s)
        if not isinstance(record, Terminal):
            return None
        terminal, _ = self._look(record)
        assert isinstance(terminal, Terminal)
        return terminal

    async def ended(self, timeout_s: float | None = None) -> Terminal:
        """Wait for the job's end and return its last word, good or bad.

        Raises:
            TimeoutError: it has not ended within `timeout_s`; it goes on.
            Unreachable: the connection was closed for good.
        """
        async with asyncio.timeout(timeout_s), self._following(with_tasks=False) as following:
            while (terminal := following.terminal) is None:
                await following.more()
        return terminal

    async def result(self, timeout_s: float | None = None) -> JobResult:
        """Wait for the job's success.

        Raises:
            JobFailed, Cancelled, Expired, Rejected: it ended otherwise.
            TimeoutError: it has not ended within `timeout_s`; it goes on.
            ContentFault, Unreachable: its value can't be fetched.
            UntrustedResult: its result is not its lender's, or not one's to trust.
        """
        async with asyncio.timeout(timeout_s):
            terminal = await self.ended()
            if error := error_of(terminal):
                raise error
            value = await self.value(terminal.result) if terminal.result else b""
        return JobResult(terminal, value)

    async def results(self) -> AsyncIterator[TaskRecord]:
        """Yield each task's result once, as it is committed, until the job has ended.

        Failed tasks are yielded like the others: see `TaskRecord.result.state`. What became of
        the whole job is then `await job.ended()`.

        Raises:
            UntrustedResult: a result is not its lender's, or not one's to trust.
        """
        async with self._following(with_tasks=True) as following:
            while not following.complete:
                for record in await following.more():
                    yield record

    async def task(self, index: int) -> TaskRecord | None:
        """Return the result of one task as of now, None while it has none.

        Of an array that reads the results before it, too.

        Raises:
            NotAdmitted, Unreachable: it can't be read.
            UntrustedResult: it is not its lender's, or not one's to trust.
        """
        async with self._following(with_tasks=True, on_untrusted=_raise_of(index)) as following:
            while following.is_reading:
                for record in await following.more():
                    if record.result.task == index:
                        return record
        return None

    async def log(self, task: int | None = None) -> AsyncIterator[LogPiece]:
        """Yield what the tasks write to standard error while they run, until the job has ended.

        Of a function it is what it prints, too. A lender tells at most 64 KiB of a task at once,
        then 16 KiB a second, and begins once somebody listens: to who comes late it tells what
        nobody has read yet, up to 128 KiB. The last 8 KiB come with the task's result in any case,
        and here as its last piece, as far as they were not seen before. A lender is believed
        nothing else that it says here: what counts is the result.

        Args:
            task: follow this one alone, until it has ended.

        Raises:
            NotAdmitted, Unreachable: it can't be read.
        """
        following = self._following(with_tasks=True, on_untrusted=_raise_of(task))
        async with following, LogFollowing(self._session.connection, self.spec) as log:
            async for piece in log.pieces(following, task):
                yield piece

    async def log_so_far(self, task: int | None = None) -> AsyncIterator[LogPiece]:
        """Yield the last 8 KiB of what each task wrote that has ended by now.

        Args:
            task: of this one alone.

        Raises:
            NotAdmitted, Unreachable: they can't be read.
        """
        assembly = assembly_of(self.spec)
        async with self._following(with_tasks=True, on_untrusted=_raise_of(task)) as following:
            while following.is_reading:
                for record in await following.more():
                    piece = assembly.end(record)
                    if piece is not None and task in (None, piece.task):
                        yield piece

    async def value(self, result: TaskResult) -> bytes:
        """Return the whole value of a task's result, also when it travelled as a blob.

        Raises:
            ContentFault: the blob is gone or damaged, or larger than the job allows.
            Unreachable: it could not be fetched.
        """
        blob = result.value_blob
        if blob is None:
            return result.value
        self._check_sizes("value", [blob.size_bytes], self.spec.limits.output_bytes)
        content = await self._session.contents.fetch(blob)
        if self._seal is None:
            return content
        return await asyncio.to_thread(self._seal.value, result.task, content)

    async def download(self, result: TaskResult, folder: Path) -> list[Path]:
        """Write a task's outputs under `folder`, each whole or not at all; returns their paths.

        Raises:
            ContentFault: an output is gone or damaged, may not be written, or was not asked for, or
                all together are larger than the job allows.
            Unreachable: it could not be fetched.
        """
        sizes_bytes = [one.size_bytes for one in result.outputs]
        self._check_sizes("outputs", sizes_bytes, self.spec.limits.scratch_bytes)
        paths = []
        for output in result.outputs:
            path = destination(folder, output.name, self.spec.outputs)
            await self._fetch(result.task, output, path)
            paths.append(path)
        return paths

    async def cancel(self) -> None:
        """Ask for the job's end; its last word then comes as `cancelled`, unless it has one.

        Raises:
            NotAdmitted, Unreachable: not known to be accepted.
        """
        await self._session.ledger.cancel(self.id)

    def _check_sizes(self, what: str, sizes_bytes: Sequence[int], bytes_max: int) -> None:
        """See that no lender fills memory or disk here: it holds a task to the same limits.

        Raises:
            ContentFault: it is more.
        """
        if self._seal is not None:
            bytes_max = sealed_size(bytes_max) + len(sizes_bytes) * sealed_size(0)
        if sum(sizes_bytes) > bytes_max:
            raise ContentFault(
                f"its {what} would be {sum(sizes_bytes)} bytes, and the job allows {bytes_max}",
                "report the lender to your operator, and run the task again",
            )

    async def _fetch(self, task: int, output: Output, path: Path) -> None:
        fetch = self._session.contents.fetch_into
        if self._seal is None:
            await fetch(output, path)
            return
        with tempfile.TemporaryDirectory(prefix="lender-sealed-") as folder:
            sealed = Path(folder) / path.name
            await fetch(output, sealed)
            try:
                await asyncio.to_thread(self._seal.open_output, task, output.name, sealed, path)
            except OSError as error:
                raise ContentFault(
                    f"can't write {path}: {error.strerror}", "choose another folder"
                ) from error

    def _following(
        self, *, with_tasks: bool, fresh: bool = False, on_untrusted: OnUntrusted | None = None
    ) -> Following:
        """Return a watch over the job, not entered yet."""
        session = self._session
        return Following(
            *(session.connection, session.jetstream, session.news),
            *(self.spec, self._look),
            with_tasks=with_tasks,
            fresh=fresh,
            on_untrusted=on_untrusted,
        )

    def _look(self, record: Record) -> tuple[Record, frozenset[int]]:
        """Return what a record says, and whose results are signed; raises UntrustedResult."""
        signed = self._session.trust.check(self.spec, self._spec_sha256, record)
        return (record if self._seal is None else self._seal.record(record)), signed


def _raise_of(task: int | None) -> OnUntrusted | None:
    """Return what raises a fault of a task's record; faults of others are for who reads those."""
    if task is None:
        return None

    def hear(record: Record, error: UntrustedResult) -> None:
        if isinstance(record, Terminal) or any(one.task == task for one in record.results):
            raise error

    return hear
