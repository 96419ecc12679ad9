"""What lenderd says to the queues: an ack waits for other words, and not for long."""

from typing import Any

import pytest
from core_world import class_of, make_lease
from nats_server import until

from lender.core.effects import AckLease, PullWork
from lender.core.events import Event, LeaseDelivered, LeaseMalformed, PullEnded
from lender.daemon import work_queues
from lender.daemon.work_queues import WorkQueues
from lender.link.errors import NotConnectedError
from lender.protocol.codec import encode

WASM = class_of()


class Line:
    """In place of the connection: what was said, in order."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.up = True

    async def ack(self, number: int) -> None:
        if not self.up:
            raise NotConnectedError("no line")
        self.said.append(number)


class FakeDelivery:
    """One message of a queue."""

    num_delivered = 1

    def __init__(self, line: Line, number: int, payload: bytes, *, ends_pull: bool) -> None:
        self.payload, self.ends_pull = payload, ends_pull
        self._line, self._number = line, number

    async def ack(self) -> None:
        await self._line.ack(self._number)


class FakePuller:
    """In place of the puller of a class."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def pull(self, _batch: int, _expires_s: float) -> None:
        self._line.said.append("pull")

    async def close(self) -> None:
        """Nothing is under way."""


class Desk:
    """The queues of a lender, and what they told the core."""

    def __init__(self) -> None:
        self.line = Line()
        self.told: list[Event] = []
        self.queues = WorkQueues("L", self.told.append)
        self.queues._pullers[WASM] = FakePuller(self.line)  # type: ignore[assignment] # stands in
        self._number = 0

    def deliver(self, payload: bytes | None = None, *, ends_pull: bool = True) -> None:
        self._number += 1
        payload = encode(make_lease()) if payload is None else payload
        delivery: Any = FakeDelivery(self.line, self._number, payload, ends_pull=ends_pull)
        self.queues._on_delivery(WASM, delivery)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ack goes out by itself."""
    monkeypatch.setattr(work_queues, "ACK_LATE_S", 600.0)


async def test_an_ack_goes_out_by_itself_after_a_moment() -> None:
    desk = Desk()
    desk.deliver()
    desk.queues.perform(AckLease(1))
    assert desk.line.said == []
    await until(lambda: desk.line.said == [1])


@pytest.mark.usefixtures("late")
async def test_acks_go_ahead_of_the_next_pull_and_ahead_of_the_end() -> None:
    desk = Desk()
    for _ in range(3):
        desk.deliver()
    desk.queues.perform(AckLease(1))
    desk.queues.perform(AckLease(2))
    desk.queues.perform(PullWork(WASM, 1, 1.0))
    await until(lambda: desk.line.said == [1, 2, "pull"])
    desk.queues.perform(AckLease(3))
    await desk.queues.close()
    assert desk.line.said == [1, 2, "pull", 3]


@pytest.mark.usefixtures("late")
async def test_an_ack_without_a_line_keeps_no_pull_from_being_told_of() -> None:
    desk = Desk()
    desk.deliver()
    desk.line.up = False
    desk.queues.perform(AckLease(1))
    desk.queues.perform(PullWork(WASM, 1, 1.0))
    await until(lambda: desk.line.said == ["pull"])


async def test_what_ends_its_pull_says_so_be_it_a_lease_or_not() -> None:
    desk = Desk()
    desk.deliver(ends_pull=False)
    desk.deliver()
    desk.deliver(b"junk", ends_pull=False)
    desk.deliver(b"junk")
    delivered = [one.ends_pull for one in desk.told if isinstance(one, LeaseDelivered)]
    assert delivered == [False, True]
    assert [type(one) for one in desk.told[2:]] == [LeaseMalformed, LeaseMalformed, PullEnded]
    assert desk.told[-1] == PullEnded(WASM, refused=False)
