"""The lender's side of a work queue: pull when told to, and say how each pull ended."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from nats.aio.msg import Msg

from lender.link.connection import Connected, Connection, State
from lender.link.deliveries import Deliveries
from lender.link.errors import NotConnectedError
from lender.link.message import delivery_info

_GRACE_S = 2.0
_HEARTBEAT = "100"
_NS = 1_000_000_000


class PullEnd(Enum):
    """Why a pull ended."""

    COMPLETE = "complete"  # as many messages as asked for
    EXPIRED = "expired"  # its time went by (408)
    EMPTY = "empty"  # nothing there, and it was not to wait (404)
    REFUSED = "refused"  # the consumer is gone or can't give (409 and others)
    NO_CONSUMER = "no consumer"  # nobody listens: no such consumer (503)
    DISCONNECTED = "disconnected"
    SILENT = "silent"  # neither messages nor an end; given up after its time


_CLEAN = (PullEnd.COMPLETE, PullEnd.EXPIRED, PullEnd.EMPTY)
"""Ends behind which the server has nothing more to send."""

_ENDS = {"404": PullEnd.EMPTY, "408": PullEnd.EXPIRED, "503": PullEnd.NO_CONSUMER}


@dataclass(frozen=True, slots=True)
class PullEnded:
    """The end of one pull; `detail` holds the server's words, if any."""

    reason: PullEnd
    delivered: int
    detail: str = ""


class Delivery:
    """A message of a work queue, to be acknowledged by whoever has done the work.

    A server that was killed may have forgotten that it delivered: then it delivers again, to
    anybody, with `num_delivered` 1, and ignores (never answers) what is said about the earlier
    delivery. What was acknowledged with `ack_sync` stays gone.

    Attributes:
        ends_pull: the last that its pull has asked for.
    """

    __slots__ = ("_ack_subject", "_connection", "ends_pull", "headers", "num_delivered", "payload",
                 "sequence", "subject")  # fmt: skip

    def __init__(self, connection: Connection, msg: Msg, *, ends_pull: bool = False) -> None:
        info = delivery_info(msg.reply)
        self.subject = msg.subject
        self.payload = msg.data
        self.headers: dict[str, str] = msg.headers or {}
        self.num_delivered = info.num_delivered
        self.sequence = info.stream_sequence
        self.ends_pull = ends_pull
        self._ack_subject = msg.reply
        self._connection = connection

    async def ack(self) -> None:
        """Remove it from the queue.

        Raises:
            NotConnectedError: not sent; after the ack wait it is delivered again, to anybody.
        """
        await self._connection.publish(self._ack_subject, b"+ACK")

    async def ack_sync(self, timeout_s: float = 5.0) -> None:
        """Remove it from the queue, and wait until that is stored.

        Raises:
            NotConnectedError, NoRespondersError, DisconnectedError, RequestTimeoutError.
        """
        await self._connection.request(self._ack_subject, b"+ACK", timeout_s=timeout_s)

    async def nak(self, delay_s: float = 0.0) -> None:
        """Hand it back: delivered again, to anybody, after `delay_s`.

        Raises:
            NotConnectedError: not sent; it is delivered again after the ack wait.
        """
        options = f' {{"delay":{int(delay_s * _NS)}}}' if delay_s > 0 else ""
        await self._connection.publish(self._ack_subject, f"-NAK{options}".encode())

    async def in_progress(self) -> None:
        """Start the ack wait anew: the work goes on.

        Raises:
            NotConnectedError: not sent.
        """
        await self._connection.publish(self._ack_subject, b"+WPI")


