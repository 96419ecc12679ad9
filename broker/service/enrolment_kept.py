"""Reads what is kept of enrolment: the last word on each key and on each join token."""

import logging

from broker.core.enrolment.bound import Bound
from broker.core.enrolment.enrolment import Enrolment
from broker.core.enrolment.events import (
    Recalled,
)
from broker.core.enrolment.messages import Admission, JoinToken, Record
from lender.link.api import JetStream
from lender.protocol import streams, subjects
from lender.protocol.codec import decode
from lender.protocol.errors import ProtocolError

logger = logging.getLogger(__name__)

_PAGE = 256


def record_of(subject: str, payload: bytes) -> Record:
    """Read what is kept at a subject.

    Raises:
        ProtocolError: it is no such thing.
    """
    kind: type[Admission | JoinToken] = (
        JoinToken if subject.startswith(subjects.join_token("")) else Admission
    )
    record = decode(kind, payload)
    if record.subject != subject:
        raise ProtocolError("subject", "is that of another record")
    return record


async def read_kept(jetstream: JetStream) -> tuple[tuple[Record, int], ...]:
    """Return all of it, each with its sequence.

    Raises:
        LinkError: the server does not let us read.
    """
    records: list[tuple[Record, int]] = []
    sequence = 1
    while True:
        page = await jetstream.get_page(streams.ENROLMENT, sequence, _PAGE)
        for message in page.messages:
            sequence = message.sequence + 1
            try:
                records.append((record_of(message.subject, message.payload), message.sequence))
            except ProtocolError as error:
                logger.error("%s can't be read: %s", message.subject, error)  # noqa: TRY400
        if not page.num_pending or not page.messages:
            return tuple(records)


async def read_bounds(jetstream: JetStream) -> dict[str, Bound]:
    """Return whom the operator lets lenders work for, of those that have a bound, by key.

    Raises:
        LinkError: the server does not let us read.
    """
    known = Enrolment()
    known.handle(0.0, Recalled(await read_kept(jetstream)))
    return known.bounds
