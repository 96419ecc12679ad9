"""What is kept of enrolment, and what the operator's commands say to the broker that serves."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from broker.core.enrolment.bound import Bound, BoundPools
from lender.protocol import bounds, subjects
from lender.protocol.codec import Closed, Open
from lender.protocol.enrolment import NAME_PATTERN, ClassName, EnrolledRole, PersonName
from lender.protocol.ids import PublicKey, Sha256

EXPIRES_S_MAX = 30 * 86_400.0
"""So long a join token may be good."""

_SECOND_MAX = 1 << 53
_Second = Annotated[int, Field(ge=0, le=_SECOND_MAX)]
_Classes = Annotated[tuple[ClassName, ...], Field(max_length=bounds.TOKEN_CLASSES_MAX)]
_NameOrKey = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
_Whom = Annotated[tuple[_NameOrKey, ...], Field(max_length=bounds.BOUND_SUBMITTERS_MAX)]
"""Submitters, as the operator knows them."""


class Admission(Open):
    """That a key was let in as one of a role; its token can be made again from it."""

    v: Literal[1] = 1
    role: EnrolledRole
    key: PublicKey
    name: PersonName
    classes: _Classes = ()
    """That its token names, whatever it asks for: `*`. None where it is bound, so that a broker
    which knows no bounds gives it nothing."""
    bound: Bound | None = None
    """Of a lender: its token names what it asks for within this."""
    at: _Second
    """When, which is when its token was issued."""
    allowed: bool = True
    """False: of a submitter, it is yet to be written down that it may submit."""

    def named(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Return the classes of the token for a lender that asks for these."""
        return self.classes if self.bound is None else self.bound.within(asked)

    @property
    def subject(self) -> str:
        """Where it is kept."""
        return subjects.enrolled(self.role, self.key)


class JoinToken(Open):
    """What a join token is good for; the token itself is kept nowhere."""

    v: Literal[1] = 1
    digest: Sha256
    role: EnrolledRole
    classes: _Classes = ()
    bound: Bound | None = None
    expires_at: _Second
    used: Admission | None = None
    """Who has used it."""

    @property
    def subject(self) -> str:
        """Where it is kept."""
        return subjects.join_token(self.digest)


Record = Admission | JoinToken


def admission_in(record: Record) -> Admission | None:
    """Return who is let in by a record; None where nobody is yet."""
    return record.used if isinstance(record, JoinToken) else record


def as_allowed(record: Record) -> Record:
    """Return a record as it is once its submitter may submit."""
    if isinstance(record, Admission):
        return record.model_copy(update={"allowed": True})
    used = record.used and record.used.model_copy(update={"allowed": True})
    return record.model_copy(update={"used": used})


class Whom(Closed):
    """For whom the operator lets a lender work, and in which pools; None: everybody, in all."""

    submitters: _Whom | None = None
    pools: BoundPools | None = None


class Approve(Whom):
    """The operator lets in who waits under a code. The key is the one that was shown to him."""

    v: Literal[1] = 1
    code: Annotated[str, StringConstraints(max_length=20)]
    key: PublicKey
    name: PersonName | None = None
    """None: as it calls itself."""


class KeepToken(Whom):
    """The operator made a join token."""

    v: Literal[1] = 1
    digest: Sha256
    role: EnrolledRole
    expires_s: Annotated[float, Field(gt=0, le=EXPIRES_S_MAX)]


class SetBound(Whom):
    """The operator says anew for whom a lender that is in may work."""

    v: Literal[1] = 1
    key: PublicKey


class AskLenders(Closed):
    """The operator asks who lends; None: all who were let in."""

    v: Literal[1] = 1
    key: PublicKey | None = None


class WaitingRequest(Open):
    """One who waits for approval."""

    code: str
    role: EnrolledRole
    key: PublicKey
    name: PersonName
    host: str = ""
    """The address that the server saw; empty where it did not say."""
    waits_s: float


class KnownLender(Open):
    """One that was let in."""

    key: PublicKey
    name: PersonName
    submitters: tuple[str, ...] | None = None
    """By name, or else by key; None: everybody."""
    pools: tuple[str, ...] | None = None
    at: int
    """Second of its token."""


class OperatorAnswer(Open):
    """The broker's answer to each of the operator's commands."""

    v: Literal[1] = 1
    error: str = ""
    requests: tuple[WaitingRequest, ...] = ()
    lenders: tuple[KnownLender, ...] = ()
