"""Messages of NATS as inputs: a subject, header lines, an empty line, and the payload."""

from typing import NamedTuple

from nats.aio.msg import Msg

from lender.link.hardened import HardenedClient


class Message(NamedTuple):
    """What a server passes on, as our client reads it."""

    subject: str
    headers: dict[str, str]
    payload: bytes


def written(subject: str, headers: dict[str, str], payload: bytes = b"") -> bytes:
    """An input that `read` takes apart."""
    lines = [subject, *(f"{name}: {value}" for name, value in headers.items())]
    return "\n".join(lines).encode() + b"\n\n" + payload


def read(data: bytes) -> Message:
    """Any bytes as a message."""
    head, _, payload = data.partition(b"\n\n")
    subject, _, lines = head.partition(b"\n")
    headers = HardenedClient._parse_header_lines(lines.replace(b"\n", b"\r\n"))
    return Message(subject.decode(errors="replace"), headers, payload)


def as_msg(message: Message, reply: str = "") -> Msg:
    """The same as nats-py hands it on."""
    return Msg(
        _client=None,  # type: ignore[arg-type] # nothing is answered
        subject=message.subject,
        reply=reply,
        data=message.payload,
        headers=message.headers or None,
    )
