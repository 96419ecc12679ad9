"""Submissions that come while an earlier one is under way, and ask for the same: they go together.

The first never waits for others. Each kind is sent by itself, one submission at a time, and what
has come meanwhile is the next. Where many short jobs are with the fleet, those that follow go when
they are some part of them, or after a moment: else each few that end would be followed by as few,
and jobs that went together would never again.
"""

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter

from lender.client.errors import Rejected
from lender.client.job import Job
from lender.client.specs import JobRequest
from lender.protocol.bounds import EACH_MAX, SPEC_BYTES_MAX

Words = Sequence[str]
Send = Callable[[JobRequest, Sequence[Words]], Coroutine[None, None, Sequence[Job]]]
"""Submits a request with each of these command lines; returns a handle on each."""

WORDS_BYTES_MAX = SPEC_BYTES_MAX // 2
"""Of command lines that go together: what is around them has room beside."""

_WORD_BYTES = 4
"""What stands around a word of a command line, and around the line itself, at most about."""


@dataclass(frozen=True, slots=True)
class _Asked:
    words: Words
    handle: asyncio.Future[Job]


PART = 8
"""Jobs wait for others to go with while they are less than this part of those under way."""

MOMENT_S = 0.05
"""But no longer."""

WORTH_S = 0.05
"""Nor where they are so much work: a message costs some milliseconds, whatever is in it."""

_WEIGHT = 1 / 8
"""Of the newest in how long jobs take."""

_Kept = tuple[object, ...]
_kept: Callable[[JobRequest], _Kept] = attrgetter(
    *(one.name for one in fields(JobRequest) if one.name != "argv")
)
"""What has to be the same of requests that go together."""


@dataclass(slots=True)
class _Kind:
    key: Hashable
    request: JobRequest
    kept: _Kept
    waiting: deque[_Asked] = field(default_factory=deque)
    sending: asyncio.Task[None] | None = None
    sent: Sequence[_Asked] = ()
    """What is under way to be accepted, by `message`."""
    message: asyncio.Future[Sequence[Job]] | None = None
    enough: asyncio.Future[None] | None = None
    """While it waits until `wanted` do."""
    wanted: int = 0


class Gathering:
    """The submissions of one client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._under_way = 0
        self._job_s: float | None = None
        self._kinds: dict[Hashable, list[_Kind]] = {}

    async def submit(self, request: JobRequest) -> Job:
        """Submit a request, by itself or together with others; raises what `send` raises."""
        kind = self._kind_of(request)
        asked = _Asked(tuple(request.argv), asyncio.get_running_loop().create_future())
        kind.waiting.append(asked)
        if kind.sending is None:
            kind.sending = asyncio.ensure_future(self._send_all(kind))
        elif kind.enough is not None and len(kind.waiting) >= kind.wanted:
            _set(kind.enough)
        try:
            return await asked.handle
        except asyncio.CancelledError:
            if kind.message is not None and _nobody_waits(kind.sent):
                kind.message.cancel()
            raise

    def note_ended(self, count: int, took_s: float | None = None) -> None:
        """Take that so many jobs that went with others have ended, of which one took so long.

        None: nobody has said how long, or they are not followed any more.
        """
        self._under_way -= count
        if took_s is not None:
            known_s = took_s if self._job_s is None else self._job_s
            self._job_s = known_s + _WEIGHT * (took_s - known_s)

    def _kind_of(self, request: JobRequest) -> _Kind:
        key, kept = _key(request), _kept(request)
        alike = self._kinds.setdefault(key, [])
        for kind in alike:
            if kind.kept == kept:
                return kind
        own = _snapshot(request)
        alike.append(kind := _Kind(key, own, _kept(own)))
        return kind

    async def _send_all(self, kind: _Kind) -> None:
        """Send what waits until nothing does."""
        taken: list[_Asked] = []
        try:
            while kind.waiting:
                await self._gather(kind)
                taken = next_together(kind.waiting)
                await self._send_some(kind, taken)
        finally:
            for one in (*taken, *kind.waiting):
                one.handle.cancel()  # nobody sends it any more
            alike = self._kinds[kind.key]
            alike.remove(kind)
            if not alike:
                del self._kinds[kind.key]

    async def _gather(self, kind: _Kind) -> None:
        """Wait for others that are worth waiting for."""
        kind.wanted = self._worth_waiting_for()
        if len(kind.waiting) < kind.wanted:
            loop = asyncio.get_running_loop()
            kind.enough = loop.create_future()
            moment = loop.call_later(MOMENT_S, _set, kind.enough)
            try:
                await kind.enough
            finally:
                moment.cancel()
                kind.enough = None

    def _worth_waiting_for(self) -> int:
        if self._job_s is None:
            return 0
        worth = WORTH_S / max(self._job_s, WORTH_S / EACH_MAX)
        return int(min(worth, self._under_way / PART))

    async def _send_some(self, kind: _Kind, asked: Sequence[_Asked]) -> None:
        asked = [one for one in asked if not one.handle.done()]  # else nobody waits any more
        if not asked:
            return
        kind.sent = asked
        kind.message = asyncio.ensure_future(self._send(kind.request, [one.words for one in asked]))
        try:
            handles = await kind.message
        except asyncio.CancelledError:
            kind.message.cancel()
            if not _nobody_waits(asked):
                raise
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked is told
            await self._refuse(kind, asked, error)
        else:
            if len(asked) > 1:
                self._under_way += len(asked)
            for one, handle in zip(asked, handles, strict=True):
                if not one.handle.done():
                    one.handle.set_result(handle)
        finally:
            kind.message = None

    async def _refuse(self, kind: _Kind, asked: Sequence[_Asked], error: Exception) -> None:
        if isinstance(error, Rejected) and len(asked) > 1:
            for one in asked:  # each is told of its own faults alone
                await self._send_some(kind, [one])
            return
        for one in asked:
            if not one.handle.done():
                one.handle.set_exception(error)


def may_go_together(request: JobRequest) -> bool:
    """Tell whether a job can be one of several that were submitted together."""
    alone = request.array is not None or request.function is not None or request.verify is not None
    # Of an array `queue_s` ends when the first of its tasks begins.
    alone = alone or request.queue_s is not None
    return not (alone or request.sealed or request.checkpoint or request.gang)


def next_together(waiting: deque[_Asked]) -> list[_Asked]:
    """Take those that go next: in their order, as many as fit into one specification."""
    taken = [waiting.popleft()]
    size_bytes = _size_bytes(taken[0].words)
    while waiting and len(taken) < EACH_MAX:
        size_bytes += _size_bytes(waiting[0].words)
        if size_bytes > WORDS_BYTES_MAX:
            break
        taken.append(waiting.popleft())
    return taken


def _size_bytes(words: Words) -> int:
    """Return about what a command line takes when it is sent; what is none is refused later."""
    return _WORD_BYTES + sum(_WORD_BYTES + 4 * len(str(word)) for word in words)


def _key(request: JobRequest) -> Hashable:
    """Return what differs where requests do, in most cases; what can't be looked at is one kind."""
    try:
        inputs = tuple(request.inputs.items())
        key = (request.name, request.workload, request.wasm, inputs)
        hash(key)
    except TypeError:
        return None
    return key


def _snapshot(request: JobRequest) -> JobRequest:
    """Return the request as it is now: it is sent later, and may be changed by who holds it."""
    return replace(
        request,
        env=dict(request.env),
        inputs=dict(request.inputs),
        outputs=copy.copy(request.outputs),
        after=copy.copy(request.after),
    )


def _nobody_waits(asked: Iterable[_Asked]) -> bool:
    return all(one.handle.done() for one in asked)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
