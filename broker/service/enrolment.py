"""Lets strangers in whom the operator approves: the shell around `broker.core.enrolment`.

It has a line to the server of its own: whoever floods it holds up nobody's work.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, assert_never

from nats.aio.msg import Msg

from broker.core.endpoints import COMMAND, ENROLL, Endpoints
from broker.core.enrolment.bound import Bound
from broker.core.enrolment.enrolment import Enrolment
from broker.core.enrolment.events import (
    Admit,
    Allowed,
    AllowSubmitter,
    Asked,
    Effect,
    Event,
    Inform,
    NotStored,
    OperatorAsked,
    OperatorsWord,
    Recalled,
    Store,
    Stored,
    SubmittersNamed,
    Tell,
)
from broker.core.enrolment.messages import (
    Approve,
    AskLenders,
    JoinToken,
    KeepToken,
    OperatorAnswer,
    SetBound,
)
from broker.core.intake.lanes import Lanes
from broker.deployment.folder import Deployment, DeploymentError
from broker.service.enrolment_kept import read_kept
from broker.service.service import INBOXES
from broker.service.submitters import SubmittersError, SubmittersFile
from broker.service.trickle import Trickle
from lender.link.api import JetStream, answer, number
from lender.link.connection import Connection
from lender.link.errors import LinkError, NoRespondersError
from lender.link.hardened import REQUEST_INFO_HEADER
from lender.protocol import subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, MSGPACK, decode, encode
from lender.protocol.enrolment import NONCE_BYTES, EnrolAnswer
from lender.protocol.errors import ProtocolError
from lender.protocol.permissions import CLASS_TAG
from lender.protocol.signature import SIGNATURE_HEADER

logger = logging.getLogger(__name__)

LINE_WAITS_MAX = 4
"""Messages of one line that wait; what is more it says again."""
WAITING_BYTES_MAX = 8 * 1024 * 1024

READ_MAX = 200
READ_S = 0.1
"""So many messages of strangers are read in that time: a tenth of a core, whatever they send."""

_TURN_S = 0.005
_STORE_S = 5.0
_LEADERLESS_S = 9.0
"""So long a stream may have no leader after a server's end (RAFT of nats-server); a person at
`lender-broker approve` waits for 10 s."""
_AGAIN_S = 0.25
_TTL = "Nats-TTL"
_EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"


class Place(NamedTuple):
    """Where a stranger is: one of its lines, and the address that this comes from."""

    line: str
    host: str


def place_of(header: str | None) -> Place:
    """Read what the server says of a request; empty where it says nothing that we know."""
    try:
        said = json.loads(header or "{}")
        host, number_, server = said["host"], said["id"], said.get("server", "")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Place("", "")
    if not isinstance(host, str) or not isinstance(number_, int):
        return Place("", "")
    return Place(f"{str(server)[:100]} {host[:100]} {number_}"[:250], host[:100])


class EnrolmentDesk:
    """Answers strangers and the operator while this broker leads."""

    def __init__(
        self,
        connection: Connection,
        deployment: Deployment,
        submitters: SubmittersFile,
        configured: Mapping[str, str],
        may_serve: Callable[[], bool],
        tell_bounds: Callable[[Mapping[str, Bound]], None] = lambda _: None,
        endpoints: Endpoints | None = None,
    ) -> None:
        """Prepare.

        Args:
            connection: of the desk alone, with the broker's rights.
            deployment: has the keys that vouch for lenders and submitters.
            submitters: whom it allows to submit is written here.
            configured: submitters of the settings (name to public key).
            may_serve: whether this broker leads; while it does not, nothing is decided.
            tell_bounds: told whom the operator lets lenders work for, of those that have a bound,
                whenever that may have changed.
            endpoints: where requests are counted; None: in one of its own.
        """
        self._connection = connection
        self._jetstream = JetStream(connection)
        self._deployment = deployment
        self._submitters = submitters
        self._configured = configured
        self._may_serve = may_serve
        self._tell_bounds = tell_bounds
        self._endpoints = endpoints or Endpoints()
        self._core = Enrolment()
        self._strangers: Lanes[Asked] = Lanes()
        self._operator: deque[OperatorAsked] = deque()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Read what is kept, and serve until cancelled.

        Raises:
            LinkError: the server did not let us read, or keep what is done already; from the start
                this goes on where it was.
        """
        self._look_at_submitters()
        await self._carry_out(await self._recall())
        nc = self._connection.nc
        await nc.subscribe(subjects.ENROLMENT_FILTER, cb=self._on_operator)
        strangers = Trickle(
            nc, subjects.ENROL, self._on_stranger, count_max=READ_MAX, within_s=READ_S
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(strangers.run())
            tasks.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            if self._operator:
                await self._handle(self._operator.popleft())
            elif (asked := self._strangers.take()) is not None:
                await self._handle(asked)
                # Each line has as many turns as the others, and all together a part of our time.
                self._strangers.charge(1.0)
                await asyncio.sleep(_TURN_S)
            else:
                self._wake.clear()

    async def _on_stranger(self, msg: Msg) -> None:
        if not msg.reply.startswith(INBOXES):
            return
        headers = msg.headers or {}
        place = place_of(headers.get(REQUEST_INFO_HEADER))
        if not place.line:
            # The server always says it. Headers that do not end as they should hide its word.
            return
        waits, _ = self._strangers.waiting(place.line)
        if waits >= LINE_WAITS_MAX or self._strangers.bytes > WAITING_BYTES_MAX:
            return
        asked = Asked(
            msg.data,
            headers.get(SIGNATURE_HEADER),
            msg.reply,
            os.urandom(NONCE_BYTES).hex(),
            place.line,
            place.host,
        )
        self._strangers.put(place.line, asked, len(msg.data) + 1)
        self._wake.set()

    async def _on_operator(self, msg: Msg) -> None:
        """Only brokers, and who has their credentials, live in this account."""
        if not msg.reply.startswith(INBOXES):
            return
        try:
            what = asked_by_operator(msg.subject, msg.data)
        except ProtocolError as error:
            self._endpoints.asked(COMMAND)
            await self._publish(msg.reply, OperatorAnswer(error=str(error)[:500]))
            return
        self._operator.append(OperatorAsked(what, msg.reply))
        self._wake.set()

    async def _handle(self, event: Event) -> None:
        if not self._may_serve():
            return  # who asked asks again
        began = time.perf_counter()
        self._look_at_submitters()
        await self._carry_out(self._core.handle(time.time(), event))
        endpoint = ENROLL if isinstance(event, Asked) else COMMAND
        self._endpoints.asked(endpoint, time.perf_counter() - began)

    async def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Store():
                    kept = await self._store(effect)
                    follow_up = self._core.handle(time.time(), kept)
                    self._tell_bounds(self._core.bounds)  # before whoever asked is answered
                    await self._carry_out(follow_up)
                case Tell() | Inform():
                    await self._publish(effect.reply_to, effect.answer)
                case Admit():
                    await self._admit(effect)
                case AllowSubmitter():
                    if self._allow(effect):
                        done = Allowed(effect)
                        await self._carry_out(self._core.handle(time.time(), done))
                case _:
                    assert_never(effect)

    async def _store(self, store: Store) -> Stored | NotStored:
        record = store.record
        headers = {_EXPECTED_SEQUENCE: str(store.replaces), CONTENT_TYPE_HEADER: MSGPACK}
        if isinstance(record, JoinToken) and record.used is None:
            headers[_TTL] = f"{max(1, round(record.expires_at - time.time()))}s"
        try:
            sequence = await self._written(record.subject, encode(record), headers)
        except LinkError as error:
            logger.warning("%s is not kept: %s", record.subject, error)
            if not store.reply_to:
                raise  # nobody would say it again
            # Another broker was first, or it is kept and we were not told.
            with contextlib.suppress(LinkError):
                await self._recall()
            return NotStored(store)
        logger.info("kept: %s", record.subject)
        return Stored(store, sequence)

    async def _written(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        """Write to a stream, which may have no leader for a while; returns the sequence."""
        deadline = time.monotonic() + _LEADERLESS_S
        while True:
            try:
                msg = await self._connection.request(subject, payload, headers, _STORE_S)
                return number(answer(msg), "seq")
            except NoRespondersError:  # so nothing has happened
                if time.monotonic() + _AGAIN_S > deadline:
                    raise
            await asyncio.sleep(_AGAIN_S)

    async def _recall(self) -> list[Effect]:
        found = self._core.handle(time.time(), Recalled(await read_kept(self._jetstream)))
        self._tell_bounds(self._core.bounds)
        return found

    async def _admit(self, effect: Admit) -> None:
        one = effect.admission
        tags = tuple(f"{CLASS_TAG}:{name}" for name in effect.classes)
        try:
            token = self._deployment.vouch(one.role, one.key, one.name, tags, one.at)
            authorities = self._deployment.authorities()
        except DeploymentError as error:
            logger.error("no token for %s: %s", one.key, error)  # noqa: TRY400 - told whole
            return
        told = EnrolAnswer(
            key=one.key,
            commitment=effect.commitment,
            state="admitted",
            token=token,
            at=one.at,
            authorities=authorities,
        )
        await self._publish(effect.reply_to, told)

    def _allow(self, effect: AllowSubmitter) -> bool:
        try:
            self._submitters.allow(effect.name, effect.key)
        except SubmittersError as error:
            logger.error("%s may not submit yet: %s", effect.name, error)  # noqa: TRY400
            return False
        return True

    def _look_at_submitters(self) -> None:
        if not self._submitters.changed():
            return
        try:
            found = self._submitters.read()
        except SubmittersError as error:
            logger.warning("%s", error)
            return
        names = {**self._configured, **{name: one.key for name, one in found.by_name.items()}}
        self._core.handle(time.time(), SubmittersNamed(names))

    async def _publish(self, reply_to: str, message: OperatorAnswer | EnrolAnswer) -> None:
        headers = self._endpoints.answered(message) | {CONTENT_TYPE_HEADER: MSGPACK}
        try:
            await self._connection.publish(reply_to, encode(message), headers)
        except LinkError as error:
            logger.info("%s is not told: %s", reply_to, error)


def asked_by_operator(subject: str, payload: bytes) -> OperatorsWord:
    """Read what one of the operator's commands asks.

    Raises:
        ProtocolError: it is no such thing.
    """
    if subject == subjects.ENROLMENT_APPROVE:
        return decode(Approve, payload)
    if subject == subjects.ENROLMENT_TOKEN:
        return decode(KeepToken, payload)
    if subject == subjects.ENROLMENT_BOUND:
        return decode(SetBound, payload)
    if subject == subjects.ENROLMENT_LENDERS:
        return decode(AskLenders, payload)
    if subject == subjects.ENROLMENT_REQUESTS:
        return None
    raise ProtocolError("subject", "is none that an operator asks on")
