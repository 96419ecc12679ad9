"""Commit to a stream: all records or none, and only onto the state that the caller has seen.

Several records go as one atomic batch (ADR-50, nats-server 2.12): the server checks and stores
them together, with one sync to disk.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from nats.aio.msg import Msg

from lender.link.api import answer, number
from lender.link.connection import NO_RESPONDERS, Connection, status
from lender.link.errors import (
    DisconnectedError,
    JetStreamError,
    LinkError,
    NoRespondersError,
    OutcomeUnknownError,
    RequestTimeoutError,
)

RECORDS_MAX = 1000
"""Records in one commit: the server's own limit on a batch."""

WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code of a failed compare-and-set."""

SUBJECT_TAKEN = 10077
"""JetStream's error code of a second message on a subject that takes one, or of a full stream."""

_FULL = ("maximum bytes exceeded", "maximum messages exceeded")
_EXPECTED_LAST_SEQUENCE = "Nats-Expected-Last-Sequence"


@dataclass(frozen=True, slots=True)
class Record:
    """A message to be stored."""

    subject: str
    payload: bytes
    headers: dict[str, str] = field(default_factory=dict)


class WrongLastSequenceError(LinkError):
    """Somebody else has written: the stream ends at `actual`. Nothing was stored."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"the stream ends at {actual}, not at {expected}")
        self.expected = expected
        self.actual = actual


class SubjectTakenError(LinkError):
    """A record's subject already holds its one message. Nothing was stored."""


class StreamFullError(LinkError):
    """The stream holds as many bytes as it may. Nothing was stored."""


class CommitUnknownError(OutcomeUnknownError):
    """No answer: stored as a whole, or not at all; read the stream on to find out.

    Read after the reconnect: what had not left this process goes out with it, before anything
    sent later.
    """


async def commit(
    connection: Connection,
    records: Sequence[Record],
    expected_last_sequence: int,
    *,
    timeout_s: float = 5.0,
) -> int:
    """Store 1 to `RECORDS_MAX` records in a stream that ends at `expected_last_sequence`.

    The stream must allow atomic batches (`allow_atomic`), and all subjects must be its own.

    Returns:
        The sequence of the last record; the others come right before it, in order.

    Raises:
        WrongLastSequenceError, SubjectTakenError, StreamFullError, JetStreamError,
        NotConnectedError, NoRespondersError, PayloadTooLargeError: nothing was stored.
        CommitUnknownError: see there.
    """
    if not 1 <= len(records) <= RECORDS_MAX:
        raise ValueError(f"{len(records)} records, want 1 to {RECORDS_MAX}")
    try:
        if len(records) == 1:
            (record,) = records
            headers = {**record.headers, _EXPECTED_LAST_SEQUENCE: str(expected_last_sequence)}
            msg = await connection.request(record.subject, record.payload, headers, timeout_s)
        else:
            msg = await _commit_batch(connection, records, expected_last_sequence, timeout_s)
        return number(answer(msg), "seq")
    except (DisconnectedError, RequestTimeoutError) as error:
        raise CommitUnknownError(str(error)) from error
    except JetStreamError as error:
        if error.err_code == WRONG_LAST_SEQUENCE:
            actual = re.search(r"\d+$", error.description)
            if actual:
                raise WrongLastSequenceError(expected_last_sequence, int(actual[0])) from None
        if is_full(error):
            raise StreamFullError("the stream holds as many bytes as it may") from None
        if error.err_code == SUBJECT_TAKEN:
            raise SubjectTakenError("a record's subject already holds its message") from None
        raise


def is_full(error: JetStreamError) -> bool:
    """Tell whether a message was refused for want of room in its stream."""
    return error.err_code == SUBJECT_TAKEN and error.description in _FULL


async def _commit_batch(
    connection: Connection, records: Sequence[Record], expected_last_sequence: int, timeout_s: float
) -> Msg:
    """Send the batch in one go; returns the server's answer to its last message.

    The server answers the first message (empty, or why it takes no batch) and always the last
    one. A batch that stays unfinished is forgotten by the server after 10 s.
    """
    opening: list[Msg] = []
    token, reply = connection.inbox.add(lambda _, msg: opening.append(msg))
    batch = {"Nats-Batch-Id": f"{connection.inbox.id}-{token}"}
    expected = {_EXPECTED_LAST_SEQUENCE: str(expected_last_sequence)}
    try:
        for number, record in enumerate(records[:-1], 1):
            headers = {**record.headers, **batch, "Nats-Batch-Sequence": str(number)}
            if number == 1:
                await connection.publish(record.subject, record.payload, headers | expected, reply)
            else:
                await connection.publish(record.subject, record.payload, headers)
        last = records[-1]
        headers = {
            **last.headers,
            **batch,
            "Nats-Batch-Sequence": str(len(records)),
            "Nats-Batch-Commit": "1",
        }
        msg = await connection.request(last.subject, last.payload, headers, timeout_s)
    finally:
        connection.inbox.drop(token)
    for first in opening:
        if status(first) == NO_RESPONDERS:
            raise NoRespondersError(records[0].subject)
        if first.data:
            answer(first)  # the reason why, where the last answer only calls it incomplete
    return msg
