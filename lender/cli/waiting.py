"""Waiting for a job at a terminal: says what it waits for, and lets go when interrupted."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable
from typing import Any, TypeVar

from lender.cli.connect import LeftBehind
from lender.cli.status_line import ERASE
from lender.client import Client, ClientError, Job
from lender.protocol.strangers_text import visible

LEAVE_AFTER_S = 5.0
"""Between the first Ctrl-C and leaving the job to itself: time for the second."""

_EXPLAIN_EVERY_S = 3.0

Result = TypeVar("Result")


async def attended(
    client: Client, job: Job, work: Awaitable[Result], *, explains: bool = True
) -> Result:
    """Return what `work` returns, while minding the person who waits for it.

    Unless told otherwise it says what the job waits for.

    The first Ctrl-C says how to get or cancel the job, and leaves it alone after five seconds;
    a second one within them cancels it and waits for its end; a third leaves at once.

    Raises:
        LeftBehind: the person left; the job goes on, or its cancellation does.
    """
    running = asyncio.ensure_future(work)
    explaining = asyncio.create_task(_explain(client, job) if explains else asyncio.sleep(0))
    interrupts: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupts.put_nowait, None)
    try:
        if await _first(running, interrupts, None):
            return await running
        _say(
            f"job {job.id} goes on.\n"
            f"  its result: lender get --wait {job.id}\n"
            f"  its end:    lender cancel {job.id}\n"
            f"Ctrl-C again cancels it; without, this command leaves in {LEAVE_AFTER_S:.0f} s."
        )
        if await _first(running, interrupts, LEAVE_AFTER_S):
            return await running
        _say(f"cancelling {job.id}")
        await job.cancel()
        if await _first(running, interrupts, None):
            await asyncio.wait([running])
            _say(f"job {job.id} has ended")
        raise LeftBehind
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        for task in (explaining, running):
            task.cancel()
        await asyncio.gather(explaining, running, return_exceptions=True)


async def _first(
    running: asyncio.Future[Any], interrupts: asyncio.Queue[None], limit_s: float | None
) -> bool:
    """Return True when the work is done first, False on an interrupt.

    Raises:
        LeftBehind: neither within the limit.
    """
    interrupt = asyncio.create_task(interrupts.get())
    both: set[asyncio.Future[Any]] = {running, interrupt}
    try:
        done, _ = await asyncio.wait(both, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        interrupt.cancel()
    if not done:
        raise LeftBehind
    return running in done


async def _explain(client: Client, job: Job) -> None:
    """Say what a job waits for, each time that the answer changes."""
    said = ""
    while True:
        await asyncio.sleep(_EXPLAIN_EVERY_S)
        with contextlib.suppress(ClientError):
            why = await client.why(job)
            if why not in ("", "running", said):
                _say(f"job {job.id}: {why}")
                said = why


def _say(text: str) -> None:
    over_a_bar = ERASE if sys.stderr.isatty() else ""
    print(over_a_bar + visible(text), file=sys.stderr, flush=True)
