"""The daemon's side of NATS: offers out, control words in, leases pulled and answered for."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any

from nats.aio.msg import Msg

from lender.core import effects
from lender.core.effects import Effect
from lender.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    BrokerGreeted,
    ClassesOpened,
    Event,
    GangGathered,
    LeaseDelivered,
    LeaseMalformed,
    LeasesCancelled,
    PullEnded,
)
from lender.daemon.reporter import BrokerSilentError
from lender.link import puller
from lender.link.connection import Connected, Connection, State
from lender.link.errors import LinkError, NotConnectedError
from lender.link.puller import Delivery, PullEnd, Puller
from lender.protocol import codec, subjects
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import Control, DoneReply, Lease
from lender.protocol.streams import WORK

log = logging.getLogger(__name__)

DONE_TIMEOUT_S = 5.0
PULL_AGAIN_S = 0.2

ACK_LATE_S = 0.01
"""An ack waits so long for what else is to be said: each write to the server costs as much as what
it says. Nobody waits for it: the broker has committed, and the lease is over."""


class WorkQueues:
    """Speaks NATS for one lender; `post` takes what it hears as events."""

    def __init__(self, lender: str, post: Callable[[Event], None]) -> None:
        self._lender = lender
        self._post = post
        self._connection: Connection | None = None
        self._pullers: dict[str, Puller] = {}
        self._deliveries: dict[int, Delivery] = {}
        self._numbers = count(1)
        self._sending: set[asyncio.Task[None]] = set()
        self._acks: list[Delivery] = []
        self._ack_timer: asyncio.TimerHandle | None = None

    async def start(self, connection: Connection) -> None:
        """Listen to the broker on an open connection."""
        self._connection = connection
        connection.watch(self._on_state)
        for name in (self._lender, subjects.ALL_LENDERS):
            await connection.nc.subscribe(subjects.control(name), cb=self._on_control)
        self._post(BrokerConnected())

    @property
    def connected(self) -> bool:
        """Whether a server is on the line."""
        return self._connection is not None and self._connection.connected

    @property
    def _line(self) -> Connection:
        if self._connection is None:
            raise NotConnectedError("not connected yet")
        return self._connection

    def ask_commit(self, payload: bytes) -> asyncio.Future[DoneReply]:
        """Ask the broker to commit a report; the question is on its way when this returns.

        The future fails with BrokerSilentError: nobody answered, or not in our words.
        """
        replied: asyncio.Future[DoneReply] = asyncio.get_running_loop().create_future()

        def hear(answer: asyncio.Future[Msg]) -> None:
            if replied.done() or answer.cancelled():
                return
            try:
                replied.set_result(codec.decode(DoneReply, answer.result().data))
            except (LinkError, ProtocolError) as error:
                replied.set_exception(BrokerSilentError(str(error)))

        try:
            answer = self._line.ask(subjects.done(self._lender), payload, DONE_TIMEOUT_S)
        except LinkError as error:
            replied.set_exception(BrokerSilentError(str(error)))
        else:
            answer.add_done_callback(hear)
            replied.add_done_callback(lambda _: answer.cancel())
        return replied

    async def close(self) -> None:
        """End the pulls, and wait for what is being sent."""
        await self._ack()
        await asyncio.gather(*(one.close() for one in self._pullers.values()))
        await asyncio.gather(*self._sending, return_exceptions=True)

    def perform(self, effect: Effect) -> None:
        """Carry out an effect that concerns the queues."""
        match effect:
            case effects.SendOffer():
                subject = subjects.offer(self._lender)
                self._spawn(self._line.publish(subject, codec.encode(effect.offer)))
            case effects.PullWork():
                self._spawn(self._pull(effect))
            case effects.AckLease():
                self._acks.append(self._deliveries.pop(effect.delivery))
                if self._ack_timer is None:
                    loop = asyncio.get_running_loop()
                    self._ack_timer = loop.call_later(ACK_LATE_S, self._on_ack_timer)
            case effects.ReturnLease():
                self._spawn(self._deliveries.pop(effect.delivery).nak(effect.delay_s))
            case effects.ForgetDelivery():
                del self._deliveries[effect.delivery]
            case effects.ExtendLease():
                self._spawn(self._deliveries[effect.delivery].in_progress())
            case _:
                raise AssertionError(f"no effect of the queues: {effect}")

    async def _ack(self) -> None:
        """Say what was held back."""
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        held, self._acks = self._acks, []
        try:
            for delivery in held:
                await delivery.ack()
        except LinkError as error:
            log.info("not acked: %s", error)  # they are redelivered, and handed back as over

    def _on_ack_timer(self) -> None:
        self._ack_timer = None
        self._spawn(self._ack())

    async def _pull(self, effect: effects.PullWork) -> None:
        await self._ack()
        source = self._puller(effect.work_class)
        try:
            await source.pull(effect.batch, effect.expires_s)
        except NotConnectedError:
            # The core hears of the lost line by its own event; this only must not spin.
            await asyncio.sleep(PULL_AGAIN_S)
            self._post(PullEnded(effect.work_class, refused=False))

    def _puller(self, work_class: str) -> Puller:
        def deliver(delivery: Delivery) -> None:
            self._on_delivery(work_class, delivery)

        def end(ended: puller.PullEnded) -> None:
            if ended.reason is not PullEnd.COMPLETE:  # else its last delivery has told
                refused = ended.reason in (PullEnd.NO_CONSUMER, PullEnd.REFUSED)
                self._post(PullEnded(work_class, refused))

        if work_class not in self._pullers:
            self._pullers[work_class] = Puller(self._line, WORK, work_class, deliver, end)
        return self._pullers[work_class]

    def _on_delivery(self, work_class: str, delivery: Delivery) -> None:
        number = next(self._numbers)
        self._deliveries[number] = delivery
        try:
            lease = codec.decode(Lease, delivery.payload)
        except ProtocolError as error:
            self._post(LeaseMalformed(work_class, number, str(error)))
            if delivery.ends_pull:
                self._post(PullEnded(work_class, refused=False))
        else:
            times, ends_pull = delivery.num_delivered, delivery.ends_pull
            self._post(LeaseDelivered(work_class, number, lease, times, ends_pull))

    async def _on_control(self, msg: Msg) -> None:
        try:
            control = codec.decode(Control, msg.data)
        except ProtocolError as error:
            log.warning("ignored a control word: %s", error)
            return
        match control.kind:
            case "open":
                self._post(ClassesOpened(control.classes, control.stand_s))
            case "cancel":
                self._post(LeasesCancelled(control.leases))
            case "start":
                self._post(GangGathered(control.leases))
            case "hello":
                self._post(BrokerGreeted())

    def _on_state(self, state: State) -> None:
        self._post(BrokerConnected() if isinstance(state, Connected) else BrokerDisconnected())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        async def guarded() -> None:
            try:
                await work
            except LinkError as error:
                # Offers are repeated and unanswered leases redelivered: nothing is lost.
                log.info("not sent: %s", error)

        task = asyncio.create_task(guarded())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
