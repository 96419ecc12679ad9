"""The event loop around the core: what comes in becomes events, effects go out."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeGuard, assert_never

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from broker.core.answers.queries import refusal
from broker.core.broker import Broker
from broker.core.effects import (
    Commit,
    DeleteWork,
    Effect,
    FeedWork,
    PublishEvent,
    PutOff,
    Reply,
    SendControl,
    Warn,
)
from broker.core.endpoints import DONE, QUERY, Endpoint, Endpoints
from broker.core.enrolment.bound import Bound
from broker.core.events import (
    ClockJumped,
    DoneReported,
    Event,
    HearingLost,
    HearingRestored,
    LendersBounded,
    OfferReceived,
    QueryReceived,
    SubmittersChanged,
    TimePassed,
)
from broker.service import journal, replay
from broker.service.buckets import Buckets
from broker.service.clock import Clock
from broker.service.committer import Committer
from broker.service.errors import ConnectionClosedError
from broker.service.feeder import Feeder
from broker.service.garbage import Garbage
from broker.service.intake import Intake
from broker.service.left_out import LeftOut
from broker.service.metrics import BrokerMetrics
from broker.service.rounds import look_through
from broker.service.submissions import Submissions
from broker.service.submitters import SubmittersError, SubmittersFile
from lender.link.connection import Closed, Connected, Connection, State
from lender.link.errors import NotConnectedError, PayloadTooLargeError
from lender.link.reader import StreamReader
from lender.protocol import subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, MSGPACK, encode

logger = logging.getLogger(__name__)

STALL_S = 1.0
"""A loop that comes this much too late has kept lenders waiting, not they it."""

INBOXES = ("_INBOX", "_R_.")
"""A reply subject is the caller's choice: answers go to inboxes only, never to our subjects.

