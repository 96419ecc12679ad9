"""A job's results as they are committed: events for speed, RESULTS for truth."""

import asyncio
import logging
from collections.abc import Callable
from typing import Self

from lender.client.collector import Collector, Sweep, TaskRecord
from lender.client.errors import ContentFault, UntrustedResult
from lender.client.insistence import check_allowed
from lender.client.news import Hearing, News
from lender.client.records import Record, decode_record, read_record
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.link.errors import LinkError
from lender.protocol import subjects
from lender.protocol.job import JobSpec
from lender.protocol.result import Terminal

logger = logging.getLogger(__name__)

Look = Callable[[Record], tuple[Record, frozenset[int]]]
"""Returns a record as its submitter reads it, and which tasks' results in it are signed; raises
UntrustedResult."""

OnUntrusted = Callable[[Record, UntrustedResult], None]

_SILENCE_S = 1.0
_SILENCE_S_MAX = 8.0


class Following:
    """One watch over one job.

    Events are heard before RESULTS is first read, so nothing falls between the two; where they were
    heard since before the job was submitted, there is nothing to read yet. After that silence makes
    it read again, of a second first and then longer: a lost event costs time, never a result. It
    survives whatever the network does by trying again; the caller bounds the time. Entering it
    raises Unreachable where the connection was closed for good.
    """

    def __init__(
        self,
        connection: Connection,
        jetstream: JetStream,
        news: News,
        spec: JobSpec,
        look: Look,
        *,
        with_tasks: bool,
        fresh: bool = False,
        on_untrusted: OnUntrusted | None = None,
    ) -> None:
        """Prepare to follow the job.

        Args:
            connection: the submitter's.
            jetstream: of it.
            news: of it.
            spec: the job's.
            look: at each record.
            with_tasks: whether an array's every task result is asked for.
            fresh: the job is submitted after this was entered: there is nothing to read yet.
            on_untrusted: told of a record that is not to be trusted, which then counts as seen;
                else `more` raises.
        """
        self._look = look
        self._fresh = fresh
        self._on_untrusted = on_untrusted
        self._connection = connection
        self._jetstream = jetstream
        self._news = news
        self._submitter, self._job = spec.submitter, spec.id
        # A job without array has its one task's result in the terminal record.
        self._chunked = with_tasks and spec.array is not None
        self._collector = Collector(spec.task_ranges if self._chunked else ((0, 1),))
        self._terminal_looked_for = False
        self._sweep: Sweep | None = Sweep(self._collector)
        self._silence_s = _SILENCE_S
        self._hearing: Hearing

    @property
    def terminal(self) -> Terminal | None:
        """The job's last word, once seen."""
        return self._collector.terminal

    @property
    def is_reading(self) -> bool:
        """What RESULTS holds by now has not all been seen."""
        return self._sweep is not None or self._hearing.is_pending

    @property
    def complete(self) -> bool:
        """Nothing more will come."""
        return self._collector.complete if self._chunked else self.terminal is not None

    async def __aenter__(self) -> Self:
        self._hearing = await self._news.follow(self._job, fresh=self._fresh)
        if self._hearing.whole:
            self._sweep = None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._news.leave(self._job, self._hearing)

    async def more(self) -> list[TaskRecord]:
        """Wait for news; returns the task results that are new, which may be none.

        Raises:
            Unreachable: the connection was closed for good.
            NotAdmitted: the server forbids reading the job's results.
            ContentFault: RESULTS holds something that this client can't read.
            UntrustedResult: it holds a result that is not its lender's, or not one's to trust.
        """
        if self._sweep is None:
            return await self._listen()
        try:
            return await self._read(self._sweep)
        except LinkError as error:
            check_allowed(self._connection, subjects.result(self._submitter, self._job))
            logger.info("reading the results of %s: %s; trying again", self._job, error)
            self._sweep = None
            return []

    async def _listen(self) -> list[TaskRecord]:
        msg = await self._hearing.next(self._silence_s)
        if msg is None:
            self._silence_s = min(2 * self._silence_s, _SILENCE_S_MAX)
            self._start_sweep()
            return []
        self._silence_s = _SILENCE_S
        headers = msg.headers or {}
        copied_from = headers.get(subjects.SUBJECT_HEADER, "")
        if not copied_from and not self._chunked:
            # Of an array the broker's own word comes in order, behind the last of the results.
            copied_from = headers.get(subjects.REPUBLISHED_HEADER, "")
        if not copied_from.startswith("res."):
            return []
        try:
            record, signed = self._look(decode_record(copied_from, headers, msg.data))
        except (ContentFault, UntrustedResult) as error:
            # What counts is RESULTS, which is looked at again before long.
            logger.warning("an event is passed over: %s", error)
            return []
        if isinstance(record, Terminal):
            self._start_sweep()
        return self._collector.take(record, signed)

    async def _read(self, sweep: Sweep) -> list[TaskRecord]:
        """Read the terminal record first: every chunk that it counts was stored before it."""
        if self.terminal is None and not self._terminal_looked_for:
            subject = subjects.result(self._submitter, self._job)
            record = await read_record(self._jetstream, subject)
            self._terminal_looked_for = True
            return self._take(record) if record else []
        tasks = sweep.plan() if self._chunked else []
        if not tasks:
            self._sweep = None
            return []
        names = [subjects.chunk(self._submitter, self._job, task) for task in tasks]
        reads = (read_record(self._jetstream, name) for name in names)
        found = [record for record in await asyncio.gather(*reads) if record]
        sweep.looked(tasks, len(found))
        return [task for record in found for task in self._take(record)]

    def _take(self, record: Record) -> list[TaskRecord]:
        try:
            return self._collector.take(*self._look(record))
        except UntrustedResult as error:
            if self._on_untrusted is None:
                raise
            self._on_untrusted(record, error)
            self._collector.take(record)
            return []

    def _start_sweep(self) -> None:
        self._sweep = Sweep(self._collector)
        self._terminal_looked_for = False
