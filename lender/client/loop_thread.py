"""An event loop in a thread of its own, for those who don't have one."""

import asyncio
import atexit
import contextlib
import importlib
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from enum import Enum
from typing import Any, TypeVar

Result = TypeVar("Result")


class _End(Enum):
    REACHED = True


class LoopThread:
    """A loop that runs until it is stopped; it never keeps an interpreter up."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self.loop = asyncio.new_event_loop()
        # Taken once more by what is collected as garbage meanwhile.
        self._lock = threading.RLock()
        self._stopped = False
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Have it done there; returns, or raises, what comes of it.

        An interruption (Ctrl-C) of the wait cancels it.

        Raises:
            RuntimeError: the thread was stopped, or is another process's.
        """
        future = self._start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def open(self, work: Coroutine[Any, Any, object]) -> None:
        """Have done there what comes before all else; where that fails the thread ends."""
        try:
            self.run(work)
        except BaseException:
            self.stop()
            self.join()
            raise

    def iterate(self, items: AsyncIterator[Result]) -> Iterator[Result]:
        """Yield what an asynchronous iterator of there yields; it ends with this one."""

        async def following() -> Result | _End:
            async for one in items:
                return one
            return _End.REACHED

        try:
            while not isinstance(one := self.run(following()), _End):
                yield one
        finally:
            if isinstance(items, AsyncGenerator):
                # Not waited for: a collector of garbage may be in the loop's own thread. Where
                # the thread was stopped, the loop has closed it.
                with contextlib.suppress(RuntimeError):
                    self._start(items.aclose())

    @property
    def is_here(self) -> bool:
        """Whether this process has started it: a fork takes no thread along."""
        return os.getpid() == self._pid

    def check_here(self) -> None:
        """See that it is here: else whoever waits for it would do so for ever.

        Raises:
            RuntimeError: it is that of the process that this one was forked from.
        """
        if not self.is_here:
            raise RuntimeError("it belongs to another process: make one after the fork")

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have it called there, soon; never where the thread was stopped."""
        with self._lock:
            if not self._stopped:
                self.loop.call_soon_threadsafe(function, *arguments)

    def stop(self) -> None:
        """End what still runs there, and the thread; may be repeated."""
        with self._lock:
            self.call(self.loop.stop)
            self._stopped = True

    def join(self) -> None:
        """Wait until the thread has ended. Not from within it."""
        self._thread.join()

    def _start(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        with self._lock:
            try:
                self.check_here()
                if self._stopped:
                    raise RuntimeError("it was closed")  # noqa: TRY301 - as the line before
            except RuntimeError:
                work.close()
                raise
            return asyncio.run_coroutine_threadsafe(work, self.loop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()


def before_threads_end(call: Callable[[], object]) -> None:
    """Have something called when the interpreter ends, while threads can still be started.

    The hook of concurrent.futures' own pools is not public (`threading._register_atexit`, CPython
    bpo-39812). Where there is none it is called a step later.
    """
    # What is registered last is called first, and the client's work needs these threads.
    importlib.import_module("concurrent.futures.thread")
    getattr(threading, "_register_atexit", atexit.register)(call)