By the second a server stands for an inbox in another account than ours."""

_ENDPOINT_OF: dict[type[Event], Endpoint] = {QueryReceived: QUERY, DoneReported: DONE}
_IDLE_S = 5.0
_CONFIRM_S = 0.05
_FILE_S = 1.0
_TURN_S = 0.005
_TOO_MANY = "too many of your questions wait already: ask again when they are answered"
_LENDERS_PENDING_MAX = 65_536


class Service:
    """One broker on one connection."""

    def __init__(
        self,
        connection: Connection,
        file: SubmittersFile,
        configured: Mapping[str, str],
        may_serve: Callable[[], bool] = lambda: True,
        pools: frozenset[str] | None = None,
        buckets: Buckets | None = None,
        read_bounds: Callable[[], Awaitable[Mapping[str, Bound]]] | None = None,
        metrics: BrokerMetrics | None = None,
        endpoints: Endpoints | None = None,
    ) -> None:
        """Prepare.

        Args:
            connection: to a NATS server with the streams.
            file: submitters that were allowed by command.
            configured: submitters of the settings (name to public key).
            may_serve: whether this broker leads; while it does not, nothing is decided.
            pools: whose jobs are taken; None for all of them.
            buckets: makes those of submitters; None: on this connection, one replica each.
            read_bounds: returns whom the operator lets lenders work for, of those that have a
                bound, before any is heard; None: none has one.
            metrics: count what it does.
            endpoints: where requests are counted; None: in one of its own.
        """
        self._connection = connection
        self._file = file
        self._configured = frozenset(configured.values())
        self._may_serve = may_serve
        self._buckets = buckets or Buckets(connection)
        self._read_bounds = read_bounds
        self._endpoints = endpoints or Endpoints()
        self._clock = Clock()
        # Whom it checks must not be foreseen by those who are checked.
        chance = secrets.SystemRandom().random
        self._metrics = BrokerMetrics() if metrics is None else metrics
        self._core = Broker(_new_id, pools=pools, chance=chance, figures=self._metrics.figures)
        self._metrics.watch(self._core.state)
        self._intake = Intake()
        self._left_out = LeftOut()
        self._submissions = Submissions(connection, self._intake)
        self._replay = replay.Replay(connection, self._core, self._submissions, self._clock.now)
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._feeder = Feeder(connection, self._intake.note)
        self._committer: Committer
        self._subscriptions: list[Subscription] = []

    async def run(self, leads: asyncio.Event, on_ready: Callable[[], None]) -> None:
        """Read along until this broker leads; then read to the end, say so, and serve.

        Serves until cancelled.

        Raises:
            FencedError: another broker leads.
            ConnectionClosedError: the server refuses us for good.
            LinkError, SubmittersError: what no retry can mend.
        """
        self._garbage = Garbage()
        unwatch = self._connection.watch(self._on_state)
        try:
            await self._stand_by(leads)
            self._clock.jump()
            began = time.monotonic()
            async with self._replay.jobs() as jobs:
                with self._garbage.held_off():
                    self._allow()
                    effects = await self._replay.complete(_new_id(), jobs)
                last = self._replay.last_result
                self._committer = Committer(
                    self._connection, last, self._intake.note, self._metrics.stored
                )
                self._metrics.leads(self._committer, time.monotonic() - began)
                if self._read_bounds is not None:
                    self.bind(await self._read_bounds())
                await self._subscribe()
                await self._serve(jobs, effects, on_ready)
        finally:
            unwatch()
            self._buckets.close()
            self._feeder.close()
            await self._unsubscribe()

    def bind(self, bounds: Mapping[str, Bound]) -> None:
        """Take up whom the operator lets lenders work for, of those that have a bound."""
        self._intake.note(LendersBounded(bounds))

    async def _stand_by(self, leads: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self._follow(leads))
            watching = tasks.create_task(self._end_with_connection())
            await leads.wait()
            following.cancel()
            watching.cancel()

    async def _follow(self, leads: asyncio.Event) -> None:
        """Know what the leader knows, so that little is left to be read when it is gone."""
        self._allow()
        with self._garbage.held_off():
            await self._replay.follow()
        logger.info("has read the streams: %d live jobs", len(self._core.state.jobs))
        while not leads.is_set():
            await asyncio.sleep(replay.FOLLOW_S)
            self._garbage.look()
            await self._replay.follow()

    def _allow(self) -> None:
        """Tell of who may submit, in a replay."""
        self._file.changed()
        self._core.handle(self._clock.now(), self._submitters())

    async def _serve(
        self, jobs: StreamReader, effects: list[Effect], on_ready: Callable[[], None]
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._committer.run())
            tasks.create_task(self._feeder.run_feeds())
            tasks.create_task(self._feeder.run_deletions())
            tasks.create_task(self._submissions.read(jobs, self._look_at_file))
            tasks.create_task(self._submissions.catch_up(lambda: self._core.state.submitters))
            tasks.create_task(self._watch_file())
            tasks.create_task(look_through(self._connection, self._intake.note))
            tasks.create_task(self._end_with_connection())
            await self._carry_out(effects)
            tasks.create_task(self._keep_buckets(on_ready))
            await self._loop()

    async def _keep_buckets(self, on_ready: Callable[[], None]) -> None:
        """Who finds the broker ready finds a bucket, too."""
        await self._buckets.make()
        on_ready()
        await self._buckets.run()

    async def _loop(self) -> None:
        while True:
            await self._sleep()
            await self._lead()
            if jump_s := self._clock.jump():
                await self._handle(ClockJumped(jump_s))
            await self._take_turn()
            await self._handle(TimePassed())
            if self._garbage.look() > STALL_S:
                await self._handle(HearingRestored())
            await asyncio.sleep(0)  # those who fill the queues have their turn

    async def _take_turn(self) -> None:
        """Take up what waits, until time is up for those who fill the queues."""
        at = time.perf_counter()
        end = at + _TURN_S
        while at < end:
            event = self._intake.next(congested=self._committer.congested)
            if event is None:
                return
            await self._handle(event)
            began, at = at, time.perf_counter()
            self._intake.charge(at - began)
            if (endpoint := _ENDPOINT_OF.get(type(event))) is not None:
                self._endpoints.asked(endpoint, at - began)

    async def _sleep(self) -> None:
        """Wait for an event, or until something falls due."""
        if self._intake.is_ready(congested=self._committer.congested):
            return
        now, deadline = self._clock.now(), self._core.next_deadline()
        wake_at = now + _IDLE_S if deadline is None else min(now + _IDLE_S, deadline)
        await self._intake.wait(wake_at - now)
        if self._clock.now() > wake_at + STALL_S and self._connection.connected:
            logger.warning("the broker stood still; lenders are given time to be heard")
            await self._handle(HearingRestored())

    async def _lead(self) -> None:
        """Wait while another broker might lead; then lenders are given time to be heard."""
        if self._may_serve():
            return
        logger.warning("this broker may not serve until its leadership is confirmed")
        while not self._may_serve():  # noqa: ASYNC110 - the time of it is the clock's to say
            await asyncio.sleep(_CONFIRM_S)
        logger.info("it serves again")
        await self._handle(HearingRestored())

    async def _handle(self, event: Event) -> None:
        await self._carry_out(self._core.handle(self._clock.now(), event))

    async def _carry_out(self, effects: list[Effect]) -> None:
        # Somebody waits for these: they go out with what is told beside them, not behind that.
        for commit in filter(_is_commit, effects):
            self._committer.add(commit)
        for effect in effects:
            journal.tell(effect)
            match effect:
                case FeedWork():
                    self._feeder.feed(effect)
                case DeleteWork():
                    self._feeder.delete(effect)
                case Reply():
                    headers = self._endpoints.answered(effect.message)
                    headers[CONTENT_TYPE_HEADER] = effect.content_type
                    payload = encode(effect.message, effect.content_type)
                    await self._publish(effect.reply_to, payload, headers)
                case PublishEvent():
                    await self._publish(effect.subject, effect.payload, effect.headers)
                case SendControl():
                    payload = encode(effect.control)
                    headers = {CONTENT_TYPE_HEADER: MSGPACK}
                    await self._publish(subjects.control(effect.lender), payload, headers)
                case Commit() | PutOff():
                    pass  # done above; replays alone have the other
                case Warn():
                    logger.warning("%s", effect.text)
                case _:
                    assert_never(effect)

    async def _publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Tell at most once: who misses it asks or reports again, or is told again."""
        try:
            await self._connection.publish(subject, payload, dict(headers))
        except (NotConnectedError, PayloadTooLargeError) as error:
            logger.info("%s is not told: %s", subject, error)

    async def _watch_file(self) -> None:
        while True:
            await asyncio.sleep(_FILE_S)
            self._look_at_file()

    def _look_at_file(self) -> None:
        """Tell of those who were allowed, if need be just before they submitted."""
        if self._file.changed():
            try:
                self._intake.note(self._submitters())
            except SubmittersError as error:
                logger.warning("%s; the submitters stay as they were", error)

    async def _subscribe(self) -> None:
        nc = self._connection.nc
        for subject, listener in (
            (subjects.OFFER_FILTER, self._on_offer),
            (subjects.DONE_FILTER, self._on_done),
            (subjects.QUERY_FILTER, self._on_query),
        ):
            listening = await nc.subscribe(
                subject, cb=listener, pending_msgs_limit=_LENDERS_PENDING_MAX
            )
            self._subscriptions.append(listening)

    async def _unsubscribe(self) -> None:
        for listening in self._subscriptions:
            with contextlib.suppress(NatsError):  # the line is down, and they with it
                await listening.unsubscribe()

    async def _on_offer(self, msg: Msg) -> None:
        self._hear(OfferReceived(subjects.last_token(msg.subject), msg.data))

    async def _on_done(self, msg: Msg) -> None:
        if msg.reply.startswith(INBOXES):
            lender = subjects.last_token(msg.subject)
            self._hear(DoneReported(lender, msg.data, msg.reply))

    def _hear(self, event: OfferReceived | DoneReported) -> None:
        if not self._intake.hear(event):
            self._left_out.note(event.lender)

    async def _on_query(self, msg: Msg) -> None:
        if msg.reply.startswith(INBOXES):
            submitter = subjects.last_token(msg.subject)
            query = QueryReceived(submitter, msg.headers or {}, msg.data, msg.reply)
            if not self._intake.ask(query):
                self._endpoints.asked(QUERY)
                await self._carry_out([refusal(query, _TOO_MANY)])

    def _on_state(self, state: State) -> None:
        if isinstance(state, Closed):
            if not self._closed.done():
                reason = f"the NATS server closed the connection for good: {state.reason}"
                self._closed.set_exception(ConnectionClosedError(reason))
        else:
            heard = isinstance(state, Connected)
            self._intake.note(HearingRestored() if heard else HearingLost())

    async def _end_with_connection(self) -> None:
        await asyncio.shield(self._closed)  # whoever waits may be cancelled

    def _submitters(self) -> SubmittersChanged:
        found = self._file.read()
        self._buckets.want(found.stored_bytes_max(self._configured))
        return found.event(self._configured)


def _new_id() -> str:
    return secrets.token_urlsafe(16)


def _is_commit(effect: Effect) -> TypeGuard[Commit]:
    return isinstance(effect, Commit)
