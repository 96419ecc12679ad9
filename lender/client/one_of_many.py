"""A job that was submitted together with others, or one task of any array: a handle of its own.

Such jobs are the tasks of one array: one watch over that serves all who wait for some of them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import cached_property
from time import time
from weakref import WeakValueDictionary

from lender.client.collector import TaskRecord
from lender.client.errors import UntrustedResult
from lender.client.job import Job
from lender.client.log_pieces import LogPiece
from lender.client.records import Record
from lender.protocol.ids import task_name
from lender.protocol.job import JobSpec
from lender.protocol.result import TaskResult, Terminal, TerminalState, reason_of

TellEnded = Callable[[int, float | None], None]
"""Told how many have ended, or are not followed any more, and how long one of them took."""


class Many:
    """The jobs that are tasks of one array, as far as there are handles on them."""

    def __init__(self, whole: Job) -> None:
        """Take the array; nothing is followed until somebody waits."""
        array = whole.spec.array
        assert array is not None, "whose tasks else"
        self.whole = whole
        self.array = array
        self._handles: WeakValueDictionary[int, OneOfMany] = WeakValueDictionary()
        self._watch: asyncio.Task[None] | None = None
        self._tell_ended: TellEnded = _nobody_asks

    def one(self, index: int) -> "OneOfMany":
        """Return the handle on one of them."""
        found = self._handles.get(index)
        if found is None:
            found = self._handles[index] = OneOfMany(self, index)
        return found

    async def listen(self, tell_ended: TellEnded) -> None:
        """Hear of them from now on, before they are submitted: then nothing has to be read."""
        self._tell_ended = tell_ended
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.ensure_future(self._follow(entered))
        await asyncio.wait((entered, self._watch), return_when=asyncio.FIRST_COMPLETED)

    def watch(self) -> None:
        """See that all handles hear how theirs has ended."""
        if self._watch is None or self._watch.done():
            self._watch = asyncio.ensure_future(self._follow())

    def close(self) -> None:
        """Hear of them no more: they were not submitted."""
        self._tell_ended = _nobody_asks
        if self._watch is not None:
            self._watch.cancel()

    async def _follow(self, entered: asyncio.Future[None] | None = None) -> None:
        left = self.whole.spec.task_count
        following = self.whole._following(  # noqa: SLF001 - its base
            with_tasks=True, fresh=entered is not None, on_untrusted=self._distrust
        )
        try:
            async with following:
                if entered is not None:
                    entered.set_result(None)
                # Whoever still waits holds a handle.
                while self._handles and not following.complete:
                    news = await following.more()
                    if news:
                        left -= len(news)
                        self._tell_ended(len(news), news[-1].result.duration_s)
                    for record in news:
                        if (handle := self._handles.get(record.result.task)) is not None:
                            handle.settle(handle.last_word(record), signed=record.signed)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody is to wait for ever
            self._fail(error)
        else:
            if following.terminal is not None:
                self._end(following.terminal)
        finally:
            self._tell_ended(left, None)
            self._tell_ended = _nobody_asks

    def _end(self, whole: Terminal) -> None:
        for handle in list(self._handles.values()):
            handle.settle(handle.last_word_without_result(whole))

    def _distrust(self, record: Record, error: UntrustedResult) -> None:
        if isinstance(record, Terminal):
            self._fail(error)
            return
        for result in record.results:
            if (handle := self._handles.get(result.task)) is not None:
                handle.distrust(error)

    def _fail(self, error: Exception) -> None:
        for handle in list(self._handles.values()):
            handle.fail(error)


def _nobody_asks(_count: int, _took_s: float | None) -> None:
    """Who was told of so many that have ended follows them no more."""


class OneOfMany(Job):
    """A handle on one task of an array; it keeps how that has ended.

    Of jobs that were submitted together it shows nothing but the job itself: no array, task 0.
    """

    def __init__(self, many: Many, index: int) -> None:
        self._many = many
        self._index = index
        self._session, self._seal = many.whole._session, many.whole._seal  # noqa: SLF001 - its base
        self._is_separate = many.array.separate
        self._shown = 0 if self._is_separate else index
        self._terminal: Terminal | None = None
        self._signed = False
        self._untrusted: UntrustedResult | None = None
        self._waiting: list[asyncio.Future[None]] = []

    @cached_property
    def id(self) -> str:
        """The job's id: the array's, and the index."""
        return task_name(self._many.whole.id, self._index)

    @cached_property
    def spec(self) -> JobSpec:
        """What was submitted, of this one alone."""
        spec, array = self._many.whole.spec, self._many.array
        if not array.separate:
            alone = array.model_copy(update={"tasks": ((self._index, 1),)})
            return spec.model_copy(update={"array": alone})
        words = array.each[self._index] if array.each else ()
        fields = {"id": self.id, "array": None, "argv": (*spec.argv, *words)}
        return spec.model_copy(update=fields)

    async def terminal(self) -> Terminal | None:
        """See `Job.terminal`."""
        if self._terminal is None:
            whole = await self._many.whole.terminal()
            record = await self._many.whole.task(self._index)
            if record is not None:
                self.settle(self.last_word(record), signed=record.signed)
            elif whole is not None:
                self.settle(self.last_word_without_result(whole))
        return self._terminal

    async def ended(self, timeout_s: float | None = None) -> Terminal:
        """See `Job.ended`."""
        if self._terminal is not None:
            return self._terminal
        async with asyncio.timeout(timeout_s):
            while self._terminal is None:
                if self._untrusted is not None:
                    raise self._untrusted
                self._many.watch()
                waiting = asyncio.get_running_loop().create_future()
                self._waiting.append(waiting)
                try:
                    await waiting
                finally:
                    self._waiting.remove(waiting)
        return self._terminal

    async def results(self) -> AsyncIterator[TaskRecord]:
        """See `Job.results`."""
        terminal = await self.ended()
        if terminal.result is not None:
            lender, attempt = terminal.lender or "", terminal.attempt or 0
            yield TaskRecord(terminal.result, lender, attempt, self._signed)

    async def task(self, index: int) -> TaskRecord | None:
        """See `Job.task`."""
        if index != self._shown:
            return None
        record = await self._many.whole.task(self._index)
        if record is None or (self._is_separate and record.result.cancelled):
            return None  # cancelled, it has none: as a job by itself
        result = self._as_shown(record.result)
        return TaskRecord(result, record.lender, record.attempt, record.signed)

    async def log(self, task: int | None = None) -> AsyncIterator[LogPiece]:
        """See `Job.log`."""
        if task in (None, self._shown):
            async for piece in self._many.whole.log(self._index):
                yield replace(piece, task=self._shown)

    async def log_so_far(self, task: int | None = None) -> AsyncIterator[LogPiece]:
        """See `Job.log_so_far`."""
        if task in (None, self._shown):
            async for piece in self._many.whole.log_so_far(self._index):
                yield replace(piece, task=self._shown)

    def last_word(self, record: TaskRecord) -> Terminal:
        """Return what a job of its own would have ended with, had it this result."""
        if self._is_separate and record.result.cancelled:
            return self._ended_without_result("cancelled", record.result.error, time())
        result = self._as_shown(record.result)
        succeeded = result.state == "succeeded"
        failed = ((self._shown, 1),) if not (succeeded or self._is_separate) else ()
        return Terminal(
            job=self.id,
            state="cancelled" if result.cancelled else result.state,
            reason=reason_of(result),
            tasks_succeeded=int(succeeded),
            tasks_failed=int(not succeeded),
            tasks_total=1,
            failed_tasks=failed,
            result=result,
            lender=record.lender or None,
            attempt=record.attempt or None,
            finished_at=time(),
        )

    def last_word_without_result(self, whole: Terminal) -> Terminal:
        """Return how it has ended with all others that had no result by then."""
        state = "failed" if whole.state == "succeeded" else whole.state
        return self._ended_without_result(state, whole.reason, whole.finished_at, whole.field)

    def _ended_without_result(
        self, state: TerminalState, reason: str | None, at: float, field: str | None = None
    ) -> Terminal:
        return Terminal(
            job=self.id, state=state, field=field, reason=reason, tasks_total=1, finished_at=at
        )

    def settle(self, terminal: Terminal, *, signed: bool = False) -> None:
        """Take how it has ended, and whether its lender has signed that."""
        if self._terminal is None and self._untrusted is None:
            self._terminal, self._signed = terminal, signed
            self._tell(None)

    def distrust(self, error: UntrustedResult) -> None:
        """Take that its result is none to trust, which stays so."""
        self._untrusted = error
        self._tell(error)

    def fail(self, error: Exception) -> None:
        """Let nobody wait on: its end can't be had now."""
        self._tell(error)

    def _tell(self, error: Exception | None) -> None:
        for one in self._waiting:
            if not one.done():
                one.set_exception(error) if error else one.set_result(None)

    def _as_shown(self, result: TaskResult) -> TaskResult:
        return (
            result.model_copy(update={"task": self._shown})
            if self._shown != result.task
            else result
        )
