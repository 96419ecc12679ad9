"""What lets lenderd in is fetched anew when it has to be, and kept whole whatever is answered."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from core_world import BOB, class_of, make_spec
from nats_server import until

from lender.core.events import TokenRead
from lender.daemon import token_keeper
from lender.daemon.token_keeper import VAIN_MAX, TokenKeeper
from lender.link.connection import Connected, Refused
from lender.link.credentials import credentials
from lender.link.enrolling import Applicant, RefusedError
from lender.link.errors import RequestTimeoutError
from lender.link.membership import Membership
from lender.protocol.bounds import ENROL_CLASSES_MAX
from lender.protocol.signature import Signer, seed_from_entropy

SEED = seed_from_entropy(bytes([7] * 32))
OURS, BOBS = class_of(), class_of(make_spec(BOB))
REVOKED = Refused("nats: 'user authentication revoked'")


def token(*classes: str, iat: int = 1) -> str:
    claims = {
        "sub": "U",
        "iss": "A",
        "iat": iat,
        "nats": {"tags": [f"class:{one}" for one in classes]},
    }
    return f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.s"


class World:
    """A fleet as the keeper meets it: `answer` says what the broker gives for classes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.posted: list[TokenRead] = []
        self.granted: tuple[str, ...] | None = None
        self.answer: Callable[[tuple[str, ...]], str] = lambda _: token()
        self.takes = True
        self.asked: list[tuple[str, ...]] = []
        self.came_back = 0
        signer = Signer(SEED)
        self.keeper = TokenKeeper(signer, SEED, "desk", lambda: self.granted, self.posted.append)
        self.membership = Membership.write(folder / "fleet", "nats://x", self.file(token()), None)
        monkeypatch.setattr(token_keeper, "LOOK_S", 0.001)
        monkeypatch.setattr(token_keeper, "REST_S", 0.001)
        monkeypatch.setattr(token_keeper, "connect_as_stranger", self._connect)
        monkeypatch.setattr(token_keeper, "ask_once", self._ask)
        monkeypatch.setattr(token_keeper, "lets_in_by", self._try)
        monkeypatch.setattr("lender.core.token_pace.AGAIN_FIRST_S", 0.001)
        monkeypatch.setattr("lender.core.token_pace.AGAIN_MAX_S", 0.001)

    @staticmethod
    def file(text: str) -> str:
        return credentials(text, SEED)

    def kept(self) -> str:
        return self.membership.credentials.read_text()

    async def _connect(self, *_: object) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    async def _ask(self, _: object, applicant: Applicant) -> SimpleNamespace:
        self.asked.append(applicant._wanted.classes)
        return SimpleNamespace(token=self.answer(applicant._wanted.classes))

    async def _try(self, *_: object) -> bool:
        return self.takes

    async def come_back(self) -> None:
        self.came_back += 1


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    one = World(tmp_path, monkeypatch)
    running = asyncio.create_task(one.keeper.run())
    yield one
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def joined(world: World) -> None:
    world.keeper.keep(world.membership)
    line: Any = world
    world.keeper.use(line)


async def test_what_is_granted_is_fetched_kept_and_used(world: World) -> None:
    joined(world)
    world.answer = lambda _: token(OURS)
    world.granted = (OURS, BOBS)
    await until(lambda: world.came_back)
    assert world.asked == [(OURS, BOBS)]
    assert world.kept() == world.file(token(OURS))
    world.keeper.on_state(Connected())
    assert world.posted[-1] == TokenRead(frozenset((OURS,)))
    assert world.keeper.not_approved == {(BOB.public_key, BOBS.rpartition("_")[2])}
    assert world.membership.credentials.stat().st_mode & 0o777 == 0o600


async def test_it_tells_of_what_is_granted_beyond_what_a_token_can_name(world: World) -> None:
    joined(world)
    world.granted = (OURS, *(f"x{n}" for n in range(ENROL_CLASSES_MAX - 1)), BOBS)
    world.answer = lambda asked: token(*asked)
    await until(lambda: world.came_back)
    assert world.asked == [world.granted[:-1]]
    assert world.keeper.not_asked == {(BOB.public_key, BOBS.rpartition("_")[2])}


