"""`LenderExecutor`: what a pool of processes does, on a fleet."""

import itertools
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar, Unpack

from lender.client.client import Client
from lender.client.errors import Rejected
from lender.client.executor.call_queue import CallQueue
from lender.client.executor.dispatch import CallFuture, Dispatch
from lender.client.executor.program import Call, calls_of
from lender.client.functions import FunctionOptions, pickled
from lender.client.loop_thread import LoopThread, before_threads_end
from lender.protocol.bounds import ENV_ENTRIES_MAX
from lender.protocol.interpreter import INTERPRETER_VARIABLE

IN_FLIGHT_MAX = 1_000
SHORT_IN_FLIGHT_MAX = 10_000

Value = TypeVar("Value")
Said = TypeVar("Said")

_open: weakref.WeakSet["LenderExecutor"] = weakref.WeakSet()
_threads: set[LoopThread] = set()
"""Those of calls that have not ended; of some the executor may be gone."""


class LenderExecutor(Executor):
    """Calls functions on machines that others lend.

    `with LenderExecutor() as executor: list(executor.map(f, range(1000)))`. Functions and arguments
    travel as pickles (cloudpickle): what they take from modules that a lender does not have must be
    in there, see cloudpickle.register_pickle_by_value. Calls that wait go together as one array.

    A future is pending until its result is there, and can be cancelled for so long. What a call
    prints is printed here when its result comes. Exceptions come with the remote traceback as
    their cause.

    What a lender sends back is a stranger's word: plain data (None, bool, int, float, str, bytes,
    lists, tuples and dicts of them) and Python's own exceptions are read safely. Anything else
    comes as a pickle, and opening one runs what it names: without `trust_results=True` the future
    raises UntrustedValue, or RemoteError where the call raised.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        client: Client | None = None,
        trust_results: bool = False,
        **options: Unpack[FunctionOptions],
    ) -> None:
        """Connect.

        Args:
            max_workers: so many calls are with the fleet at once; unless said 1,000, and up to
                10,000 of such as take some milliseconds at most.
            client: as whom, where to; not entered yet. Its own, unless said: `Client()`.
            trust_results: open pickles that lenders send. It gives every lender that may run a
                call the run of this machine.
            options: of each job, such as `limits=Limits(cores=2)`; see `Client.submit_function`.

        Raises:
            ValueError: max_workers is not positive.
            TypeError: there is no such option.
            KeyFault, NotAdmitted, Unreachable: see `Client`.
        """
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if unknown := options.keys() - FunctionOptions.__annotations__.keys():
            names, known = sorted(unknown), sorted(FunctionOptions.__annotations__)
            raise TypeError(f"LenderExecutor has no option {names}, but {known}")
        self._lock = threading.Lock()
        self._is_shut_down = False
        self._numbers = itertools.count()
        self._thread = LoopThread("lender-executor")
        self._dispatch = Dispatch(
            client or Client(),
            CallQueue(max_workers)
            if max_workers
            else CallQueue(IN_FLIGHT_MAX, SHORT_IN_FLIGHT_MAX),
            _in_one_interpreter(options),
            partial(_end, self._thread),
            trust=trust_results,
        )
        self._thread.open(self._dispatch.open())
        _threads.add(self._thread)
        weakref.finalize(self, _abandon, self._thread, self._dispatch).atexit = False
        _open.add(self)

    def submit(self, fn: Callable[..., Value], /, *args: object, **kwargs: object) -> Future[Value]:
        """Have `fn(*args, **kwargs)` called; see `Executor.submit`.

        What can't be pickled is the future's exception (`Rejected`).

        Raises:
            RuntimeError: the executor was shut down, or this process forked from its own.
        """
        return self._submit([(fn, args, kwargs)], lambda call: Call(pickled(call)))[0]

    def map(
        self,
        fn: Callable[..., Value],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Value]:
        """Return the values of `fn(*one)` for each of what the iterables give, in order.

        The function is pickled once, as it is now; what it holds is sent once with many calls.

        Args:
            fn: see `submit`.
            iterables: the arguments; the shortest one says how many calls there are.
            timeout: seconds from now for each value; then TimeoutError.
            chunksize: so many calls are one task: for calls that take less than some milliseconds.
            buffersize: so many tasks are submitted ahead of what was read; None: all, now.

        Raises:
            ValueError: chunksize or buffersize is not positive.
        """
        if chunksize < 1 or (buffersize is not None and buffersize < 1):
            raise ValueError("chunksize and buffersize must be at least 1")
        ends_at = None if timeout is None else time.monotonic() + timeout
        arguments = zip(*iterables, strict=False)
        if chunksize > 1:
            chunks = iter(lambda: tuple(itertools.islice(arguments, chunksize)), ())
            values = self._values(_for_each(fn), ((one,) for one in chunks), ends_at, buffersize)
            return itertools.chain.from_iterable(values)
        return self._values(fn, arguments, ends_at, buffersize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - its signature
        """Take no more calls; see `Executor.shutdown`.

        Args:
            wait: until all have ended.
            cancel_futures: cancel those that wait here for their turn.
        """
        with self._lock:
            self._is_shut_down = True
        self._close("waiting" if cancel_futures else "nothing", wait=wait)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Wait for all; after Ctrl-C, cancel all."""
        interrupted = exc_type is not None and issubclass(exc_type, KeyboardInterrupt)
        self._close("all" if interrupted else "nothing", wait=True)

    def _close(self, drop: Literal["nothing", "waiting", "all"], *, wait: bool) -> None:
        with self._lock:
            self._is_shut_down = True
            self._thread.call(self._dispatch.close, drop)
        if wait:
            self._thread.join()

    def _submit(self, said: Iterable[Said], call_of: Callable[[Said], Call]) -> list[Future[Any]]:
        futures: list[Future[Any]] = []
        made: dict[int, tuple[Call, CallFuture]] = {}
        for call in said:
            number = next(self._numbers)
            future = CallFuture(self._thread, self._dispatch, number)
            futures.append(future)
            try:
                made[number] = call_of(call), future
            except Rejected as error:
                future.set_exception(error)
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._thread.check_here()
            if made:
                self._thread.call(self._dispatch.take, made)
        return futures

    def _values(
        self,
        fn: Callable[..., Any],
        arguments: Iterator[tuple[object, ...]],
        ends_at: float | None,
        ahead: int | None,
    ) -> Iterator[Any]:
        call_of = calls_of(fn)
        futures = deque(self._submit(itertools.islice(arguments, ahead), call_of))

        def values() -> Iterator[Any]:
            try:
                while futures:
                    # No name holds the value, nor the future: it goes when its taker lets go.
                    yield _result(futures.popleft(), ends_at)
                    futures.extend(self._submit(itertools.islice(arguments, 1), call_of))
            finally:
                for future in futures:
                    future.cancel()

        return values()


