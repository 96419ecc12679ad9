"""Asks the broker to commit reports, each lease's in order, until it answers."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from lender.daemon.spool import Spool, Spooled
from lender.protocol.codec import decode, encode
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import Done, DoneReply
from lender.protocol.result_run import encode_results

log = logging.getLogger(__name__)

RETRY_S_MIN = 0.1
RETRY_S_MAX = 2.0


class BrokerSilentError(Exception):
    """No broker answered; the report is asked again."""


Ask = Callable[[bytes], Awaitable[DoneReply]]
"""May put the question on its way before it returns."""
Answered = Callable[[str, int, DoneReply], None]


class Reporter:
    """One sending task per lease with unanswered reports.

    A final report must not overtake a partial one: the broker would lease the partial one's
    tasks again.
    """

    def __init__(self, spool: Spool, ask: Ask, answered: Answered) -> None:
        self._spool = spool
        self._ask = ask
        self._answered = answered
        self._waiting: dict[str, deque[Spooled]] = {}
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[str, asyncio.Future[DoneReply]] = {}
        """What each of them waits for first."""

    def resume(self) -> int:
        """Send what an earlier process left behind; returns how many reports that is."""
        left = self._spool.pending()
        for report in left:
            self._queue(report)
        return len(left)

    def send(self, lease: str, number: int, report: Done) -> None:
        """Spool `report` and see it answered; what can't be spooled is lost with this process."""
        spooled = Spooled(report.submitter, lease, number, encode_results(report))
        try:
            self._spool.put(spooled)
        except OSError as error:
            about = {"job": report.job, "lease": lease}
            log.error(  # noqa: TRY400 - told whole
                "report %d of lease %s is not on the disk: %s", number, lease, error, extra=about
            )
        self._queue(spooled)

    def purge(self, submitter: str) -> None:
        """Delete the results of a submitter that were not answered, here and in the spool.

        The broker still hears the last word on each lease, so that it can give the tasks to
        others: without results, and where those were all of it, as revoked.
        """
        self._spool.purge(submitter)
        for lease, waiting in list(self._waiting.items()):
            # None is left of one whose last answer is what ends in this call.
            if not waiting or waiting[0].submitter != submitter:
                continue
            self._senders.pop(lease).cancel()
            self._asked.pop(lease).cancel()
            last = self._waiting.pop(lease)[-1]
            report = _readable(last.payload)
            if report is not None and report.final:
                outcome = "revoked" if report.outcome == "finished" else report.outcome
                nothing = {"results": (), "signature": None, "outcome": outcome}
                emptied = report.model_copy(update=nothing)
                self._queue(replace(last, payload=encode(emptied)))

    async def close(self) -> None:
        """Stop sending; what is unanswered stays in the spool."""
        senders = list(self._senders.values())
        under_way: list[asyncio.Future[Any]] = [*senders, *self._asked.values()]
        for one in under_way:
            one.cancel()
        await asyncio.gather(*senders, return_exceptions=True)

    def _queue(self, report: Spooled) -> None:
        self._waiting.setdefault(report.lease, deque()).append(report)
        if report.lease not in self._senders:
            # Not by the task: a submitter waits, and what is done here next may take a while.
            asked = asyncio.ensure_future(self._ask(report.payload))
            self._asked[report.lease] = asked
            sender = asyncio.create_task(self._drain(report.lease, asked))
            self._senders[report.lease] = sender

    async def _drain(self, lease: str, asked: Awaitable[DoneReply]) -> None:
        waiting = self._waiting[lease]
        while waiting:
            report = waiting[0]
            reply = await self._until_answered(report, asked)
            waiting.popleft()
            self._spool.remove(report)
            self._answered(lease, report.number, reply)
            if waiting:
                asked = self._ask(waiting[0].payload)
        del self._waiting[lease], self._senders[lease], self._asked[lease]

    async def _until_answered(self, report: Spooled, asked: Awaitable[DoneReply]) -> DoneReply:
        delay_s = RETRY_S_MIN
        while True:
            try:
                return await asked
            except BrokerSilentError as error:
                about = {"lease": report.lease}
                told = (report.number, report.lease, error)
                log.info("report %d of lease %s: %s", *told, extra=about)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_S_MAX)
            asked = self._ask(report.payload)


def _readable(payload: bytes) -> Done | None:
    """A report from the spool; None for one that the disk has spoiled."""
    try:
        return decode(Done, payload)
    except ProtocolError as error:
        log.error("a report in the spool can't be read: %s", error)  # noqa: TRY400 - told whole
        return None
