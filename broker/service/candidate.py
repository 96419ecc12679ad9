"""Leads while the leadership key is ours, stands by otherwise."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from nats.aio.msg import Msg

from broker.core.leadership import (
    KeyRead,
    Lead,
    Leadership,
    LeadershipEffect,
    LeadershipEvent,
    ReadKey,
    ServiceEnded,
    StandBy,
    TimePassed,
    WriteKey,
)
from broker.service.committer import FencedError
from broker.service.leader_key import LeaderKey
from lender.link.connection import Connection
from lender.protocol import subjects

logger = logging.getLogger(__name__)

Serve = Callable[[asyncio.Event, Callable[[], bool]], Coroutine[Any, Any, None]]
"""Stands by until the event is set; then serves, while the function that it is given says so.

It ends when it is cancelled. Raises FencedError when another broker turns out to lead.
"""


class Candidate:
    """Serves whenever it leads."""

    def __init__(
        self,
        connection: Connection,
        me: str,
        replicas: int,
        serve: Serve,
        authorities: Callable[[], str] = lambda: "",
    ) -> None:
        """Stand by.

        Args:
            connection: to a server with JetStream.
            me: an id of this process that no other has.
            replicas: of the stream LEADER.
            serve: see there; called anew each time that this broker begins to stand by.
            authorities: returns who may vouch for the fleet's servers, for all to read (PEM).
        """
        self._connection = connection
        self._me = me
        self._serve = serve
        self._key = LeaderKey(connection, me, replicas, authorities)
        self._core = Leadership(me)
        self._leads = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._seen: str | None = None

    async def run(self) -> None:
        """Stand by and serve in turns, for ever.

        Raises:
            Exception: what `serve` raises, but for FencedError.
        """
        await self._connection.nc.subscribe(subjects.broker_ping(self._me), cb=_pong)
        try:
            await self._loop()
        finally:
            await self._end_service()
            if self.leads():
                await self._key.give_back(self._core.sequence)

    async def _loop(self) -> None:
        self._begin_service()
        effects = self._core.handle(time.monotonic(), TimePassed())
        while True:
            events = [event for effect in effects if (event := await self._carry_out(effect))]
            if not events:
                await self._wait()
                events = [self._service_ended() or TimePassed()]
            effects = [
                effect for event in events for effect in self._core.handle(time.monotonic(), event)
            ]

    async def _carry_out(self, effect: LeadershipEffect) -> LeadershipEvent | None:
        match effect:
            case ReadKey():
                found = await self._key.read()
                if isinstance(found, KeyRead):
                    self._tell(found)
                return found
            case WriteKey():
                return await self._key.write(effect.expected_sequence)
            case Lead():
                logger.info("leading")
                self._leads.set()
            case StandBy():
                logger.warning("another broker leads: standing by")
                await self._end_service()
                self._begin_service()
        return None

    def leads(self) -> bool:
        """Tell whether this broker may serve now."""
        return self._core.may_serve(time.monotonic())

    async def _wait(self) -> None:
        """Wait until the core wants the time, or the service ends."""
        within_s = max(0.0, self._core.next_deadline() - time.monotonic())
        if self._serving is None:
            await asyncio.sleep(within_s)
        else:
            await asyncio.wait((self._serving,), timeout=within_s)

    def _service_ended(self) -> ServiceEnded | None:
        if self._serving is None or not self._serving.done():
            return None
        serving, self._serving = self._serving, None
        try:
            serving.result()
        except FencedError as error:
            logger.warning("%s", error)
        except BaseExceptionGroup as group:
            if group.split(FencedError)[1] is not None:
                raise
            logger.warning("%s", FencedError())
        return ServiceEnded()

    def _begin_service(self) -> None:
        self._leads = asyncio.Event()
        self._serving = asyncio.create_task(self._serve(self._leads, self.leads))

    async def _end_service(self) -> None:
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.cancel()
            # Whatever else it fails with now, it is over.
            await asyncio.wait((serving,))

    def _tell(self, key: KeyRead) -> None:
        if not self._leads.is_set() and key.holder != self._seen:
            self._seen = key.holder
            logger.info("standing by: broker %s leads", key.holder)


async def _pong(msg: Msg) -> None:
    await msg.respond(b"")