def _in_one_interpreter(options: FunctionOptions) -> FunctionOptions:
    """The same, for jobs that go on in the interpreters of those before them, and no others do."""
    env = dict(options.get("env", {}))
    if len(env) < ENV_ENTRIES_MAX:
        env.setdefault(INTERPRETER_VARIABLE, secrets.token_hex(16))
    return {**options, "env": env}


def _for_each(fn: Callable[..., Any]) -> Callable[[Iterable[tuple[Any, ...]]], list[Any]]:
    def call(chunk: Iterable[tuple[Any, ...]]) -> list[Any]:
        return [fn(*one) for one in chunk]

    # A nested function: it travels by value, since a lender can't import this module.
    return call


def _result(future: Future[Any], ends_at: float | None) -> Any:  # noqa: ANN401 - what the function returns
    try:
        try:
            return future.result(None if ends_at is None else ends_at - time.monotonic())
        finally:
            future.cancel()
    finally:
        del future


def _abandon(thread: LoopThread, dispatch: Dispatch) -> None:
    """An executor that nobody holds any more ends when its calls have."""
    thread.call(dispatch.close, "nothing")


def _end(thread: LoopThread) -> None:
    thread.stop()
    _threads.discard(thread)


def _wait_for_all() -> None:
    for executor in list(_open):
        executor.shutdown()
    for thread in list(_threads):
        thread.join()


before_threads_end(_wait_for_all)
