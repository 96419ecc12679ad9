"""Reads the streams that hold the broker's state: along, while it stands by, and to their ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from broker.core.broker import Broker
from broker.core.effects import Effect
from broker.core.events import (
    CancelReplayed,
    Event,
    JobReplayed,
    LeaseReplayed,
    LedgerRead,
    ReplayCompleted,
    ResultReplayed,
)
from broker.service.committer import RESULTS_FULL
from broker.service.submissions import CANCEL, Submissions
from lender.link.api import JetStream
from lender.link.batch import (
    CommitUnknownError,
    Record,
    StreamFullError,
    SubjectTakenError,
    WrongLastSequenceError,
    commit,
)
from lender.link.connection import Connection
from lender.link.errors import LinkError, NoRespondersError, NotConnectedError, passing
from lender.link.message import StoredMessage
from lender.link.reader import StreamReader
from lender.protocol import streams, subjects

logger = logging.getLogger(__name__)

FOLLOW_S = 1.0
"""Who stands by reads what has come as often."""

HEARTBEAT_S = 1.0
"""Of a reader's consumer: it lives on one node of a cluster, which may die."""

PUT_OFF_MAX = 10_000
PUT_OFF_BYTES_MAX = 16 * 1024 * 1024
"""What who stands by keeps of JOBS until there is room, or its end is known; then it reads no more.

The leader decides on each at once, since it knows sooner who has room.
"""

_BATCH = 4_000
"""Messages that are asked for at a time: between two such questions both sides wait."""
_PAUSE_S = 0.2
_FULL_PAUSE_S = 2.0
_PAGE = 500
_PAGE_BYTES = 4 * 1024 * 1024

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


