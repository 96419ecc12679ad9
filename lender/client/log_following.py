"""A job's log as it is written: messages for what goes on, results for how it ended."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Self

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from lender.client.collector import TaskRecord
from lender.client.following import Following
from lender.client.insistence import check_allowed
from lender.client.listening import listen
from lender.client.log_pieces import LogAssembly, LogPiece
from lender.link.connection import Connection
from lender.protocol import codec, subjects
from lender.protocol.bounds import LOG_PIECE_BYTES_MAX, STDERR_TAIL_BYTES_MAX
from lender.protocol.errors import ProtocolError
from lender.protocol.job import JobSpec
from lender.protocol.sealing import SEALED_TAIL_BYTES_MAX
from lender.protocol.task_log import TaskLogPiece

logger = logging.getLogger(__name__)

_UNREAD_MAX = 4096
_MESSAGE_BYTES_MAX = 2 * LOG_PIECE_BYTES_MAX
"""A piece in JSON takes 4/3 of its content. Larger ones break the protocol: none waits here."""


def assembly_of(spec: JobSpec) -> LogAssembly:
    """Return what puts a job's log together, before anything of it was seen."""
    # Of a sealed job nothing is told on the way, and less fits into its last words.
    tail_bytes = STDERR_TAIL_BYTES_MAX if spec.sealing is None else SEALED_TAIL_BYTES_MAX
    return LogAssembly(spec.task_end, tail_bytes)


class LogFollowing:
    """One watch over one job's log. Who reads too slowly for it misses the oldest."""

    def __init__(self, connection: Connection, spec: JobSpec) -> None:
        self._connection = connection
        self._now = asyncio.get_running_loop().time
        self._subject = subjects.task_log_filter(spec.submitter, spec.id)
        self._assembly = assembly_of(spec)
        self._messages: deque[Msg] = deque(maxlen=_UNREAD_MAX)
        self._changed = asyncio.Event()
        self._heard = self._before_news = 0
        self._subscription: Subscription

    async def __aenter__(self) -> Self:
        self._subscription = await listen(self._connection, self._subject, self._hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._connection.nc.is_closed:
            await self._subscription.unsubscribe()

    async def pieces(self, following: Following, task: int | None) -> AsyncIterator[LogPiece]:
        """Yield each piece of all tasks, or of one; ends with the job, or with that task.

        Raises:
            Unreachable: the connection was closed for good.
            NotAdmitted: the server forbids reading the job's log or its results.
        """
        news = self._look_for_news(following)
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                while self._messages:
                    for piece in self._read(self._messages.popleft(), task):
                        yield piece
                if self._subscription.pending_msgs and self._heard < self._before_news:
                    # What was published before the news comes before them; what came after may
                    # have no end, where a lender floods its log.
                    self._changed.set()
                    await asyncio.sleep(0)
                elif news.done():
                    records = news.result()
                    for piece in self._told(records, task):
                        yield piece
                    if following.complete or any(one.result.task == task for one in records):
                        return
                    check_allowed(self._connection, self._subject)
                    news = self._look_for_news(following)
        finally:
            news.cancel()
            await asyncio.gather(news, return_exceptions=True)

    def _look_for_news(self, following: Following) -> asyncio.Future[list[TaskRecord]]:
        news = asyncio.ensure_future(following.more())
        news.add_done_callback(self._hear_of_news)
        return news

    def _hear_of_news(self, _: asyncio.Future[list[TaskRecord]]) -> None:
        self._before_news = self._subscription.delivered
        self._changed.set()

    async def _hear(self, msg: Msg) -> None:
        self._heard += 1
        if len(msg.data) <= _MESSAGE_BYTES_MAX:
            self._messages.append(msg)
        self._changed.set()

    def _told(self, records: list[TaskRecord], task: int | None) -> list[LogPiece]:
        """Return the last pieces of tasks that have ended, and what was held of others."""
        ends = [piece for one in records if (piece := self._assembly.end(one)) is not None]
        return _of(task, [*ends, *self._assembly.overdue(self._now())])

    def _read(self, msg: Msg, task: int | None) -> list[LogPiece]:
        try:
            content_type = codec.content_type_of((msg.headers or {}).get(codec.CONTENT_TYPE_HEADER))
            message = codec.decode(TaskLogPiece, msg.data, content_type)
        except ProtocolError as error:
            logger.info("a piece of a log is passed over: %s", error)
            return []
        lender = subjects.last_token(msg.subject)
        return _of(task, self._assembly.take(lender, message, self._now()))


def _of(task: int | None, pieces: list[LogPiece]) -> list[LogPiece]:
    """Return those of one task, or all."""
    return pieces if task is None else [one for one in pieces if one.task == task]
