"""A broker in the wrong hands: it has the server, and every specification that was ever signed.

It has no key of a submitter's or a lender's. What it says to a real lenderd follows the protocol.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Self

from nats.aio.msg import Msg

from lender.link.api import JetStream, answer
from lender.link.connection import Connection, connect
from lender.protocol import codec, streams, subjects
from lender.protocol.classes import WorkClass
from lender.protocol.job import JobSpec
from lender.protocol.lease import Control, Done, DoneReply, Lease
from lender.protocol.signature import SIGNATURE_HEADER

REPORT_S = 60.0


class RogueBroker:
    """Leases what it likes, and answers each report with `verdict`.

    Attributes:
        verdict: committed, or stale.
        reports: all that lenders said.
    """

    def __init__(self, connection: Connection) -> None:
        self.verdict = "committed"
        self.reports: list[Done] = []
        self._connection = connection
        self._work_class = ""
        self._js = JetStream(connection)
        self._heard = asyncio.Event()

    async def start(self) -> Self:
        await self._connection.nc.subscribe(subjects.DONE_FILTER, cb=self._on_done)
        return self

    async def signed(self, submitter: str, job: str) -> Lease:
        """A lease of a job's first task, made from what the submitter has signed."""
        stored = await self._js.get_last(streams.JOBS, subjects.submit(submitter, job))
        assert stored is not None
        self._work_class = WorkClass.of(codec.decode(JobSpec, stored.payload)).token
        return Lease(
            lease=_new_id(),
            job=job,
            submitter=submitter,
            attempt=1,
            ranges=((0, 1),),
            spec=stored.payload,
            content_type=codec.MSGPACK,
            signature=stored.headers[SIGNATURE_HEADER],
        )

    async def give(self, lease: Lease, **changes: object) -> Done:
        """Have a lender take a lease under an id of its own; returns its last word on it.

        It comes by the queue that its owner's grant has it pull from.
        """
        given = lease.model_copy(update={"lease": _new_id(), **changes})
        work_class = self._work_class
        await self._js.ensure_consumer(streams.WORK, streams.consumer_config(work_class))
        answer(await self._connection.request(subjects.work(work_class), codec.encode(given)))
        opened = codec.encode(Control(kind="open", classes=(work_class,)))
        async with asyncio.timeout(REPORT_S):
            while not (said := self._last_words(given.lease)):
                await self._connection.publish(subjects.control(subjects.ALL_LENDERS), opened)
                self._heard.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._heard.wait(), 0.2)
        return said[0]

    def _last_words(self, lease: str) -> list[Done]:
        return [one for one in self.reports if one.lease == lease and one.final]

    async def _on_done(self, msg: Msg) -> None:
        self.reports.append(codec.decode(Done, msg.data))
        await msg.respond(codec.encode(DoneReply.model_validate({"verdict": self.verdict})))
        self._heard.set()


@contextlib.asynccontextmanager
async def rogue_broker(url: str) -> AsyncIterator[RogueBroker]:
    """One that has taken the broker's place."""
    async with await connect(url, name="rogue", timeout_s=10) as connection:
        yield await RogueBroker(connection).start()


def _new_id() -> str:
    return secrets.token_urlsafe(16)
