"""Reads the streams that hold the broker's state."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Iterator

from broker.core.events import (
    CancelReplayed,
    CancelRequested,
    JobReplayed,
    JobSubmitted,
    LeaseReplayed,
    ResultReplayed,
)
from lender.link.api import JetStream
from lender.link.batch import (
    CommitUnknownError,
    Record,
    SubjectTakenError,
    WrongLastSequenceError,
    commit,
)
from lender.link.connection import Connection
from lender.link.errors import NoRespondersError, NotConnectedError
from lender.link.message import StoredMessage
from lender.link.reader import StreamReader
from lender.protocol import streams, subjects

logger = logging.getLogger(__name__)

_PAUSE_S = 0.2
_PAGE = 500
_PAGE_BYTES = 4 * 1024 * 1024
_CANCEL = "cancel."


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile, and not again at what is there afterwards.

    A replay makes millions of objects that stay, and next to no garbage; what an earlier term of
    this process has left is collected first.
    """
    gc.unfreeze()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class ResultsReplay:
    """RESULTS from its start to a fence behind which no earlier broker commits any more.

    `last_sequence` is the fence's, once all has been read.
    """

    def __init__(self, connection: Connection, term: str) -> None:
        """Prepare.

        Args:
            connection: to a server with the stream RESULTS.
            term: an id that no fence had before.
        """
        self._connection = connection
        self._fence = Record(subjects.term(term), b"")
        self.last_sequence = 0

    async def events(self) -> AsyncIterator[ResultReplayed]:
        """Yield every record."""
        # The stream may end with sequences whose messages have aged out.
        state = await JetStream(self._connection).stream_state(streams.RESULTS)
        self.last_sequence = state.last_sequence
        caught_up = fenced = False
        async with StreamReader(self._connection, streams.RESULTS, [], headers_only=True) as reader:
            async for batch in reader:
                for message in batch.messages:
                    self.last_sequence = max(self.last_sequence, message.sequence)
                    fenced = fenced or message.subject == self._fence.subject
                    if not message.subject.startswith(subjects.TERM_PREFIX):
                        yield ResultReplayed(message.subject, message.headers)
                caught_up = caught_up or batch.caught_up
                if fenced or (caught_up and await self._put_fence()):
                    return

    async def _put_fence(self) -> bool:
        """Commit the fence onto what has been read; False where there is more to be read."""
        while True:
            try:
                last = await commit(self._connection, [self._fence], self.last_sequence)
            except (WrongLastSequenceError, SubjectTakenError):
                return False  # others' records, or our own fence, whose answer was lost
            except (CommitUnknownError, NotConnectedError, NoRespondersError) as error:
                logger.info("the fence: %s", error)
                await asyncio.sleep(_PAUSE_S)
            else:
                self.last_sequence = last
                return True


async def leases(connection: Connection) -> AsyncIterator[LeaseReplayed]:
    """Yield what WORK holds: by direct access, since a queue's consumers may not overlap."""
    jetstream = JetStream(connection)
    sequence = 1
    while True:
        page = await jetstream.get_page(streams.WORK, sequence, _PAGE, max_bytes=_PAGE_BYTES)
        for message in page.messages:
            yield LeaseReplayed(message.sequence, message.headers, message.payload)
            sequence = message.sequence + 1
        if not page.messages or not page.num_pending:
            return


def replayed(message: StoredMessage) -> JobReplayed | CancelReplayed:
    """Return what a message of JOBS says in a replay."""
    if message.subject.startswith(_CANCEL):
        return CancelReplayed(message.subject)
    return JobReplayed(message.subject, message.headers, message.payload)


def live(message: StoredMessage) -> JobSubmitted | CancelRequested:
    """Return what a message of JOBS says when it has just come."""
    if message.subject.startswith(_CANCEL):
        return CancelRequested(message.subject)
    return JobSubmitted(message.subject, message.headers, message.payload)
