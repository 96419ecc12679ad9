"""Messages as JetStream hands them out."""

from typing import NamedTuple

from lender.link.errors import StrangeAnswerError


class StoredMessage(NamedTuple):
    """A message of a stream."""

    subject: str
    sequence: int
    payload: bytes
    headers: dict[str, str]


class DeliveryInfo(NamedTuple):
    """What a consumer says about a delivery in its acknowledgement subject."""

    num_delivered: int
    stream_sequence: int
    consumer_sequence: int
    num_pending: int


def delivery_info(ack_subject: str) -> DeliveryInfo:
    """Read `$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time>.<pending>`.

    The longer form (ADR-15) has a domain and an account before the stream, and a last random
    token.

    Raises:
        StrangeAnswerError: it is no such subject.
    """
    tokens = ack_subject.split(".")
    at = 4 if len(tokens) == 9 else 6
    try:
        delivered, stream, consumer, _, pending = map(int, tokens[at : at + 5])
    except ValueError as error:
        raise StrangeAnswerError(f"delivery {ack_subject[:200]!r}") from error
    return DeliveryInfo(delivered, stream, consumer, pending)
