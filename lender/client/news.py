"""What the broker tells of the jobs that are followed here, by as few subscriptions as will do.

News are ephemeral: they may be lost, doubled or overtaken. What counts is RESULTS.
"""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from lender.client.errors import Unreachable
from lender.client.listening import closed
from lender.link.connection import Closed, Connected, Connection, State
from lender.protocol import subjects

MANY: Final = 16
"""Who follows so many jobs at once hears of all of this submitter's by one subscription; who
follows fewer is not sent what concerns another process of the same submitter."""

AHEAD_MAX: Final = 4
"""So many jobs that nobody follows yet are heard of, each by a subscription of its own: who submits
mostly waits for the result next, and is spared a look into RESULTS. Who never does pays no more."""

UNREAD_MAX: Final = 1024
UNREAD_BYTES_MAX: Final = 64 << 20
EXPECTED_MAX: Final = 4096
"""Jobs that were submitted and that nobody follows yet."""
EXPECTED_BYTES_MAX: Final = 16 << 10
"""Of the news of one of these."""


class Hearing:
    """The news of one job, until `close`.

    Attributes:
        whole: all since it was submitted have been heard, as far as one can tell.
        bytes_max: as much is kept of what is not read; what comes on top is lost.
    """

    def __init__(self, *, expected: bool = False) -> None:
        self.whole = expected
        self.bytes_max = EXPECTED_BYTES_MAX if expected else UNREAD_BYTES_MAX
        self._unread: deque[Msg] = deque()
        self._unread_bytes = 0
        self._waiting: asyncio.Future[None] | None = None
        self._fault: Unreachable | None = None

    @property
    def is_pending(self) -> bool:
        """Whether news wait to be read."""
        return bool(self._unread)

    async def next(self, within_s: float) -> Msg | None:
        """Wait for news; None: none came, or some were lost and RESULTS is to be looked at.

        Raises:
            Unreachable: the connection was closed for good.
        """
        if not self._unread and self._fault is None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = loop.call_later(within_s, self._wake)
            try:
                await self._waiting
            finally:
                self._waiting = None
                timer.cancel()
        if not self._unread:
            if self._fault is not None:
                raise self._fault
            return None
        msg = self._unread.popleft()
        self._unread_bytes -= len(msg.data)
        return msg

    def hear(self, msg: Msg) -> None:
        """Take news, unless there are too many."""
        if len(self._unread) < UNREAD_MAX and self._unread_bytes < self.bytes_max:
            self._unread.append(msg)
            self._unread_bytes += len(msg.data)
        else:
            self.whole = False
        self._wake()

    def miss(self, fault: Unreachable | None = None) -> None:
        """Take up that some may be lost; with a fault, that no more will come."""
        self.whole, self._fault = False, fault
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class News:
    """Of one submitter's jobs, over one connection."""

    def __init__(self, connection: Connection, submitter: str) -> None:
        self._connection = connection
        self._submitter = submitter
        self._followed: dict[str, list[Hearing]] = {}
        self._expected: OrderedDict[str, Hearing] = OrderedDict()
        self._single: dict[str, Subscription] = {}
        self._ahead: set[str] = set()
        """Those of `_single` that nobody follows yet."""
        self._of_all: Subscription | None = None
        self._opening = asyncio.Lock()
        self._skip = len(subjects.event(submitter, ""))
        self.close: Callable[[], None] = connection.watch(self._on_state)

    async def expect(self, job: str) -> None:
        """Keep the news of a job that is about to be submitted, where that costs little.

        Raises:
            Unreachable: the connection was closed for good.
        """
        if self._of_all is None:
            if len(self._ahead) >= AHEAD_MAX or job in self._single:
                return
            self._ahead.add(job)
            try:
                self._single[job] = await self._open(subjects.event(self._submitter, job))
            except BaseException:
                self._ahead.discard(job)
                raise
        self._expected[job] = Hearing(expected=True)
        if len(self._expected) > EXPECTED_MAX:
            self._expected.popitem(last=False)

    async def expect_no_more(self, job: str) -> None:
        """Take up that it was not submitted."""
        self._expected.pop(job, None)
        if job in self._ahead:
            self._ahead.discard(job)
            await self._unsubscribe(self._single.pop(job))

    async def follow(self, job: str, *, fresh: bool = False) -> Hearing:
        """Hear of a job from now on; `fresh`: it was not submitted yet, so that nothing is missed.

        Raises:
            Unreachable: the connection was closed for good.
        """
        hearing = self._expected.pop(job, None) or Hearing(expected=fresh)
        hearing.bytes_max = UNREAD_BYTES_MAX
        self._ahead.discard(job)
        self._followed.setdefault(job, []).append(hearing)
        try:
            await self._subscribe(job)
        except BaseException:
            self._forget(job, hearing)
            raise
        return hearing

    async def leave(self, job: str, hearing: Hearing) -> None:
        """Hear of a job no more."""
        self._forget(job, hearing)
        if not self._followed and self._of_all is not None:
            of_all, self._of_all = self._of_all, None
            self._expected.clear()
            await self._unsubscribe(of_all)
        if job not in self._followed and (single := self._single.pop(job, None)) is not None:
            await self._unsubscribe(single)

    def _forget(self, job: str, hearing: Hearing) -> None:
        self._followed[job].remove(hearing)
        if not self._followed[job]:
            del self._followed[job]

    async def _subscribe(self, job: str) -> None:
        if self._of_all is not None or job in self._single:
            return
        async with self._opening:
            if self._of_all is not None or job in self._single:
                return
            if len(self._followed) >= MANY:
                self._of_all = await self._open(subjects.event(self._submitter, "*"))
            else:
                self._single[job] = await self._open(subjects.event(self._submitter, job))

    async def _open(self, subject: str) -> Subscription:
        try:
            opened = await self._connection.nc.subscribe(subject)
        except nats_errors.ConnectionClosedError as error:
            raise closed() from error
        self._connection.nc.handle_at_once(opened, self._hear)
        return opened

    async def _unsubscribe(self, subscription: Subscription) -> None:
        with contextlib.suppress(nats_errors.Error):  # closed, and it with that
            await subscription.unsubscribe()

    def _hear(self, msg: Msg) -> None:
        job = msg.subject[self._skip :]
        if job in self._expected:
            self._expected[job].hear(msg)
        for hearing in self._followed.get(job, ()):
            hearing.hear(msg)

    def _on_state(self, state: State) -> None:
        fault = closed() if isinstance(state, Closed) else None
        if isinstance(state, Connected | Closed):
            for hearings in (*self._followed.values(), [*self._expected.values()]):
                for hearing in hearings:
                    hearing.miss(fault)
