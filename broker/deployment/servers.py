"""The operator's word to the servers that run: by the system account, on all of a cluster."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from nats.aio.msg import Msg

from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.server_words import Done, User, done_of, settings_of, users_of
from lender.link.connection import Connection, connect

UPDATE = "$SYS.REQ.CLAIMS.UPDATE"

_PING = "$SYS.REQ.SERVER.PING"
_CONNECT_S = 5.0
_ANSWER_S = 5.0
_QUIET_S = 0.3
"""When no other server has answered for so long, none will."""
_PAGE = 256
_OK = 200


class Servers:
    """All that run, by way of one of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def update(self, tokens: Iterable[str]) -> None:
        """Have them know accounts' tokens, and hold whoever is connected to those.

        Raises:
            DeploymentError: a server does not take one.
            LinkError: no answer, or a strange one; doing it again is safe.
        """
        for token in tokens:
            msg = await self._connection.request(UPDATE, token.encode(), timeout_s=_ANSWER_S)
            _check(done_of(msg.data))

    async def users(self, account: str) -> list[User]:
        """Return who of an account is connected.

        Raises:
            LinkError: no answer, or a strange one.
        """
        found: dict[tuple[str, str, str, str], User] = {}
        offset, more = 0, True
        while more:
            asked = {"acc": account, "auth": True, "limit": _PAGE, "offset": offset}
            answers = await self._ask_all(f"{_PING}.CONNZ", json.dumps(asked).encode())
            pages = [users_of(answer) for answer in answers]
            for page in pages:
                for one in page.data.connections:
                    key = (page.server.id, one.authorized_user, one.ip, one.name)
                    found[key] = one
            offset += _PAGE
            more = any(page.data.total > offset for page in pages)
        return list(found.values())

    async def reload(self) -> list[str]:
        """Have each read its configuration and its certificate anew; returns their names.

        Raises:
            DeploymentError: one refuses.
            LinkError: no answer, or a strange one.
        """
        servers = [done_of(answer).server for answer in await self._ask_all(_PING, b"")]
        for server in servers:
            subject = f"$SYS.REQ.SERVER.{server.id}.RELOAD"
            _check(done_of((await self._connection.request(subject, timeout_s=_ANSWER_S)).data))
        return [server.name for server in servers]

    async def open_to_servers(self) -> list[str]:
        """Return the names of those that take anybody for a server of their cluster.

        Raises:
            LinkError: no answer, or a strange one.
        """
        told = [settings_of(answer) for answer in await self._ask_all(f"{_PING}.VARZ", b"")]
        return [one.server.name for one in told if one.is_open]

    async def _ask_all(self, subject: str, payload: bytes) -> list[bytes]:
        """Return what each of them answers: until there is a first one, and then until silence."""
        answers: list[bytes] = []
        heard = asyncio.Event()

        def hear(_: int, msg: Msg) -> None:
            answers.append(msg.data)
            heard.set()

        token, reply = self._connection.inbox.add(hear)
        try:
            await self._connection.publish(subject, payload, reply=reply)
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(_QUIET_S if answers else _ANSWER_S):
                        await heard.wait()
                    heard.clear()
        finally:
            self._connection.inbox.drop(token)
        if not answers:
            raise DeploymentError(f"no server answers {subject}: are these credentials its own?")
        return answers


@contextlib.asynccontextmanager
async def servers(deployment: Deployment, url: str, ca: Path | None) -> AsyncIterator[Servers]:
    """Connect as the operator.

    Args:
        deployment: with the operator's folder in it.
        url: of a server of the fleet.
        ca: certificates of who may vouch for it; None for a server without TLS.

    Raises:
        LinkError: there is none.
    """
    connection = await connect(
        url,
        name="lender-broker operator",
        credentials=deployment.system_credentials,
        ca=ca,
        timeout_s=_CONNECT_S,
    )
    async with connection:
        yield Servers(connection)


def _check(done: Done) -> None:
    if done.error is not None or (done.data is not None and done.data.code != _OK):
        fault = done.error.description if done.error else done.data
        raise DeploymentError(f"the server did not take it: {fault}; see the server's log")
