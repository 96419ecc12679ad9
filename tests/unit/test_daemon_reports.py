"""Reports reach the broker in order, once each, also after the daemon was killed or a purge."""

import asyncio
from pathlib import Path

import pytest

from lender.daemon.reporter import BrokerSilentError, Reporter
from lender.daemon.spool import Spool, Spooled
from lender.protocol import codec
from lender.protocol.lease import Done, DoneReply
from lender.protocol.result import TaskResult
from lender.state.folder import StateFolder

LEASE = "l" * 22
OTHER = "m" * 22
SUBMITTER = "U" + "A" * 55
STRANGER = "U" + "B" * 55


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    state = StateFolder(tmp_path)
    state.create()
    return Spool(state)


def report(lease: str, *, final: bool, submitter: str = SUBMITTER) -> Done:
    result = TaskResult(task=0, state="succeeded", value=b"secret", cpu_s=1.0, duration_s=1.0)
    return Done(
        lease=lease,
        job="job-00001",
        submitter=submitter,
        results=(result,),
        signature="s",
        final=final,
    )


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


async def test_a_final_report_never_overtakes_a_partial_one(spool: Spool) -> None:
    broker = Broker(silences=2)
    reporter = Reporter(spool, broker.ask, broker.on_answer)
    reporter.send(LEASE, 1, report(LEASE, final=False))
    reporter.send(LEASE, 2, report(LEASE, final=True))
    await broker.wait(2)
    assert [one.final for one in broker.heard] == [False, True]
    assert broker.answered == [(LEASE, 1, "committed"), (LEASE, 2, "committed")]
    assert spool.pending() == []


async def test_a_silent_broker_holds_up_no_other_lease(spool: Spool) -> None:
    broker = Broker()
    reporter = Reporter(spool, broker.ask, broker.on_answer)
    for lease in (LEASE, OTHER):
        reporter.send(lease, 1, report(lease, final=True))
    await broker.wait(2)
    assert {one.lease for one in broker.heard} == {LEASE, OTHER}


async def test_what_a_killed_daemon_left_is_sent_by_the_next(spool: Spool) -> None:
    silent = Broker(silences=1_000_000)
    first = Reporter(spool, silent.ask, silent.on_answer)
    first.send(LEASE, 1, report(LEASE, final=False))
    first.send(LEASE, 2, report(LEASE, final=True))
    await first.close()

    broker = Broker()
    second = Reporter(spool, broker.ask, broker.on_answer)
    assert second.resume() == 2
    await broker.wait(2)
    assert [one.final for one in broker.heard] == [False, True]
    assert spool.pending() == []


def test_the_spool_keeps_the_order_of_numbers(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.create()
    spool = Spool(state)
    for number in (10, 2, 1):
        spool.put(Spooled(SUBMITTER, LEASE, number, str(number).encode()))
    (state.reports(SUBMITTER) / "strange.report").write_bytes(b"")
    (state.spool / "strange").mkdir()
    (state.spool / "strange" / "lease-1.report").write_bytes(b"")
    assert [one.number for one in spool.pending()] == [1, 2, 10]


async def test_a_purge_leaves_no_result_and_the_broker_hears_the_last_word(spool: Spool) -> None:
    silent = Broker(silences=1_000_000)
    reporter = Reporter(spool, silent.ask, silent.on_answer)
    reporter.send(LEASE, 1, report(LEASE, final=False))
    reporter.send(LEASE, 2, report(LEASE, final=True))
    reporter.send("n" * 22, 1, report("n" * 22, final=False))
    reporter.send(OTHER, 1, report(OTHER, final=True, submitter=STRANGER))
    await asyncio.sleep(0)
    reporter.purge(SUBMITTER)
    assert {one.submitter for one in spool.pending()} == {STRANGER}
    silent._silences = 0
    await silent.wait(2)
    heard = {one.lease: one for one in silent.heard}
    assert heard.keys() == {LEASE, OTHER}
    assert (heard[LEASE].results, heard[LEASE].outcome) == ((), "revoked")
    assert heard[LEASE].signature is None, "it would be over what is gone"
    assert (len(heard[OTHER].results), heard[OTHER].outcome) == (1, "finished")
    assert sorted(silent.answered) == [(LEASE, 2, "committed"), (OTHER, 1, "committed")]
    await reporter.close()


async def test_what_is_said_after_a_purge_is_said(spool: Spool) -> None:
    silent = Broker(silences=1_000_000)
    reporter = Reporter(spool, silent.ask, silent.on_answer)
    reporter.send(LEASE, 1, report(LEASE, final=False))
    reporter.purge(SUBMITTER)
    silent._silences = 0
    reporter.send(LEASE, 2, Done(
        lease=LEASE, job="job-00001", submitter=SUBMITTER, final=True, outcome="revoked"
    ))  # fmt: skip
    await silent.wait(1)
    assert [(one.outcome, one.results) for one in silent.heard] == [("revoked", ())]


async def test_a_report_that_the_disk_has_spoiled_keeps_no_other_from_being_purged(
    spool: Spool,
) -> None:
    spool.put(Spooled(SUBMITTER, LEASE, 1, b"\xc1"))
    silent = Broker(silences=1_000_000)
    reporter = Reporter(spool, silent.ask, silent.on_answer)
    reporter.resume()
    reporter.send(OTHER, 1, report(OTHER, final=True))
    reporter.purge(SUBMITTER)
    assert spool.pending() == []
    silent._silences = 0
    await silent.wait(1)
    assert [(one.lease, one.outcome) for one in silent.heard] == [(OTHER, "revoked")]
