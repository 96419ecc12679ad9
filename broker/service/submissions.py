"""Reads what submitters ask of the ledger, so that nobody waits behind another's flood."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from broker.core.events import CancelRequested, JobSubmitted
from broker.core.intake.arrivals import Arrivals
from broker.service.intake import Intake
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.link.errors import LinkError
from lender.link.message import StoredMessage
from lender.link.reader import StreamReader
from lender.protocol import streams, subjects

logger = logging.getLogger(__name__)

CANCEL = "cancel."
"""Begins the subjects of cancellations, and of nothing else in JOBS."""

LAG_MAX = 2_000
"""So many messages may lie before the reader of all until submitters are read by themselves."""

_PAGE = 500
"""What is low has room for as many. The server counts all that a submitter has for each page."""

_PAGE_BYTES = 1024 * 1024
_AT_ONCE = 8
_PAUSE_S = 0.05


class Submissions:
    """One reader reads all of JOBS in order, and passes by what finds no room in the intake.

    That is read again, by submitter, once there is room. Where the reader can't keep up, every
    submitter is read by itself ahead of it.
    """

    def __init__(self, connection: Connection, intake: Intake) -> None:
        self._jetstream = JetStream(connection)
        self._intake = intake
        self._arrivals = Arrivals()
        self._lags = False
        self._needed = asyncio.Event()

    def replayed(self, message: StoredMessage, *, put_off: bool) -> None:
        """Note a message that the core has had in its replay, or wants to have later."""
        arrivals, who = self._arrivals, _submitter(message)
        arrivals.position = message.sequence
        cancels = message.subject.startswith(CANCEL)
        if put_off or (cancels and who in arrivals.behind):
            arrivals.put_off(who, message.sequence)
        else:
            arrivals.took_one(who)

    def put_off(self, message: StoredMessage) -> None:
        """Note a message that the core has not taken, though it has had later ones."""
        arrivals, who = self._arrivals, _submitter(message)
        arrivals.took_one(who)
        arrivals.put_off(who, message.sequence)
        arrivals.took_one(who)

    async def read(self, jobs: StreamReader, before: Callable[[], None]) -> None:
        """Read all for ever; `before` is called before each batch is looked at."""
        async for batch in jobs:
            before()
            for message in batch.messages:
                self._came(message)
            self._lags = jobs.num_pending > LAG_MAX
            if self._lags or self._arrivals.behind:
                self._needed.set()

    async def catch_up(self, known: Callable[[], Iterable[str]]) -> None:
        """Read for ever what was passed by; in a lag, whatever those that are `known` ask."""
        while True:
            wanted = dict.fromkeys(self._arrivals.behind)
            if self._lags:
                wanted |= dict.fromkeys(known())
            if not wanted:
                self._needed.clear()
                await self._needed.wait()
                continue
            with_room = [who for who in wanted if self._intake.is_low(who)]
            brought = 0
            for at in range(0, len(with_room), _AT_ONCE):
                reads = map(self._read_one, with_room[at : at + _AT_ONCE])
                brought += sum(await asyncio.gather(*reads))
            if not brought:
                await self._intake.wait_for_room(_PAUSE_S)

    def _came(self, message: StoredMessage) -> None:
        who, sequence = _submitter(message), message.sequence
        if self._arrivals.came(who, sequence):
            if self._intake.has_room(who):
                self._intake.take_in(who, _live(message))
                return
            self._arrivals.put_off(who, sequence)
        if message.subject.startswith(CANCEL):
            # What runs is to end now; in its place among the others it comes again, and is as good.
            self._intake.hurry(who, _live(message))

    async def _read_one(self, who: str) -> int:
        """Take a page of a submitter's messages; returns how many were new."""
        arrivals, first = self._arrivals, self._arrivals.wanted_from(who)
        subject = subjects.of_submitter(who)
        try:
            page = await self._jetstream.get_page(
                streams.JOBS, first, _PAGE, subject=subject, max_bytes=_PAGE_BYTES
            )
            if not page.messages and who in arrivals.behind:
                # A replica may be behind; the stream's leader knows whether there is nothing left.
                found = await self._jetstream.next_sequence(streams.JOBS, first, subject)
                if found is None:
                    arrivals.took(who, arrivals.position)
        except LinkError as error:
            logger.info("JOBS can't be read yet: %s", error)
            return 0
        taken = 0
        for message in page.messages:
            if arrivals.wants(who, message.sequence):
                if not self._intake.has_room(who):
                    break
                self._intake.take_in(who, _live(message))
                taken += 1
            arrivals.took(who, message.sequence)
        return taken


def _submitter(message: StoredMessage) -> str:
    return message.subject.split(".", 2)[1]


def _live(message: StoredMessage) -> JobSubmitted | CancelRequested:
    """Return what a message says when it has just come."""
    if message.subject.startswith(CANCEL):
        return CancelRequested(message.subject)
    return JobSubmitted(message.subject, message.headers, message.payload)
