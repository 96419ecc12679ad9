"""The work of lenderd that goes on for as long as it runs: the first that fails ends it."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Tasks of one run.

    Attributes:
        failure: never has a result; the exception is what ended lenderd.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have this go on until it ends by itself, or `close`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)

    def fail(self, error: BaseException) -> None:
        """Let this be what ends lenderd, unless something has before."""
        if not self.failure.done():
            self.failure.set_exception(error)

    async def close(self) -> None:
        """Cancel what still goes on, and wait for its end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)
