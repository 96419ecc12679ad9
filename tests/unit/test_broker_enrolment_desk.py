"""The desk where strangers ask: each line has its turns, and what the server says of it is read."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from enrolment_world import Machine

from broker.core.enrolment.events import NotStored, Store, Stored
from broker.core.enrolment.messages import Admission, JoinToken
from broker.service import enrolment
from broker.service.enrolment import EnrolmentDesk, Place, place_of
from broker.service.enrolment_kept import record_of
from lender.link.errors import NoRespondersError
from lender.protocol.codec import encode
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import SIGNATURE_HEADER


class Desk(EnrolmentDesk):
    """One without a server."""

    def __init__(self, may_serve: Callable[[], bool] = lambda: True) -> None:
        nothing: Any = SimpleNamespace()
        super().__init__(nothing, nothing, nothing, {}, may_serve)

    async def hear(self, line: int, reply: str = "_R_.x") -> None:
        """As the subscription has it."""
        payload, headers = Machine(1).applicant.request()
        info = f'{{"host":"10.0.0.1","id":{line},"server":"s"}}'
        said = {SIGNATURE_HEADER: headers[SIGNATURE_HEADER], "Nats-Request-Info": info}
        msg: Any = SimpleNamespace(data=payload, headers=said, reply=reply)
        await self._on_stranger(msg)

    def taken(self) -> list[str]:
        """Whose messages are taken up, in order."""
        found = []
        while (asked := self._strangers.take()) is not None:
            self._strangers.charge(1.0)
            found.append(asked.line.split()[-1])
        return found


async def test_one_line_that_says_much_delays_no_other() -> None:
    desk = Desk()
    for _ in range(1000):
        await desk.hear(1)
    await desk.hear(2)
    order = desk.taken()
    assert len(order) == enrolment.LINE_WAITS_MAX + 1
    assert "2" in order[:2]


async def test_what_waits_is_bounded_however_many_lines_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(enrolment, "WAITING_BYTES_MAX", 2000)
    desk = Desk()
    for line in range(1000):
        await desk.hear(line)
    assert desk._strangers.bytes < 2000 + 1000


async def test_an_answer_goes_to_an_inbox_or_nowhere() -> None:
    desk = Desk()
    for reply in ("", "leader.key", "work.x", "enroll.ask"):
        await desk.hear(1, reply)
    assert desk.taken() == []


@pytest.mark.parametrize(
    "header",
    [None, "", "x", "[]", "1", "{}", '{"host":1,"id":2}', '{"host":"a","id":"2"}', "[" * 9999],
)
def test_a_server_that_says_nothing_of_places_is_taken_so(header: str | None) -> None:
    assert place_of(header) == Place("", "")


def test_a_record_at_anothers_place_is_none() -> None:
    one = Admission(role="lender", key=Machine(1).signer.public_key, name="desk", at=9)
    assert record_of(one.subject, encode(one)) == one
    with pytest.raises(ProtocolError, match="another record"):
        record_of(one.subject.replace("lender", "submitter"), encode(one))


async def test_an_unused_join_token_ends_in_the_store_and_who_was_let_in_does_not() -> None:
    sent: list[dict[str, str]] = []

    class Line:
        async def request(self, *said: object) -> SimpleNamespace:
            sent.append(cast("dict[str, str]", said[2]))
            return SimpleNamespace(data=b'{"stream":"ENROLMENT","seq":3}')

    desk = Desk()
    line: Any = Line()
    desk._connection = line
    one = Admission(role="lender", key=Machine(1).signer.public_key, name="desk", at=9)
    token = JoinToken(digest="ab" * 32, role="lender", expires_at=int(time.time()) + 3600)
    for record in (one, token, token.model_copy(update={"used": one})):
        await desk._store(Store(record, 0, "operator", ""))
    lives = [headers.get("Nats-TTL") for headers in sent]
    assert (lives[0], lives[2]) == (None, None)
    assert 3500 < int(str(lives[1]).removesuffix("s")) <= 3600


@pytest.mark.parametrize(
    ("refusals", "leaderless_s", "tries"),
    [(3, 9.0, 4), (3, 0.0, 1)],  # of a stream without a leader
)
async def test_a_stream_without_a_leader_is_waited_for_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, refusals: int, leaderless_s: float, tries: int
) -> None:
    monkeypatch.setattr(enrolment, "_LEADERLESS_S", leaderless_s)
    monkeypatch.setattr(enrolment, "_AGAIN_S", 0.001)
    seen: list[str] = []

    class Line:
        async def request(self, subject: str, *_: object) -> SimpleNamespace:
            seen.append(subject)
            if len(seen) > refusals:
                return SimpleNamespace(data=b'{"stream":"ENROLMENT","seq":3}')
            raise NoRespondersError(subject)

    desk = Desk()
    line: Any = Line()
    desk._connection = line
    store = Store(
        Admission(role="lender", key=Machine(1).signer.public_key, name="desk", at=9), 0, "who", ""
    )
    monkeypatch.setattr(desk, "_recall", _nothing)
    assert await desk._store(store) == (Stored(store, 3) if leaderless_s else NotStored(store))
    assert len(seen) == tries


async def _nothing() -> None:
    pass
