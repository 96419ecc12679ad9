"""A subscription on which the server itself passes on no more than so much in a time.

Whatever a client reads costs it tens of microseconds, however soon it is thrown away: a flood would
take the whole process. Here the server is told how many messages to pass on (`UNSUB sid n` of the
NATS protocol) and asked anew; meanwhile it tells who sends more that nobody listens.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError


class Trickle:
    """One such subscription; `run` it."""

    def __init__(
        self,
        nc: Client,
        subject: str,
        hear: Callable[[Msg], Awaitable[None]],
        *,
        count_max: int,
        within_s: float,
    ) -> None:
        """Prepare to hear `count_max` messages each `within_s`; `hear` is called with each."""
        self._nc = nc
        self._subject = subject
        self._hear = hear
        self._count_max = count_max
        self._within_s = within_s
        self._heard = 0
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        """Hear until cancelled."""
        while True:
            # While little comes it is left as it is.
            if self._subscription is None or self._heard >= self._count_max // 2:
                await self._renew()
            await asyncio.sleep(self._within_s)

    async def _renew(self) -> None:
        earlier, self._subscription = self._subscription, None
        with contextlib.suppress(NatsError):  # it has ended by itself, or the line is down
            if earlier is not None:
                await earlier.unsubscribe()
        self._heard = 0
        with contextlib.suppress(NatsError):
            made = await self._nc.subscribe(
                self._subject, cb=self._note, pending_msgs_limit=2 * self._count_max
            )
            await made.unsubscribe(self._count_max)
            self._subscription = made

    async def _note(self, msg: Msg) -> None:
        self._heard += 1
        await self._hear(msg)
