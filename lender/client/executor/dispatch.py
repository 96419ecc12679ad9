"""Carries out what the queue of calls decides, by a client; lives in the executor's loop."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Literal, TextIO

from lender.client.client import Client
from lender.client.errors import ClientError, TaskFailed, error_of
from lender.client.executor.call_queue import (
    BatchAccepted,
    CallDropped,
    CallEnded,
    CallQueue,
    CallsMade,
    CancelBatch,
    Closed,
    DropCalls,
    Effect,
    Event,
    Finish,
    Remind,
    Reminded,
    SendBatch,
)
from lender.client.executor.outcomes import outcome
from lender.client.executor.program import Call, program
from lender.client.functions import FunctionOptions
from lender.client.job import Job
from lender.client.loop_thread import LoopThread
from lender.protocol.job import Limits
from lender.protocol.result import TaskResult
from lender.protocol.strangers_text import visible

_MOMENT_S = 1.0
"""See `Remind`."""

_NOTHING = Call(b"")
"""In place of a call that was dropped after it had been taken."""


class CallFuture(Future[Any]):
    """Pending until its result is there; a cancellation reaches the fleet."""

    def __init__(self, thread: LoopThread, dispatch: "Dispatch", number: int) -> None:
        super().__init__()
        self._thread = thread
        self._dispatch = dispatch
        self._number = number

    def cancel(self) -> bool:
        """See `Future.cancel`."""
        if not super().cancel():
            return False
        self._thread.call(self._dispatch.drop, self._number)
        return True


class Dispatch:
    """The calls of one executor, from their pickles to their futures.

    Args:
        client: not entered yet.
        queue: decides which go when.
        options: of each job.
        trust: open pickles that lenders send.
        on_finished: called once, in the loop: it was closed, and every call has ended.
    """

    def __init__(
        self,
        client: Client,
        queue: CallQueue,
        options: FunctionOptions,
        on_finished: Callable[[], object],
        *,
        trust: bool,
    ) -> None:
        self._client = client
        self._options = options
        self._output_bytes = (options.get("limits") or Limits()).output_bytes
        self._on_finished = on_finished
        self._trust = trust
        self._queue = queue
        self._calls: dict[int, Call] = {}
        self._futures: dict[int, CallFuture] = {}
        self._jobs: dict[int, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect.

        Raises:
            KeyFault, NotAdmitted, Unreachable: see `Client`.
        """
        await self._client.__aenter__()

    def take(self, made: dict[int, tuple[Call, CallFuture]]) -> None:
        """Calls that were made: number -> what is sent, and whose result it is."""
        for number, (call, future) in made.items():
            self._calls[number] = call
            self._futures[number] = future
        self._on(CallsMade({number: len(call.content) for number, (call, _) in made.items()}))

    def drop(self, number: int) -> None:
        """A future was cancelled."""
        self._forget(number)
        self._on(CallDropped(number))

    def close(self, drop: Literal["nothing", "waiting", "all"]) -> None:
        """No call comes any more."""
        self._on(Closed(drop))

    def _on(self, event: Event) -> None:
        for effect in self._queue.handle(event):
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case SendBatch(batch, calls):
                self._start(self._run(batch, calls))
            case CancelBatch(batch):
                self._start(self._cancel(self._jobs[batch]))
            case DropCalls(calls):
                for number in calls:
                    self._forget(number)
            case Remind():
                asyncio.get_running_loop().call_later(_MOMENT_S, self._on, Reminded())
            case Finish():
                self._start(self._finish())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: int, calls: tuple[int, ...]) -> None:
        """Have a batch run as one array, until all of its calls have ended."""
        left = dict(enumerate(calls))
        pickles = [self._calls.pop(number, _NOTHING) for number in calls]
        try:
            job = self._jobs[batch] = await self._client.submit_program(
                program(pickles, self._output_bytes), len(calls), self._options
            )
            del pickles
            self._on(BatchAccepted(batch))
            await self._collect(job, left)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody is to wait for ever
            self._fail(left, error)
        finally:
            self._jobs.pop(batch, None)

    async def _collect(self, job: Job, left: dict[int, int]) -> None:
        """Settle each call as its result comes, and take it from `left`: task -> call."""
        async for record in job.results():
            task = record.result.task
            await self._settle(job, record.result, left[task])
            del left[task]
        if left:
            terminal = await job.ended()
            gone = ClientError(f"job {job.id} ended without a result of it", "call it again")
            self._fail(left, error_of(terminal) or gone)

    async def _settle(self, job: Job, result: TaskResult, number: int) -> None:
        """Say what became of a call."""
        future = self._futures.get(number)
        if future is None or future.cancelled():
            self._forget(number)
        elif result.state != "succeeded":
            self._resolve(number, error=TaskFailed(job.id, result))
        else:
            _show(sys.stderr, result.stderr_tail.decode(errors="backslashreplace"), self._trust)
            try:
                came = outcome(await job.value(result), trust=self._trust)
            except Exception as error:  # noqa: BLE001 - of this call; the others go on
                self._resolve(number, error=error)
            else:
                _show(sys.stdout, came.printed, self._trust)
                self._resolve(number, came.value, came.error)
        # Nothing in here may hold a value longer than its future does.
        self._on(CallEnded(number, result.duration_s))

    def _fail(self, left: dict[int, int], error: Exception) -> None:
        for number in left.values():
            self._resolve(number, error=error)
            self._on(CallEnded(number))
        left.clear()

    def _resolve(
        self, number: int, value: object = None, error: BaseException | None = None
    ) -> None:
        future = self._futures.pop(number, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def _forget(self, number: int) -> None:
        """Nobody waits for this call any more."""
        self._calls.pop(number, None)
        if (future := self._futures.pop(number, None)) is not None:
            Future.cancel(future)
            future.set_running_or_notify_cancel()

    async def _cancel(self, job: Job) -> None:
        with contextlib.suppress(ClientError):  # it runs to its end then, for nobody
            await job.cancel()

    async def _finish(self) -> None:
        others = self._tasks - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        try:
            await self._client.__aexit__(None, None, None)
        finally:
            self._on_finished()


def _show(stream: TextIO | None, text: str, trust: bool) -> None:  # noqa: FBT001 - one caller
    """Print what a stranger's machine wrote; it can't steer a terminal, unless it is trusted."""
    if stream is None or not text:
        return
    text = text if trust else visible(text)
    if encoding := getattr(stream, "encoding", None):  # what it lacks is not to lose the rest
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        stream.write(text)
        stream.flush()
