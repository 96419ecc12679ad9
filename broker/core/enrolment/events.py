"""What happens at the desk where keys are let in, and what is to be done about it."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.core.enrolment.messages import (
    Admission,
    Approve,
    AskLenders,
    KeepToken,
    OperatorAnswer,
    Record,
    SetBound,
)
from lender.protocol.enrolment import EnrolAnswer


@dataclass(frozen=True, slots=True)
class Asked:
    """A stranger has asked. `nonce`: 64 random hex digits; `line`, `host`: as the server says."""

    payload: bytes
    signature: str | None
    reply_to: str
    nonce: str
    line: str
    host: str


OperatorsWord = Approve | KeepToken | SetBound | AskLenders | None
"""None: who waits?"""


@dataclass(frozen=True, slots=True)
class OperatorAsked:
    """An operator's command has asked."""

    what: OperatorsWord
    reply_to: str


@dataclass(frozen=True, slots=True)
class SubmittersNamed:
    """Who may submit, by name: nobody else is let in under such a name."""

    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Recalled:
    """All that is kept, with the sequence of each, instead of what was known."""

    records: tuple[tuple[Record, int], ...]


@dataclass(frozen=True, slots=True)
class Store:
    """Keep a record in place of the one with that sequence (0: of none)."""

    record: Record
    replaces: int
    reply_to: str
    """Empty where nobody has asked for it."""
    commitment: str
    """Of the request that it answers; empty where that is the operator's."""


@dataclass(frozen=True, slots=True)
class Stored:
    """It is kept."""

    store: Store
    sequence: int


@dataclass(frozen=True, slots=True)
class NotStored:
    """It is not, as far as is known."""

    store: Store


@dataclass(frozen=True, slots=True)
class Tell:
    """Answer a stranger."""

    reply_to: str
    answer: EnrolAnswer


@dataclass(frozen=True, slots=True)
class Admit:
    """Make the token of a key that was let in, and answer with it."""

    reply_to: str
    admission: Admission
    commitment: str
    classes: tuple[str, ...]
    """That the token is to name."""


@dataclass(frozen=True, slots=True)
class AllowSubmitter:
    """Write down that a key may submit, since the record with that sequence says so."""

    name: str
    key: str
    record: Record
    sequence: int


@dataclass(frozen=True, slots=True)
class Allowed:
    """It is written down."""

    allowing: AllowSubmitter


@dataclass(frozen=True, slots=True)
class Inform:
    """Answer the operator."""

    reply_to: str
    answer: OperatorAnswer


Event = Asked | OperatorAsked | SubmittersNamed | Recalled | Stored | NotStored | Allowed
Effect = Store | Tell | Admit | AllowSubmitter | Inform
