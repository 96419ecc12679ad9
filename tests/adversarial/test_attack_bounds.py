"""A lender that the operator bounds to one submitter, in the wrong hands: whose token it gets."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from permissions.people import ALICE, BOB, BROKER, CLASS, LENDER, OTHER_CLASS, OTHER_LENDER
from permissions.trial import Trial, trial

from broker.core.enrolment.bound import Bound
from broker.core.enrolment.messages import Admission
from broker.deployment.tokens import decode as decode_token
from broker.service.enrolment import EnrolmentDesk
from broker.service.submitters import SubmittersFile
from lender.link.connection import Connection, connect
from lender.link.credentials import credentials
from lender.link.enrolling import Applicant, RefusedError, Wanted, ask_once, connect_as_stranger
from lender.link.errors import LinkError
from lender.protocol import subjects
from lender.protocol.bounds import ENROL_BYTES_MAX, ENROL_CLASSES_MAX
from lender.protocol.classes import WorkClass
from lender.protocol.codec import decode, encode
from lender.protocol.enrolment import EnrolAnswer, EnrolRequest, signed_part
from lender.protocol.permissions import USER_INFO
from lender.protocol.signature import SIGNATURE_HEADER, Signer

KEY, SEED = LENDER.key.public, LENDER.key.seed
WITHIN_S = 0.5
"""For what is not to come."""


class Desk:
    """A server, and the desk where tokens are given out."""

    def __init__(self, world: Trial) -> None:
        self.world = world
        self._broker: Connection | None = None
        self._desk: asyncio.Task[None] | None = None

    async def keep(self, *submitters: str) -> None:
        """Have the lender be bound so, by a broker that starts anew."""
        await self.end()
        self._broker = await self.world.connect(BROKER)
        bound = Bound(submitters=submitters)
        at = int(time.time())
        kept = Admission(role="lender", key=KEY, name="desk", bound=bound, at=at)
        await self._broker.request(kept.subject, encode(kept))
        file = SubmittersFile(self.world.folder)
        desk = EnrolmentDesk(self._broker, self.world.deployment, file, {}, lambda: True)
        self._desk = asyncio.create_task(desk.run())

    async def end(self) -> None:
        if self._desk is not None and self._broker is not None:
            self._desk.cancel()
            await asyncio.gather(self._desk, return_exceptions=True)
            await self._broker.close()

    async def ask(self, applicant: Applicant) -> EnrolAnswer:
        """Ask until there is an answer."""
        async with await connect_as_stranger(self.world.server.url, None, 10) as line:
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(LinkError):
                        if (answer := await ask_once(line, applicant)) is not None:
                            return answer

    async def connect(self, answer: EnrolAnswer) -> Connection:
        path = self.world.folder / "given.creds"
        path.touch(mode=0o600)
        path.write_text(credentials(answer.token or "", SEED))
        inbox = f"_INBOX_{KEY}"
        url = self.world.server.url
        return await connect(url, name="x", credentials=path, inbox_prefix=inbox, timeout_s=10)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with trial(tmp_path) as world:
        one = Desk(world)
        await one.keep(ALICE.public)
        yield one
        await one.end()


def applicant(*classes: str, key: bytes = SEED) -> Applicant:
    return Applicant(Signer(key), Wanted("lender", "desk", classes), os.urandom)


def tags(answer: EnrolAnswer) -> list[str]:
    found: list[str] = decode_token(answer.token or "")["nats"]["tags"]
    return found


async def test_a_bound_lender_gets_no_token_for_anybody_else(desk: Desk) -> None:
    answer = await desk.ask(applicant(CLASS, OTHER_CLASS, "*"))
    assert tags(answer) == [f"class:{CLASS}", f"submitter:{ALICE.public}"]
    async with await desk.connect(answer) as line:
        own = f"$JS.API.CONSUMER.MSG.NEXT.WORK.{CLASS}"
        assert (await line.request(own, b'{"no_wait":true}')).headers
        others = f"$JS.API.CONSUMER.MSG.NEXT.WORK.{OTHER_CLASS}"
        content = f"$JS.API.DIRECT.GET.BLOBS_{BOB.public}.{subjects.of_bucket(BOB.public)}"
        for subject in (others, content):
            with pytest.raises(LinkError):
                await line.request(subject, b'{"no_wait":true}', timeout_s=WITHIN_S)

    # Another's key, which it does not have: nobody is told anything.
    payload, headers = applicant(OTHER_CLASS, key=OTHER_LENDER.key.seed).request()
    _, own_signature = applicant(OTHER_CLASS).request()
    async with await connect_as_stranger(desk.world.server.url, None, 10) as stranger:
        with pytest.raises(LinkError):
            await stranger.request(
                subjects.ENROL, payload, {**headers, **own_signature}, timeout_s=WITHIN_S
            )
    with pytest.raises(RefusedError):  # its own word: that key was never let in
        await desk.ask(applicant(OTHER_CLASS, key=OTHER_LENDER.key.seed))


async def test_what_was_asked_before_brings_nothing_of_it_back(desk: Desk) -> None:
    """Whoever replays a request hears what its key may have now."""
    early = applicant(CLASS)
    assert tags(await desk.ask(early)) == [f"class:{CLASS}", f"submitter:{ALICE.public}"]
    await desk.keep(BOB.public)
    payload, headers = early.request()
    async with await connect_as_stranger(desk.world.server.url, None, 10) as stranger:
        for _ in range(3):
            msg = await stranger.request(subjects.ENROL, payload, headers)
            answer = early.take(msg.data)
            assert answer is not None
            assert tags(answer) == []
            assert applicant(CLASS).take(msg.data) is None, "it answers that one request"


def long_classes(count: int) -> tuple[str, ...]:
    machine = ("p" * 32, "python", "x86_64", "nvidia", ALICE.public)
    workloads = (f"{'w' * 28}{n:04d}" for n in range(count))
    return tuple(WorkClass(*machine, one, "3.11").token for one in workloads)


async def test_who_asks_for_ten_thousand_classes_gets_none_and_holds_up_nobody(
    desk: Desk,
) -> None:
    payload, _ = applicant().request()
    many = decode(EnrolRequest, payload).model_copy(update={"classes": long_classes(10_000)})
    signature = Signer(SEED).sign(signed_part(encode(many)))
    async with await connect_as_stranger(desk.world.server.url, None, 10) as stranger:
        said = encode(many), {SIGNATURE_HEADER: signature}
        with pytest.raises(LinkError):
            await stranger.request(subjects.ENROL, *said, timeout_s=WITHIN_S)
    most = applicant(*long_classes(ENROL_CLASSES_MAX))
    payload, headers = most.request()
    assert len(payload) + sum(len(a) + len(b) for a, b in headers.items()) < ENROL_BYTES_MAX - 200
    answer = await desk.ask(most)
    assert len(tags(answer)) == ENROL_CLASSES_MAX + 1
    async with await desk.connect(answer) as line:
        assert (await line.request(USER_INFO)).data, "its first words are not too long"
