"""What servers answer the operator, read as the words of whoever answers there."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lender.link.errors import StrangeAnswerError
from lender.link.way_in import token_of

M = TypeVar("M", bound=BaseModel)


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Refusal(_Told):
    """Why a server did not do what it was asked."""

    description: str = ""


class Outcome(_Told):
    """What came of it, by HTTP's codes."""

    code: int = 200


class Server(_Told):
    """Who answers."""

    id: str = Field("", pattern=r"^[A-Z0-9]{0,64}$")
    name: str = ""


class Done(_Told):
    """The answer to a command."""

    server: Server = Server()
    data: Outcome | None = None
    error: Refusal | None = None


class User(_Told):
    """One who is connected."""

    name: str = ""
    """As the program calls itself."""
    authorized_user: str = ""
    """Public key."""
    issuer_key: str = ""
    """Who vouches for him."""
    ip: str = ""
    jwt: str = ""

    @property
    def called(self) -> str:
        """As his token calls him, or else his program itself."""
        try:
            return token_of(self.jwt).name or self.name
        except ValueError:
            return self.name


class _Page(_Told):
    total: int = 0
    connections: tuple[User, ...] = ()


class Users(_Told):
    """A page of those who are connected with one server."""

    server: Server = Server()
    data: _Page


def done_of(said: bytes) -> Done:
    """Read an answer to a command.

    Raises:
        StrangeAnswerError: it is none.
    """
    return _read(Done, said)


def users_of(said: bytes) -> Users:
    """Read an answer about who is connected.

    Raises:
        StrangeAnswerError: it is none.
    """
    return _read(Users, said)


def _read(model: type[M], said: bytes) -> M:
    try:
        return model.model_validate_json(said)
    except ValidationError as error:
        raise StrangeAnswerError(f"answer {said[:200]!r}") from error