async def test_who_may_take_all_asks_for_nothing_and_nor_does_who_has_a_file_of_his_own(
    world: World,
) -> None:
    world.granted = (OURS,)
    world.keeper.keep(None)
    world.keeper.on_state(REVOKED)
    await asyncio.sleep(0.1)
    world.membership.renew(world.file(token("*")))
    joined(world)
    await asyncio.sleep(0.5)
    assert (world.asked, world.posted[-1]) == ([], TokenRead(None))


async def test_a_refused_token_is_replaced_by_one_that_the_server_takes(world: World) -> None:
    joined(world)
    world.answer = lambda _: token(iat=2)
    world.keeper.on_state(Refused("nats: 'Authorization Violation'"))
    await until(lambda: world.came_back)
    assert world.kept() == world.file(token(iat=2))
    assert not world.keeper.out.done()


async def test_who_is_cut_off_and_given_the_same_again_was_revoked(world: World) -> None:
    joined(world)
    world.keeper.on_state(REVOKED)
    world.keeper.on_state(Refused("nats: 'Authorization Violation'"))
    assert await asyncio.wait_for(asyncio.shield(world.keeper.out), 20) == REVOKED.reason
    asked = len(world.asked)
    assert asked == VAIN_MAX
    await asyncio.sleep(0.1)
    assert len(world.asked) == asked
    assert world.kept() == world.file(token())
    # Let in anew by somebody, it looks after that one.
    world.answer = lambda _: token(OURS, iat=9)
    world.membership.renew(world.file(token(iat=9)))
    world.keeper.on_state(Connected())
    world.granted = (OURS,)
    await until(lambda: world.came_back)


async def test_a_refusal_that_may_pass_ends_nothing(world: World) -> None:
    joined(world)
    world.keeper.on_state(Refused("nats: 'Authorization Violation'"))
    await until(lambda: len(world.asked) > VAIN_MAX)
    assert not world.keeper.out.done()


@pytest.mark.parametrize("fault", [RefusedError("no"), RequestTimeoutError("x", 1.0)])
async def test_who_gets_no_answer_asks_again_and_who_is_not_in_does_not(
    world: World, fault: Exception
) -> None:
    def fail(_: tuple[str, ...]) -> str:
        raise fault

    joined(world)
    world.answer = fail
    world.granted = (OURS,)
    await until(lambda: world.asked)
    await asyncio.sleep(0.1)
    assert (len(world.asked) == 1) == isinstance(fault, RefusedError)
    assert not world.keeper.out.done()


@pytest.mark.parametrize("said", ["", "x", "a.b.c"])
async def test_what_is_no_token_replaces_none(world: World, said: str) -> None:
    joined(world)
    world.answer = lambda _: said
    world.granted = (OURS,)
    await until(lambda: len(world.asked) > 1)
    assert world.kept() == world.file(token())


async def test_a_token_that_the_server_does_not_take_replaces_none(world: World) -> None:
    joined(world)
    world.takes = False
    world.answer = lambda _: token(OURS)
    world.granted = (OURS,)
    await until(lambda: len(world.asked) > 1)
    assert (world.kept(), world.came_back) == (world.file(token()), 0)


async def test_a_file_that_is_damaged_is_told_and_not_minded(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.membership.credentials.write_bytes(b"\xff")
    joined(world)
    assert "can't be used" in caplog.text
    await asyncio.sleep(0.05)
    assert world.asked == []


async def test_who_has_what_was_granted_looks_again_when_more_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_keeper, "REST_S", 3600.0)
    joined(world)
    await asyncio.sleep(0.05)
    world.granted = (OURS,)
    world.answer = lambda asked: token(*asked)
    world.keeper.look()
    await until(lambda: world.came_back)
    assert world.asked == [(OURS,)]
