"""What happened, as the service tells it to the broker's core: past tense, immutable.

Payloads are raw where they come from outside: the core is where they are validated, once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.core.enrolment.bound import Bound
from broker.core.intake.quotas import Quota

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """The ledger accepted a message at `submit.S.J`."""

    subject: str
    headers: Headers
    payload: bytes


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The ledger accepted a message at `cancel.S.J`."""

    subject: str


@dataclass(frozen=True, slots=True)
class OfferReceived:
    """A message came at `offer.L`."""

    lender: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class DoneReported:
    """A request came at `done.L`; the answer goes to `reply_to`."""

    lender: str
    payload: bytes
    reply_to: str


@dataclass(frozen=True, slots=True)
class QueryReceived:
    """A request came at `query.S`; the answer goes to `reply_to`."""

    submitter: str
    headers: Headers
    payload: bytes
    reply_to: str


@dataclass(frozen=True, slots=True)
class SubmittersChanged:
    """The operator allowed or forbade submitters: these public keys may submit now."""

    submitters: frozenset[str]
    weights: Mapping[str, float] = field(default_factory=dict)
    """What each is entitled to beside the others: greater than 0, 1 for those not named."""
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    """What each may have at once; those not named, what is usual."""


@dataclass(frozen=True, slots=True)
class LendersBounded:
    """The operator bounds these lenders, by public key, and no others."""

    bounds: Mapping[str, Bound]


@dataclass(frozen=True, slots=True)
class Committed:
    """The records of `Commit(token)` are durable. Tokens come back in the order of the effects."""

    token: int


@dataclass(frozen=True, slots=True)
class LeaseFed:
    """WORK stored the lease at `sequence`."""

    lease: str
    sequence: int


@dataclass(frozen=True, slots=True)
class FeedFailed:
    """WORK may or may not have stored the lease: nobody knows."""

    lease: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkSeen:
    """WORK held these messages when it was looked through: sequence and payload."""

    messages: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """The wall clock moved by `by_s` against the monotonic one (set by hand, or a sleep)."""

    by_s: float


@dataclass(frozen=True, slots=True)
class HearingLost:
    """The line to NATS broke: silence says nothing about lenders any more."""


@dataclass(frozen=True, slots=True)
class HearingRestored:
    """The line is back, or the process went on after a stall: what lenders said may be lost."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened but time: what is due is done."""


# A start replays RESULTS, then WORK, then JOBS, each in stream order, and then ReplayCompleted.
# Who stands by replays RESULTS and JOBS before, in turns, each from where it was.


@dataclass(frozen=True, slots=True)
class ResultReplayed:
    """A record that RESULTS holds; its headers say all that a replay needs."""

    subject: str
    headers: Headers


@dataclass(frozen=True, slots=True)
class JobReplayed:
    """A submission that JOBS holds."""

    subject: str
    headers: Headers
    payload: bytes


@dataclass(frozen=True, slots=True)
class CancelReplayed:
    """A cancellation that JOBS holds."""

    subject: str


@dataclass(frozen=True, slots=True)
class LeaseReplayed:
    """A lease that WORK holds."""

    sequence: int
    headers: Headers
    payload: bytes


@dataclass(frozen=True, slots=True)
class LedgerRead:
    """RESULTS was read, and then JOBS to its end: so to every job that RESULTS has told of."""


@dataclass(frozen=True, slots=True)
class ReplayCompleted:
    """The streams have been read to their ends: the broker takes up its work."""


Replayed = (
    ResultReplayed | JobReplayed | CancelReplayed | LeaseReplayed | LedgerRead | ReplayCompleted
)

Event = (
    JobSubmitted
    | CancelRequested
    | OfferReceived
    | DoneReported
    | QueryReceived
    | SubmittersChanged
    | LendersBounded
    | Committed
    | LeaseFed
    | FeedFailed
    | WorkSeen
    | ClockJumped
    | HearingLost
    | HearingRestored
    | TimePassed
    | Replayed
)
