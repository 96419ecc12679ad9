"""A subscription for the deliveries of one pull or one consumer.

JetStream delivers a message under its own subject, so the connection's shared inbox could not
tell whose it is; only the subscription can.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from lender.link.hardened import HardenedClient

Handler = Callable[[Msg], None]
"""Called in the event loop; must neither block nor raise."""

# Pulls bound what comes; beyond this the client drops and logs.
_PENDING_MESSAGES_MAX = 65_536
_PENDING_BYTES_MAX = 256 * 1024 * 1024


class Deliveries:
    """Calls the handler for each message that comes to `subject`, until closed.

    Closing also takes the server's interest away: what a pull still has to give is given to
    somebody else.
    """

    def __init__(self, nc: HardenedClient, handler: Handler) -> None:
        self.subject = nc.new_inbox()
        self._nc = nc
        self._handler: Handler | None = handler
        self._subscription: Subscription | None = None
        self._closing: asyncio.Task[None] | None = None

    def hand_to(self, handler: Handler) -> None:
        """Call another handler from now on."""
        self._handler = handler

    async def open(self) -> None:
        """Subscribe, if that was not done; nats-py does it again by itself after a reconnect."""
        if self._subscription is not None:
            return
        self._subscription = await self._nc.subscribe(
            self.subject,
            cb=self._route,
            pending_msgs_limit=_PENDING_MESSAGES_MAX,
            pending_bytes_limit=_PENDING_BYTES_MAX,
        )
        self._nc.handle_at_once(self._subscription, self._handle)

    def close(self) -> None:
        """Stop at once; messages on their way are lost, to be delivered again by their queue."""
        self._handler = None
        if self._subscription is not None and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._unsubscribe())

    async def drain(self) -> None:
        """Stop, after handling everything that the server had sent before it knew."""
        subscription: Any = self._subscription  # nats-py leaves drain untyped
        if subscription is not None and self._closing is None:
            with contextlib.suppress(nats_errors.Error):
                await subscription.drain()

    async def _unsubscribe(self) -> None:
        if self._subscription is not None:
            with contextlib.suppress(nats_errors.Error):
                await self._subscription.unsubscribe()

    async def _route(self, msg: Msg) -> None:
        self._handle(msg)

    def _handle(self, msg: Msg) -> None:
        if self._handler is not None:
            self._handler(msg)
