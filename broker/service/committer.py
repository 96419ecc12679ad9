"""Group commit: what is decided while a batch is on its way goes into the next one."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from broker.core.effects import Commit
from broker.core.events import Committed
from broker.service.journal import named_job
from lender.link.api import JetStream
from lender.link.batch import (
    RECORDS_MAX,
    CommitUnknownError,
    Record,
    StreamFullError,
    SubjectTakenError,
    WrongLastSequenceError,
    commit,
)
from lender.link.connection import Connection
from lender.link.errors import (
    JetStreamError,
    LinkError,
    NoRespondersError,
    NotConnectedError,
    passing,
)
from lender.protocol.streams import RESULTS

logger = logging.getLogger(__name__)

BATCH_BYTES_MAX = 4 * 1024 * 1024

WAITING_MAX = 5_000
"""Commits; with more of them on their way nothing new should be decided."""

RESULTS_FULL = (
    "RESULTS is full: no result is stored and none is lost; give it more with --results-bytes, or "
    "wait until its oldest records have aged out"
)

_PAUSE_FIRST_S = 0.02
_PAUSE_MAX_S = 2.0


class FencedError(Exception):
    """Another broker writes to the same streams: what this one knows is out of date."""

    def __init__(self) -> None:
        super().__init__("another broker has committed results")


class Committer:
    """Writes RESULTS, one batch at a time, each onto exactly the state that it knows.

    A batch whose outcome is unknown is looked for in the stream before it is sent again.
    """

    def __init__(
        self,
        connection: Connection,
        last_sequence: int,
        report: Callable[[Committed], None],
        stored: Callable[[int, float], None] = lambda _records, _seconds: None,
    ) -> None:
        """Prepare.

        Args:
            connection: to a server with the stream RESULTS.
            last_sequence: of RESULTS as replayed.
            report: takes the outcome of each commit, in their order.
            stored: takes how many records each batch had, and how long it took, in seconds.
        """
        self._connection = connection
        self._js = JetStream(connection)
        self._last_sequence = last_sequence
        self._report = report
        self._stored = stored
        self._waiting: deque[Commit] = deque()
        self._wake = asyncio.Event()

    @property
    def last_sequence(self) -> int:
        """Of RESULTS, as far as it is known here."""
        return self._last_sequence

    @property
    def waiting(self) -> int:
        """How many commits are decided and not begun."""
        return len(self._waiting)

    @property
    def congested(self) -> bool:
        """Whether more is decided than RESULTS takes."""
        return len(self._waiting) > WAITING_MAX

    def add(self, effect: Commit) -> None:
        """Queue a commit."""
        self._waiting.append(effect)
        self._wake.set()

    async def run(self) -> None:
        """Commit for ever.

        Raises:
            FencedError: see there.
            LinkError: the server refuses what no retry can mend.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                commits = self._next_batch()
                records = [
                    Record(one.subject, one.payload, dict(one.headers))
                    for effect in commits
                    for one in effect.records
                ]
                began = time.monotonic()
                await self._store(records)
                self._stored(len(records), time.monotonic() - began)
                for effect in commits:
                    self._report(Committed(effect.token))

    def _next_batch(self) -> list[Commit]:
        """Take as many commits as fit, at least one."""
        commits: list[Commit] = []
        records = size_bytes = 0
        while self._waiting:
            effect = self._waiting[0]
            records += len(effect.records)
            size_bytes += sum(len(record.payload) for record in effect.records)
            if commits and (records > RECORDS_MAX or size_bytes > BATCH_BYTES_MAX):
                break
            commits.append(self._waiting.popleft())
        return commits

    async def _store(self, records: Sequence[Record]) -> None:
        pause_s = _PAUSE_FIRST_S
        while records:
            try:
                self._last_sequence = await commit(self._connection, records, self._last_sequence)
            except SubjectTakenError:
                records = await self._not_taken(records)
            except (CommitUnknownError, WrongLastSequenceError) as error:
                logger.info("a commit of %d records: %s", len(records), error)
                if await self._has_landed(records):
                    return
            except (NotConnectedError, NoRespondersError):
                pass
            except StreamFullError:
                logger.error(RESULTS_FULL)  # noqa: TRY400 - what led to it says no more
            except JetStreamError as error:
                if not passing(error):
                    raise
                logger.warning("RESULTS is not available: %s", error)
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    async def _has_landed(self, records: Sequence[Record]) -> bool:
        """Learn whether the batch was stored; waits for a server that can tell.

        Raises:
            FencedError: somebody else's records stand in its place.
        """
        pause_s = _PAUSE_FIRST_S
        while True:
            try:
                state = await self._js.stream_state(RESULTS)
                if state.last_sequence == self._last_sequence:
                    return False
                page = await self._js.get_page(RESULTS, self._last_sequence + 1, len(records))
            except LinkError as error:
                logger.info("RESULTS can't be read yet: %s", error)
            else:
                stored = [(message.subject, message.payload) for message in page.messages]
                if stored != [(one.subject, one.payload) for one in records[: len(stored)]]:
                    raise FencedError
                if len(stored) == len(records):
                    self._last_sequence = page.messages[-1].sequence
                    return True
                # A replica that is behind shows a part of the batch, which was stored as a whole.
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    async def _not_taken(self, records: Sequence[Record]) -> Sequence[Record]:
        """Leave out what RESULTS holds already: the first commit has won."""
        try:
            stored = [await self._js.get_last(RESULTS, one.subject) for one in records]
        except LinkError as error:
            logger.info("RESULTS can't be read yet: %s", error)
            return records
        for record, first in zip(records, stored, strict=True):
            if first is not None:
                about = {"job": named_job(record.subject)}
                logger.warning("%s is taken: its first record counts", record.subject, extra=about)
        return [one for one, first in zip(records, stored, strict=True) if first is None]
