"""Reads the streams that hold the broker's state."""

from collections.abc import AsyncIterator

from broker.core.events import (
    CancelReplayed,
    CancelRequested,
    JobReplayed,
    JobSubmitted,
    LeaseReplayed,
    ResultReplayed,
)
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.link.message import StoredMessage
from lender.link.reader import StreamReader
from lender.protocol import streams

_PAGE = 500
_PAGE_BYTES = 4 * 1024 * 1024
_CANCEL = "cancel."


class ResultsReplay:
    """RESULTS from its start to its end; `last_sequence` is that end once it has been read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.last_sequence = 0

    async def events(self) -> AsyncIterator[ResultReplayed]:
        """Yield every record."""
        # The stream may end with sequences whose messages have aged out.
        state = await JetStream(self._connection).stream_state(streams.RESULTS)
        self.last_sequence = state.last_sequence
        async with StreamReader(self._connection, streams.RESULTS, []) as reader:
            async for batch in reader:
                for message in batch.messages:
                    self.last_sequence = max(self.last_sequence, message.sequence)
                    yield ResultReplayed(message.subject, message.headers)
                if batch.caught_up:
                    return


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
