"""What servers answer the operator, read as the words of whoever answers there."""

from pydantic import Field

from lender.link.server_words import Told, read_told
from lender.link.way_in import token_of


class Refusal(Told):
    """Why a server did not do what it was asked."""

    description: str = ""


class Outcome(Told):
    """What came of it, by HTTP's codes."""

    code: int = 200


class Server(Told):
    """Who answers."""

    id: str = Field("", pattern=r"^[A-Z0-9]{0,64}$")
    name: str = ""


class Done(Told):
    """The answer to a command."""

    server: Server = Server()
    data: Outcome | None = None
    error: Refusal | None = None


class _Counted(Told):
    active_servers: int = 0
    """As many as it knows of, and itself; one that has just ended is among them for minutes."""


class Present(Told):
    """The answer to a ping."""

    server: Server = Server()
    statsz: _Counted = _Counted()


class User(Told):
    """One who is connected."""

    cid: int = 0
    """Number of the connection, on its server."""
    start: str = ""
    """When it began, as RFC 3339 writes it."""
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


class _Page(Told):
    total: int = 0
    connections: tuple[User, ...] = ()


class Users(Told):
    """A page of those who are connected with one server."""

    server: Server = Server()
    data: _Page


class _Routes(Told):
    cluster_port: int = 0
    tls_required: bool = False
    tls_verify: bool = False


class _Settings(Told):
    cluster: _Routes = _Routes()


class Settings(Told):
    """How a server was told to run, as far as it matters."""

    server: Server = Server()
    data: _Settings

    @property
    def is_open(self) -> bool:
        """Whether anybody who reaches its port of routes is taken for a server."""
        routes = self.data.cluster
        return routes.cluster_port > 0 and not (routes.tls_required and routes.tls_verify)


class _Held(Told):
    expired: bool = False
    complete: bool = False
    jwt: str = ""


class _Holding(Told):
    account_detail: _Held | None = None


class Account(Told):
    """What a server has of an account; nothing where it was not used yet."""

    server: Server = Server()
    data: _Holding | None = None

    def is_passed_over(self, token: str) -> bool:
        """Whether the server goes by something else than this token, which it has taken."""
        held = self.data.account_detail if self.data else None
        if held is None or not held.jwt:
            return False
        # One that is expired and not complete is read as soon as somebody comes.
        return held.jwt != token or (held.expired and held.complete)


def done_of(said: bytes) -> Done:
    """Read an answer to a command.

    Raises:
        StrangeAnswerError: it is none.
    """
    return read_told(Done, said)


def present_of(said: bytes) -> Present:
    """Read an answer to a ping.

    Raises:
        StrangeAnswerError: it is none.
    """
    return read_told(Present, said)


def users_of(said: bytes) -> Users:
    """Read an answer about who is connected.

    Raises:
        StrangeAnswerError: it is none.
    """
    return read_told(Users, said)


def settings_of(said: bytes) -> Settings:
    """Read an answer about how a server runs.

    Raises:
        StrangeAnswerError: it is none.
    """
    return read_told(Settings, said)


def account_of(said: bytes) -> Account:
    """Read an answer about what a server has of an account.

    Raises:
        StrangeAnswerError: it is none.
    """
    return read_told(Account, said)
