"""Puts leases into the work queues, and takes messages out that have lost their sense."""

import asyncio
import logging
from collections.abc import Callable

from broker.core.effects import DeleteWork, FeedWork
from broker.core.events import FeedFailed, LeaseFed
from lender.link.api import JetStream
from lender.link.connection import Connected, Connection, State
from lender.link.errors import LinkError, NoRespondersError, NotConnectedError, OutcomeUnknownError
from lender.link.publisher import Publisher
from lender.protocol import subjects
from lender.protocol.classes import is_own_queue
from lender.protocol.streams import WORK, consumer_config

logger = logging.getLogger(__name__)

_PAUSE_FIRST_S = 0.05
_PAUSE_MAX_S = 2.0


class Feeder:
    """Carries out FeedWork and DeleteWork, each in order; a broken line only delays it."""

    def __init__(
        self, connection: Connection, report: Callable[[LeaseFed | FeedFailed], None]
    ) -> None:
        self._connection = connection
        self._js = JetStream(connection)
        self._publisher = Publisher(connection)
        self._report = report
        self._feeds: asyncio.Queue[FeedWork] = asyncio.Queue()
        self._deletions: asyncio.Queue[DeleteWork] = asyncio.Queue()
        self._queues: set[str] = set()
        """Classes whose consumer is known to be there."""
        self._line_up = asyncio.Event()
        if connection.connected:
            self._line_up.set()
        self._unwatch = connection.watch(self._on_state)

    def feed(self, effect: FeedWork) -> None:
        """Queue a lease."""
        self._feeds.put_nowait(effect)

    def delete(self, effect: DeleteWork) -> None:
        """Queue a deletion."""
        self._deletions.put_nowait(effect)

    async def run_feeds(self) -> None:
        """Publish leases for ever."""
        while True:
            effect = await self._feeds.get()
            try:
                await self._feed(effect)
            except LinkError as error:
                self._report(FeedFailed(effect.lease_id, str(error)))

    async def run_deletions(self) -> None:
        """Delete messages for ever; each until the server has answered."""
        while True:
            effect = await self._deletions.get()
            pause_s = _PAUSE_FIRST_S
            while True:
                await self._line_up.wait()
                try:
                    await self._js.delete_message(WORK, effect.sequence)
                except (NotConnectedError, NoRespondersError, OutcomeUnknownError):
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _PAUSE_MAX_S)
                    continue
                except LinkError as error:
                    # A lender that takes it is told to stop: a waste, not a fault.
                    logger.warning("WORK %d stays: %s", effect.sequence, error)
                break

    def close(self) -> None:
        """Stop; what is in flight stays as it is."""
        self._unwatch()
        self._publisher.close()

    async def _feed(self, effect: FeedWork) -> None:
        await self._line_up.wait()
        if effect.class_token not in self._queues:
            await self._js.ensure_consumer(WORK, consumer_config(effect.class_token))
            if not is_own_queue(effect.class_token):  # the server gives up those by itself
                self._queues.add(effect.class_token)
        lease_id = effect.lease_id

        def settle(stored: asyncio.Future[int]) -> None:
            error = stored.exception()
            if error is None:
                self._report(LeaseFed(lease_id, stored.result()))
            else:
                self._report(FeedFailed(lease_id, str(error)))

        stored = await self._publisher.publish(
            subjects.work(effect.class_token), effect.payload, dict(effect.headers)
        )
        stored.add_done_callback(settle)

    def _on_state(self, state: State) -> None:
        if isinstance(state, Connected):
            self._line_up.set()
        else:
            self._line_up.clear()
            self._queues.clear()  # the server may come back on another store