class Replay:
    """Tells a core what the streams hold, each message once.

    `follow` for as long as another broker leads, then `complete`.
    """

    def __init__(
        self,
        connection: Connection,
        core: Broker,
        submissions: Submissions,
        now: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            connection: to a server with the streams.
            core: that has been told of no stream.
            submissions: are to know what the core has had of JOBS.
            now: returns the core's time.
        """
        self._connection = connection
        self._js = JetStream(connection)
        self._core = core
        self._submissions = submissions
        self._now = now
        self._results_read = 0
        self._jobs_read = 0
        self._put_off: list[StoredMessage] = []
        """Of submitters that had their most when it was read."""
        self._put_off_bytes = 0

    @property
    def last_result(self) -> int:
        """The last sequence of RESULTS that was read, or the fence's, which is put there."""
        return self._results_read

    async def follow(self) -> None:
        """Read RESULTS, and then JOBS, to where they end now; may be cancelled at any time.

        What a replay would put off is told of again, after RESULTS, until it is taken: by then it
        may have begun, or ended, or there is room.

        Raises:
            LinkError: what no retry can mend.
        """
        await self._read_results(None)
        self._tell_again()
        end = await self._end_of(streams.JOBS)
        if end != self._jobs_read and not self._is_full:
            async with self.jobs() as jobs:
                await self._read_jobs(jobs, end, leads=False)
        if not self._is_full:
            self._tell(LedgerRead())

    def jobs(self) -> StreamReader:
        """Return a reader of what is left of JOBS, and of what comes."""
        return StreamReader(
            self._connection,
            streams.JOBS,
            [],
            self._jobs_read + 1,
            batch_max=_BATCH,
            heartbeat_s=HEARTBEAT_S,
        )

    async def complete(self, term: str, jobs: StreamReader) -> list[Effect]:
        """Read everything to its end, behind which no earlier broker commits any more.

        Args:
            term: an id that no fence had before.
            jobs: see there; it goes on from the end.

        Raises:
            LinkError: what no retry can mend.
        """
        await self._read_results(Record(subjects.term(term), b""))
        await self._read_work()
        self._tell_again()
        for message in self._put_off:
            self._submissions.put_off(message)
        await self._read_jobs(jobs, 0, leads=True)
        return self._tell(ReplayCompleted())

    async def _read_results(self, fence: Record | None) -> None:
        """Read RESULTS to its end, or to a fence that is put there."""
        # The stream may end with sequences whose messages have aged out.
        end = await self._end_of(streams.RESULTS)
        if fence is None and end == self._results_read:
            return
        caught_up = fenced = False
        async with StreamReader(
            self._connection,
            streams.RESULTS,
            [],
            self._results_read + 1,
            batch_max=_BATCH,
            heartbeat_s=HEARTBEAT_S,
            headers_only=True,
        ) as reader:
            async for batch in reader:
                for message in batch.messages:
                    self._results_read = message.sequence
                    fenced = fenced or (fence is not None and message.subject == fence.subject)
                    if not message.subject.startswith(subjects.TERM_PREFIX):
                        self._tell(ResultReplayed(message.subject, message.headers))
                if batch.caught_up:
                    caught_up = True
                    self._results_read = max(self._results_read, end)
                if fenced or (caught_up and (fence is None or await self._put(fence))):
                    return
                await asyncio.sleep(0)

    async def _put(self, fence: Record) -> bool:
        """Commit the fence onto what has been read; False where there is more to be read."""
        while True:
            try:
                last = await commit(self._connection, [fence], self._results_read)
            except (WrongLastSequenceError, SubjectTakenError):
                return False  # others' records, or our own fence, whose answer was lost
            except StreamFullError:
                logger.error(RESULTS_FULL)  # noqa: TRY400 - what led to it says no more
                await asyncio.sleep(_FULL_PAUSE_S)
            except (CommitUnknownError, NotConnectedError, NoRespondersError) as error:
                logger.info("the fence: %s", error)
                await asyncio.sleep(_PAUSE_S)
            else:
                self._results_read = last
                return True

    async def _read_jobs(self, jobs: StreamReader, end: int, *, leads: bool) -> None:
        """Read JOBS to its end, which is not before `end`."""
        async for batch in jobs:
            for message in batch.messages:
                put_off = bool(self._tell(_replayed(message)))
                self._jobs_read = message.sequence
                self._submissions.replayed(message, put_off=put_off and leads)
                if put_off and not leads:
                    self._put_off.append(message)
                    self._put_off_bytes += len(message.payload)
                    if self._is_full:
                        return
            if batch.caught_up:
                self._jobs_read = max(self._jobs_read, end)
                return
            await asyncio.sleep(0)

    @property
    def _is_full(self) -> bool:
        """Whether so much is put off that the rest of JOBS is left unread."""
        return len(self._put_off) >= PUT_OFF_MAX or self._put_off_bytes >= PUT_OFF_BYTES_MAX

    def _tell_again(self) -> None:
        """Tell of what was put off; what is taken now, or has ended, is not put off any more."""
        self._put_off = [one for one in self._put_off if self._tell(_replayed(one))]
        self._put_off_bytes = sum(len(one.payload) for one in self._put_off)

    async def _read_work(self) -> None:
        """Read WORK by direct access, since a queue's consumers may not overlap."""
        sequence, more = 1, True
        while more:
            page = await self._insist(
                self._js.get_page, streams.WORK, sequence, _PAGE, max_bytes=_PAGE_BYTES
            )
            for message in page.messages:
                self._tell(LeaseReplayed(message.sequence, message.headers, message.payload))
                sequence = message.sequence + 1
            more = bool(page.messages and page.num_pending)

    async def _end_of(self, stream: str) -> int:
        state = await self._insist(self._js.stream_state, stream)
        return state.last_sequence

    async def _insist(
        self, ask: Callable[_Asked, Awaitable[_Answer]], *args: _Asked.args, **kwargs: _Asked.kwargs
    ) -> _Answer:
        """Ask until there is an answer."""
        while True:
            try:
                return await ask(*args, **kwargs)
            except LinkError as error:
                if not passing(error):
                    raise
                logger.info("the streams can't be read yet: %s", error)
            await asyncio.sleep(_PAUSE_S)

    def _tell(self, event: Event) -> list[Effect]:
        return self._core.handle(self._now(), event)


def _replayed(message: StoredMessage) -> JobReplayed | CancelReplayed:
    """Return what a message of JOBS says in a replay."""
    if message.subject.startswith(CANCEL):
        return CancelReplayed(message.subject)
    return JobReplayed(message.subject, message.headers, message.payload)
