"""Servers are told what is new until each goes by it, or the operator hears which does not."""

import json
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.deployment import servers
from broker.deployment.contents import Identities, account_tokens
from broker.deployment.folder import DeploymentError
from broker.deployment.servers import UPDATE, NotAllToldError, PassedOverError, Servers
from broker.deployment.tokens import Key
from lender.link.connection import Connection
from lender.link.errors import StrangeAnswerError

OPERATOR, ACCOUNT = (Key.make(kind, bytes([9] * 32)) for kind in ("operator", "account"))
TOKENS = account_tokens(
    "fleet", Identities(ACCOUNT.public, {"core": ACCOUNT.public}, {}), OPERATOR, 1.0, None
)
CORE = TOKENS["core"]

Says = Callable[[str, int], bytes | None]


class Running:
    """Servers, by their ids, as the operator's line has them."""

    def __init__(self, ids: str = "ABC") -> None:
        self.inbox = self
        self.servers = Servers(cast("Connection", self))
        self.ids = ids
        self.to_update: Says = lambda _, __: self.told({"code": 200})
        self.account: Mapping[str, Any] | None = None
        self.active = 0
        self.updates: list[str] = []
        self._asked: dict[tuple[str, str], int] = {}

    def add(self, hear: Callable[[int, SimpleNamespace], None]) -> tuple[int, str]:
        self._hear = hear
        return 1, "_INBOX.x"

    def drop(self, _: int) -> None:
        pass

    def told(self, data: Mapping[str, Any]) -> bytes:
        who = {"server": {"id": self._id, "name": self._id.lower()}}
        return json.dumps(who | {"data": data, "statsz": {"active_servers": self.active}}).encode()

    async def publish(self, subject: str, payload: bytes, reply: str) -> None:
        assert reply
        if subject == UPDATE:
            self.updates.append(payload.decode())
        for who in self.ids:
            self._id = who
            count = self._asked[subject, self._id] = self._asked.get((subject, self._id), 0) + 1
            said: bytes | None = self.told({})
            if subject == UPDATE:
                said = self.to_update(self._id, count)
            elif subject.endswith("ACCOUNTZ"):
                said = self.told({"account_detail": self.account if self._id == "B" else None})
            if said is not None:
                self._hear(1, SimpleNamespace(data=said))


@pytest.fixture(autouse=True)
def _nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_QUIET_S", 0.01)
    monkeypatch.setattr(servers, "_ANSWER_S", 0.05)


async def test_each_server_has_answered_for_each_token() -> None:
    running = Running()
    await running.servers.update([CORE, TOKENS["system"]])
    assert running.updates == [CORE, TOKENS["system"]]


async def test_where_as_many_have_answered_as_there_are_nobody_waits_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "_QUIET_S", 3600.0)
    running = Running()
    running.active = 3
    await running.servers.update([CORE])
    assert running.updates == [CORE]


async def test_a_server_that_does_not_answer_is_told_again() -> None:
    running = Running()
    running.to_update = lambda who, count: (
        None if (who, count) == ("C", 1) else running.told({"code": 200})
    )
    await running.servers.update([CORE])
    assert running.updates == [CORE, CORE]


async def test_a_server_that_was_there_and_says_nothing_is_named() -> None:
    running = Running()
    running.to_update = lambda who, _: None if who == "C" else running.told({"code": 200})
    with pytest.raises(NotAllToldError, match="no answer from c,"):
        await running.servers.update([CORE])


async def test_a_server_that_comes_meanwhile_is_no_answer_for_another() -> None:
    running = Running("AB")
    running.to_update = lambda who, _: None if who == "B" else running.told({"code": 200})
    ask_all = running.servers._ask_all

    async def joined(subject: str, payload: bytes, *rest: Collection[str]) -> list[bytes]:
        answers = await ask_all(subject, payload, *rest)
        running.ids = "ABC"
        return answers

    running.servers._ask_all = joined  # type: ignore[method-assign]
    with pytest.raises(NotAllToldError, match="no answer from b,"):
        await running.servers.update([CORE])


@pytest.mark.parametrize(
    "held",
    [
        {"jwt": CORE, "complete": True},
        {"jwt": CORE, "complete": False},
        {"expired": True, "complete": False},  # first heard of by a route
        None,
    ],
)
async def test_a_server_that_goes_by_it_or_will_when_somebody_comes_is_content(
    held: Mapping[str, Any] | None,
) -> None:
    running = Running()
    running.account = held
    await running.servers.update([CORE])


@pytest.mark.parametrize(
    "held",
    [{"jwt": CORE, "expired": True, "complete": True}, {"jwt": "another", "complete": True}],
)
async def test_a_server_that_goes_by_something_else_is_named(held: Mapping[str, Any]) -> None:
    running = Running()
    running.account = held
    with pytest.raises(PassedOverError, match=r"^b took what is new of core, .*start it anew"):
        await running.servers.update([CORE])


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (b'{"server": {"id": "A"}, "data": {"code": 200}}', None, ""),
        (b'{"server": {"id": "A"}, "data": {"code": 500}}', DeploymentError, "did not take it"),
        (
            b'{"server": {"id": "A"}, "error": {"description": "no room"}}',
            DeploymentError,
            "no room",
        ),
        (b"no JSON", StrangeAnswerError, "none of the server's"),
        (b"[]", StrangeAnswerError, "none of the server's"),
        (b"7", StrangeAnswerError, "none of the server's"),
        (b'{"data": 7}', StrangeAnswerError, "none of the server's"),
        (b'{"error": "no"}', StrangeAnswerError, "none of the server's"),
        (b"[" * 100_000, StrangeAnswerError, "none of the server's"),
        (b'{"data": {"code": ' + b"9" * 9000 + b"}}", StrangeAnswerError, "none of the server's"),
    ],
)
async def test_what_a_server_answers_is_looked_at(
    answer: bytes, error: type[Exception] | None, says: str
) -> None:
    running = Running("A")
    running.to_update = lambda _, __: answer
    if error is None:
        await running.servers.update([CORE])
        return
    with pytest.raises(error, match=says):
        await running.servers.update([CORE])
