"""Messages as JetStream hands them out."""

from typing import NamedTuple


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
    """
    tokens = ack_subject.split(".")
    at = 4 if len(tokens) == 9 else 6
    return DeliveryInfo(
        int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 2]), int(tokens[at + 4])
    )
