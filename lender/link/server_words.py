"""What a server says of itself, of whom it has let in and of its broker, as a stranger's words."""

from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lender.link.errors import StrangeAnswerError
from lender.link.hardened import NONCE
from lender.protocol.bounds import ENROL_BYTES_MAX

_NAME_CHARS_MAX = 256
_SUBJECTS_MAX = 10_000

M = TypeVar("M", bound=BaseModel)


class Told(BaseModel):
    """What a server has said: it may say more, and nothing of it is taken for something else."""

    model_config = ConfigDict(frozen=True, strict=True)


class Greeting(Told):
    """What a server says first, of all that the line `INFO` of the NATS protocol has."""

    version: str = Field(max_length=_NAME_CHARS_MAX)
    server_name: str = Field("", max_length=_NAME_CHARS_MAX)
    max_payload: int = Field(ge=0, lt=1 << 63)
    jetstream: bool = False
    auth_required: bool = False
    tls_required: bool = False
    tls_available: bool = False
    nonce: str = Field("", pattern=rf"^{NONCE.pattern}$")
    """To be signed: nothing else than one ever is."""


class Subjects(Told):
    """What may be published, or subscribed to: nothing but `allow`, if there is any."""

    allow: tuple[str, ...] = Field((), max_length=_SUBJECTS_MAX)
    deny: tuple[str, ...] = Field((), max_length=_SUBJECTS_MAX)


class Rights(Told):
    """What one user may do; None: everything."""

    publish: Subjects | None = None
    subscribe: Subjects | None = None


class User(Told):
    """One whom the server has let in."""

    user: str = Field("", max_length=_NAME_CHARS_MAX)
    account: str = Field("", max_length=_NAME_CHARS_MAX)
    permissions: Rights | None = None


class Server(Told):
    """The server that answers; `time` is that of its own clock, when it did."""

    time: datetime
    ver: str = Field("", max_length=_NAME_CHARS_MAX)


class Standing(Told):
    """The answer to `$SYS.REQ.USER.INFO`: who asks, and what he may do."""

    server: Server
    data: User


class Leading(Told):
    """What the broker that leads has left on the server: stream LEADER."""

    broker: str | None = Field(max_length=_NAME_CHARS_MAX)
    """Its id; None: it gave the lead back, and nobody took it yet."""
    protocol: int | None = Field(None, ge=0, lt=1 << 31)
    """That it speaks; None: of a version that does not say."""
    version: str = Field("", max_length=_NAME_CHARS_MAX)
    """Of its package."""
    authorities: str = Field("", max_length=ENROL_BYTES_MAX)
    """Certificates of who may vouch for the fleet's servers (PEM); empty: it does not say."""


def greeting_of(said: bytes) -> Greeting:
    """Read what comes after `INFO`.

    Raises:
        StrangeAnswerError: it is none of a NATS server's.
    """
    return read_told(Greeting, said)


def standing_of(said: bytes) -> Standing:
    """Read an answer to `$SYS.REQ.USER.INFO`.

    Raises:
        StrangeAnswerError: it is none.
    """
    return read_told(Standing, said)


def leading_of(said: bytes) -> Leading:
    """Read what a broker that leads has left.

    Raises:
        StrangeAnswerError: it is none.
    """
    return read_told(Leading, said)


def read_told(model: type[M], said: bytes) -> M:
    """Read an answer.

    Raises:
        StrangeAnswerError: it is no such thing; says where.
    """
    try:
        return model.model_validate_json(said)
    except ValidationError as error:
        fault: Any = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise StrangeAnswerError(f"{where or 'it'}: {fault['msg']}: that") from error
