"""Durable publishing, many in flight: one inbox, no task and no timer per message."""

import asyncio
from collections.abc import Callable

from nats.aio.msg import Msg

from lender.link.api import answer, number
from lender.link.connection import NO_RESPONDERS, Connected, Connection, State, status
from lender.link.errors import LinkError, NoRespondersError, OutcomeUnknownError


class PublishUnknownError(OutcomeUnknownError):
    """The stream's acknowledgement never came: the message may be stored, or not.

    Where the stream refuses a second message on a subject, publishing again is safe.
    """


class Publisher:
    """Publishes to streams; each message's future becomes its sequence number in the stream.

    A future fails with PublishUnknownError (line broken, or no answer within `timeout_s`),
    JetStreamError (refused, not stored) or NoRespondersError (no stream takes the subject).

    Under `sync_interval: always` the server syncs each message by itself, a few thousand in a
    second: `in_flight_max` has to be worth less than `timeout_s`.
    """

    def __init__(
        self, connection: Connection, *, in_flight_max: int = 1024, timeout_s: float = 10.0
    ) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(in_flight_max)
        # In order of their deadlines, since the time allowed is the same for all.
        self._in_flight: dict[int, tuple[str, asyncio.Future[int], float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._unwatch: Callable[[], None] = connection.watch(self._on_state)

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> asyncio.Future[int]:
        """Send once fewer than `in_flight_max` wait for their acknowledgement.

        Raises:
            NotConnectedError, PayloadTooLargeError: not sent.
        """
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        token, reply = self._connection.inbox.add(self._on_answer)
        self._in_flight[token] = (subject, future, loop.time() + self._timeout_s)
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._on_timer)
        try:
            await self._connection.publish(subject, payload, headers, reply)
        except BaseException:
            self._take(token)
            raise
        return future

    def close(self) -> None:
        """Stop; what is still in flight fails as unknown."""
        self._unwatch()
        self._fail_all("the publisher was closed")

    def _take(self, token: int) -> tuple[str, asyncio.Future[int]] | None:
        entry = self._in_flight.pop(token, None)
        if entry is None:
            return None
        self._connection.inbox.drop(token)
        self._room.release()
        return entry[0], entry[1]

    def _on_answer(self, token: int, msg: Msg) -> None:
        entry = self._take(token)
        if entry is None:
            return
        subject, future = entry
        if future.done():
            return
        if status(msg) == NO_RESPONDERS:
            future.set_exception(NoRespondersError(subject))
            return
        try:
            future.set_result(number(answer(msg), "seq"))
        except LinkError as error:
            future.set_exception(error)

    def _on_timer(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        for token, (subject, _, deadline) in tuple(self._in_flight.items()):
            if deadline > now:
                self._timer = loop.call_at(deadline, self._on_timer)
                return
            self._fail(token, f"no acknowledgement on {subject} within {self._timeout_s} s")

    def _on_state(self, state: State) -> None:
        if not isinstance(state, Connected):
            self._fail_all("the line broke before the acknowledgement")

    def _fail_all(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for token in tuple(self._in_flight):
            self._fail(token, reason)

    def _fail(self, token: int, reason: str) -> None:
        entry = self._take(token)
        if entry is not None and not entry[1].done():
            entry[1].set_exception(PublishUnknownError(reason))