class _Pull:
    """One pull under way, with a subscription for itself: what comes there is its doing."""

    def __init__(self, puller: "Puller", wanted: int) -> None:
        self._puller = puller
        self._wanted = wanted
        self._delivered = 0
        self._handing_back: list[asyncio.Task[None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deliveries = puller.take_subscription()
        self._deliveries.hand_to(self._receive)

    async def start(self, subject: str, request: bytes, timeout_s: float) -> None:
        await self._deliveries.open()
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self.end, PullEnd.SILENT)
        try:
            await self._puller.connection.publish(subject, request, reply=self._deliveries.subject)
        except BaseException:
            self._stop()
            self._deliveries.close()
            raise

    def end(self, reason: PullEnd, detail: str = "") -> None:
        if self._stop():
            if reason is PullEnd.SILENT:
                # On a slow line the server may have sent what nobody waits for any more.
                self._puller.hand_back(self)
            elif reason in _CLEAN:
                self._puller.keep_subscription(self._deliveries)
            else:
                self._deliveries.close()
            self._puller.on_end(PullEnded(reason, self._delivered, detail))

    async def hand_back(self) -> None:
        """End without a word; what the server has sent already goes back into the queue."""
        self._stop()
        self._handing_back = []
        await self._deliveries.drain()
        await asyncio.gather(*self._handing_back)

    def _stop(self) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        under_way = self in self._puller.pulls
        self._puller.pulls.discard(self)
        return under_way

    def _receive(self, msg: Msg) -> None:
        if not msg.reply:
            self._on_status(msg.headers or {})
        elif self._handing_back is not None:
            nak = _hand_back(Delivery(self._puller.connection, msg))
            self._handing_back.append(asyncio.get_running_loop().create_task(nak))
        else:
            self._delivered += 1
            last = self._delivered == self._wanted
            self._puller.on_delivery(Delivery(self._puller.connection, msg, ends_pull=last))
            if last:
                self.end(PullEnd.COMPLETE)

    def _on_status(self, headers: dict[str, str]) -> None:
        code, description = headers.get("Status", ""), headers.get("Description", "").strip()
        if code != _HEARTBEAT:
            self.end(_ENDS.get(code, PullEnd.REFUSED), description)


class Puller:
    """Pulls from one durable consumer; several pulls may be under way.

    Each message goes to `on_delivery`, each pull's end, exactly once and after its messages, to
    `on_end`; both are called in the event loop and must neither block nor raise.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        on_delivery: Callable[[Delivery], None],
        on_end: Callable[[PullEnded], None],
    ) -> None:
        self.connection = connection
        self.on_delivery = on_delivery
        self.on_end = on_end
        self.pulls: set[_Pull] = set()
        self._handing_back: set[asyncio.Task[None]] = set()
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._kept: Deliveries | None = None
        self._unwatch = connection.watch(self._on_state)

    def take_subscription(self) -> Deliveries:
        """Return one that nothing comes to any more, or has not come to yet."""
        kept, self._kept = self._kept, None
        return kept or Deliveries(self.connection.nc, lambda _: None)

    def keep_subscription(self, deliveries: Deliveries) -> None:
        """Take back the one of a pull that has ended cleanly: the next may have it."""
        deliveries.hand_to(lambda _: None)
        if self._kept is not None:
            self._kept.close()
        self._kept = deliveries

    async def pull(self, batch: int, expires_s: float) -> None:
        """Ask for up to `batch` messages within `expires_s`; 0 takes only what is there.

        Raises:
            NotConnectedError: no pull has begun, and `on_end` won't be called for it.
        """
        if not self.connection.connected:
            raise NotConnectedError("no NATS server on the line")
        request = {"batch": batch, "expires": int(expires_s * _NS)}
        if expires_s == 0:
            request = {"batch": batch, "no_wait": True}
        pull = _Pull(self, batch)
        self.pulls.add(pull)
        await pull.start(self._subject, json.dumps(request).encode(), expires_s + _GRACE_S)

    def hand_back(self, pull: _Pull) -> None:
        """Give back what may come yet of a pull that is over."""
        task = asyncio.get_running_loop().create_task(pull.hand_back())
        self._handing_back.add(task)
        task.add_done_callback(self._handing_back.discard)

    async def close(self) -> None:
        """End every pull without calling `on_end`; what was sent already is handed back."""
        self._unwatch()
        if self._kept is not None:
            self._kept.close()
        for pull in tuple(self.pulls):
            self.hand_back(pull)
        await asyncio.gather(*self._handing_back)

    def _on_state(self, state: State) -> None:
        if not isinstance(state, Connected):
            for pull in tuple(self.pulls):
                pull.end(PullEnd.DISCONNECTED)


async def _hand_back(delivery: Delivery) -> None:
    # Without a line it is delivered again after the ack wait.
    with contextlib.suppress(NotConnectedError):
        await delivery.nak()
