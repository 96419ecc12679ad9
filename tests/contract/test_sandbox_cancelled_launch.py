"""A launch that nobody waits for any more leaves no process and no descriptor behind."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from sandboxes import Workshop, open_folder, until, workshop

from lender.sandbox.processes import tree

__all__ = ["open_folder", "workshop"]  # fixtures

_LONGEST_S = 0.01
_TRIES = 25


async def test_a_cancelled_launch_leaves_no_held_process(workshop: Workshop) -> None:
    launcher = workshop.launcher
    descriptors = _descriptors()
    cancelled = 0
    for number in range(_TRIES):
        launch = asyncio.create_task(launcher.spawn("wasm"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_S * number / _TRIES):
                await asyncio.shield(launch)
        cancelled += launch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await launch).channel.close()
    assert cancelled
    # The launcher takes one word after the other: behind this one none of them waits any more.
    last = await launcher.spawn("wasm")
    last.channel.close()
    await last.ended
    await until(lambda: not tree.children(launcher.pid), "no process is held")
    assert _descriptors() == descriptors


async def test_a_held_process_whose_socket_is_closed_ends(workshop: Workshop) -> None:
    child = await workshop.launcher.spawn("wasm")
    child.channel.close()
    assert (await child.ended).status == 1
    assert not tree.alive(child.root)


async def test_who_gives_up_waiting_for_an_end_takes_no_word_from_others(
    workshop: Workshop,
) -> None:
    sandbox = await workshop.prepared("wasm", "hello")
    (root,) = sandbox.root_pids
    launcher, faults = workshop.launcher, list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    os.kill(launcher.pid, signal.SIGSTOP)  # it can't tell of the end
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sandbox.close(), 1)
    finally:
        os.kill(launcher.pid, signal.SIGCONT)
    other = await asyncio.wait_for(launcher.spawn("wasm"), 30)
    other.channel.close()
    await asyncio.wait_for(other.ended, 30)
    assert not tree.alive(root)
    assert not faults, "what comes in one piece with it would be lost"


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
