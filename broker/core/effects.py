"""What the broker's core wants done, as the service carries it out: imperative, immutable."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lender.protocol.codec import ContentType, decode
from lender.protocol.lease import Control, DoneReply, Lease
from lender.protocol.query import QueryReply


@dataclass(frozen=True, slots=True)
class Record:
    """A message of RESULTS."""

    subject: str
    headers: Mapping[str, str]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """Store all records atomically, in the order of the effects, then tell `Committed(token)`.

    A record whose subject RESULTS already holds has lost: the first commit wins.
    """

    token: int
    records: tuple[Record, ...]


class FeedWork(NamedTuple):
    """Queue a lease, then tell `LeaseFed` or `FeedFailed`."""

    class_token: str
    """Its class, or the own queue of the lender that it is meant for."""
    lease_id: str
    payload: bytes
    """The lease as lenders read it, in MessagePack."""
    headers: Mapping[str, str]

    @property
    def lease(self) -> Lease:
        """The lease, decoded."""
        return decode(Lease, self.payload)


@dataclass(frozen=True, slots=True)
class DeleteWork:
    """Delete this message of WORK, if it is still there."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a request."""

    reply_to: str
    message: DoneReply | QueryReply
    content_type: ContentType


@dataclass(frozen=True, slots=True)
class PublishEvent:
    """Tell whoever listens, at most once."""

    subject: str
    headers: Mapping[str, str]
    payload: bytes


@dataclass(frozen=True, slots=True)
class SendControl:
    """Tell a lender, or all of them: `subjects.ALL_LENDERS`."""

    lender: str
    control: Control


@dataclass(frozen=True, slots=True)
class PutOff:
    """Of a replay alone: tell of this submission anew once the broker serves, as `JobSubmitted`.

    Its submitter has as much as it may have; what more the ledger holds stays there for now.
    """


@dataclass(frozen=True, slots=True)
class Warn:
    """Log something that an operator may want to know."""

    text: str


Effect = Commit | FeedWork | DeleteWork | Reply | PublishEvent | SendControl | PutOff | Warn
