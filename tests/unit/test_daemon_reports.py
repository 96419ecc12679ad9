"""Reports reach the broker in order, once each, also after the daemon was killed."""

import asyncio
from pathlib import Path

from lender.daemon.reporter import BrokerSilentError, Reporter
from lender.daemon.spool import Spool, Spooled
from lender.protocol import codec
from lender.protocol.lease import Done, DoneReply

LEASE = "l" * 22
OTHER = "m" * 22
SUBMITTER = "UAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def report(lease: str, *, final: bool) -> Done:
    return Done(lease=lease, job="job-00001", submitter=SUBMITTER, final=final)


class Broker:
    """Answers after being silent `silences` times; `gate` holds every answer back."""

    def __init__(self, silences: int = 0) -> None:
        self.heard: list[Done] = []
        self.answered: list[tuple[str, int, str]] = []
        self.all_answered = asyncio.Event()
        self.expected = 0
        self._silences = silences

    async def ask(self, payload: bytes) -> DoneReply:
        await asyncio.sleep(0)
        if self._silences:
            self._silences -= 1
            raise BrokerSilentError("nobody listens")
        self.heard.append(codec.decode(Done, payload))
        return DoneReply(verdict="committed")

    def on_answer(self, lease: str, number: int, reply: DoneReply) -> None:
        self.answered.append((lease, number, reply.verdict))
        if len(self.answered) == self.expected:
            self.all_answered.set()

    async def wait(self, expected: int) -> None:
        self.expected = expected
        if len(self.answered) < expected:
            async with asyncio.timeout(10):
                await self.all_answered.wait()


async def test_a_final_report_never_overtakes_a_partial_one(tmp_path: Path) -> None:
    broker = Broker(silences=2)
    reporter = Reporter(Spool(tmp_path), broker.ask, broker.on_answer)
    reporter.send(LEASE, 1, report(LEASE, final=False))
    reporter.send(LEASE, 2, report(LEASE, final=True))
    await broker.wait(2)
    assert [one.final for one in broker.heard] == [False, True]
    assert broker.answered == [(LEASE, 1, "committed"), (LEASE, 2, "committed")]
    assert Spool(tmp_path).pending() == []


async def test_a_silent_broker_holds_up_no_other_lease(tmp_path: Path) -> None:
    broker = Broker()
    reporter = Reporter(Spool(tmp_path), broker.ask, broker.on_answer)
    for lease in (LEASE, OTHER):
        reporter.send(lease, 1, report(lease, final=True))
    await broker.wait(2)
    assert {one.lease for one in broker.heard} == {LEASE, OTHER}


async def test_what_a_killed_daemon_left_is_sent_by_the_next(tmp_path: Path) -> None:
    silent = Broker(silences=1_000_000)
    first = Reporter(Spool(tmp_path), silent.ask, silent.on_answer)
    first.send(LEASE, 1, report(LEASE, final=False))
    first.send(LEASE, 2, report(LEASE, final=True))
    await first.close()

    broker = Broker()
    second = Reporter(Spool(tmp_path), broker.ask, broker.on_answer)
    assert second.resume() == 2
    await broker.wait(2)
    assert [one.final for one in broker.heard] == [False, True]
    assert Spool(tmp_path).pending() == []


def test_the_spool_keeps_the_order_of_numbers(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in (10, 2, 1):
        spool.put(Spooled(LEASE, number, str(number).encode()))
    (tmp_path / "strange.report").write_bytes(b"")
    assert [one.number for one in spool.pending()] == [1, 2, 10]
