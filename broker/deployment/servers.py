"""The operator's word to the servers that run: by the system account, on all of a cluster."""

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from nats.aio.msg import Msg

from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.server_words import (
    Done,
    User,
    account_of,
    done_of,
    present_of,
    settings_of,
    users_of,
)
from broker.deployment.tokens import decode
from lender.link.connection import Connection, connect
from lender.link.errors import LinkError

UPDATE = "$SYS.REQ.CLAIMS.UPDATE"

_PING = "$SYS.REQ.SERVER.PING"
_CONNECT_S = 5.0
_ANSWER_S = 5.0
_QUIET_S = 1.0
"""When no other server has answered for so long, none will, though one knew of more."""
_TRIES = 2
_PAGE = 256
_OK = 200


class NotAllToldError(LinkError):
    """Servers that were there a moment ago say nothing."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(
            f"no answer from {', '.join(sorted(names))}, where what is new may not be known: "
            "see that it runs, and do this again"
        )


class PassedOverError(DeploymentError):
    """Servers have taken tokens, and do not go by them; `accounts` has whose they are, by name."""

    def __init__(self, servers: Collection[str], accounts: Collection[str]) -> None:
        super().__init__(
            f"{', '.join(sorted(servers))} took what is new of {', '.join(sorted(accounts))}, and "
            "goes by something else: start it anew, and do this again"
        )
        self.accounts = frozenset(accounts)


class Servers:
    """All that run, by way of one of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def update(self, tokens: Sequence[str]) -> None:
        """Have each know accounts' tokens, and hold whoever is connected to those.

        Raises:
            DeploymentError: a server does not take one.
            PassedOverError: or does not go by it.
            LinkError: not all have answered, or one strangely; doing it again is safe.
        """
        names = await self._running()
        for token in tokens:
            for answer in await self._ask_each(names, UPDATE, token.encode()):
                _check(done_of(answer))
        passed_over: set[tuple[str, str]] = set()
        for token in tokens:
            claims = decode(token)
            asked = json.dumps({"account": claims["sub"]}).encode()
            for answer in await self._ask_each(names, f"{_PING}.ACCOUNTZ", asked):
                held = account_of(answer)
                if held.is_passed_over(token):
                    passed_over.add((held.server.name, claims["name"]))
        if passed_over:
            raise PassedOverError(*map(set, zip(*passed_over, strict=True)))

    async def users(self, account: str) -> list[User]:
        """Return who of an account is connected.

        Raises:
            LinkError: no answer, or a strange one.
        """
        found: dict[tuple[str, str, str, str], User] = {}
        for server, one in await self.lines(account):
            found[(server, one.authorized_user, one.ip, one.name)] = one
        return list(found.values())

    async def lines(self, account: str) -> list[tuple[str, User]]:
        """Return each connection of an account, with the id of its server.

        Raises:
            LinkError: no answer, or a strange one.
        """
        found: dict[tuple[str, int], User] = {}
        names = await self._running()
        offset, more = 0, True
        while more:
            asked = {"acc": account, "auth": True, "limit": _PAGE, "offset": offset}
            answers = await self._ask_each(names, f"{_PING}.CONNZ", json.dumps(asked).encode())
            pages = [users_of(answer) for answer in answers]
            for page in pages:
                found |= {(page.server.id, one.cid): one for one in page.data.connections}
            offset += _PAGE
            more = any(page.data.total > offset for page in pages)
        return [(server, one) for (server, _), one in found.items()]

    async def cut(self, lines: Iterable[tuple[str, int]]) -> None:
        """Close connections, each named by the id of its server and its own number there.

        One that is closed already is as good.

        Raises:
            LinkError: no answer, or a strange one.
        """
        asked = [
            self._connection.request(
                f"$SYS.REQ.SERVER.{server}.KICK",
                json.dumps({"cid": number}).encode(),
                timeout_s=_ANSWER_S,
            )
            for server, number in lines
        ]
        for answer in await asyncio.gather(*asked):
            done_of(answer.data)

    async def reload(self) -> list[str]:
        """Have each read its configuration and its certificate anew; returns their names.

        Raises:
            DeploymentError: one refuses.
            LinkError: no answer, or a strange one.
        """
        names = await self._running()
        for one in names:
            subject = f"$SYS.REQ.SERVER.{one}.RELOAD"
            _check(done_of((await self._connection.request(subject, timeout_s=_ANSWER_S)).data))
        return list(names.values())

    async def open_to_servers(self) -> list[str]:
        """Return the names of those that take anybody for a server of their cluster.

        Raises:
            LinkError: no answer, or a strange one.
        """
        names = await self._running()
        told = map(settings_of, await self._ask_each(names, f"{_PING}.VARZ", b""))
        return list({one.server.id: one.server.name for one in told if one.is_open}.values())

    async def _running(self) -> dict[str, str]:
        """Return the names of all, by their ids."""

        def all_of_them(answers: Collection[bytes]) -> bool:
            told = [present_of(answer).statsz.active_servers for answer in answers]
            return 0 < max(told) <= len(answers)

        present = map(present_of, await self._ask_all(_PING, b"", all_of_them))
        return {one.server.id: one.server.name for one in present}

    async def _ask_each(
        self, names: Mapping[str, str], subject: str, payload: bytes
    ) -> list[bytes]:
        """Return what they answer, each of those servers at least once; by their ids."""
        answers: list[bytes] = []
        missing = set(names)
        for _ in range(_TRIES):
            are_all = functools.partial(_have_answered, frozenset(missing))
            answers += await self._ask_all(subject, payload, are_all, _ANSWER_S)
            missing -= _ids(answers)
            if not missing:
                return answers
        raise NotAllToldError([names[one] for one in missing])

    async def _ask_all(
        self,
        subject: str,
        payload: bytes,
        are_all: Callable[[Collection[bytes]], bool] = lambda _: False,
        quiet_s: float | None = None,
    ) -> list[bytes]:
        """Return what each of them answers: until there is a first one, and then until silence.

        Args:
            subject: all listen to it.
            payload: what is asked.
            are_all: tells of some answers whether no other is to come.
            quiet_s: how long a silence says the same.
        """
        quiet_s = _QUIET_S if quiet_s is None else quiet_s
        answers: list[bytes] = []
        heard = asyncio.Event()

        def hear(_: int, msg: Msg) -> None:
            answers.append(msg.data)
            heard.set()

        token, reply = self._connection.inbox.add(hear)
        try:
            await self._connection.publish(subject, payload, reply=reply)
            with contextlib.suppress(TimeoutError):
                while not (answers and are_all(answers)):
                    async with asyncio.timeout(quiet_s if answers else _ANSWER_S):
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


def _have_answered(ids: frozenset[str], answers: Collection[bytes]) -> bool:
    return _ids(answers) >= ids


def _ids(answers: Collection[bytes]) -> set[str]:
    return {done_of(answer).server.id for answer in answers}


def _check(done: Done) -> None:
    if done.error is not None or (done.data is not None and done.data.code != _OK):
        fault = done.error.description if done.error else done.data
        raise DeploymentError(f"the server did not take it: {fault}; see the server's log")
