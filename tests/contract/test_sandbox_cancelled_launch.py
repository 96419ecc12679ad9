"""A launch that nobody waits for any more leaves no process and no descriptor behind."""

import asyncio
import contextlib
from pathlib import Path

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


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
