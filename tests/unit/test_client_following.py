"""Waiting for a job's end, where a timeout comes together with a message."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import cast

import pytest
from core_world import array_spec

from lender.client.following import Following
from lender.link.api import JetStream
from lender.link.connection import Connection


class _Events:
    """As nats-py waits on Python 3.11: a message that is there goes before a cancellation."""

    async def next_msg(self, timeout: float) -> SimpleNamespace:  # noqa: ASYNC109 - nats-py's
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10 * timeout)
        return SimpleNamespace(headers=None, data=b"")


async def test_a_timeout_that_comes_with_a_message_is_not_lost() -> None:
    nothing = SimpleNamespace()
    following = Following(
        cast("Connection", nothing),
        cast("JetStream", nothing),
        array_spec(2),
        lambda record: (record, frozenset()),
        with_tasks=False,
    )
    following._sweep = None
    following._events = _Events()  # type: ignore[assignment] # as far as it is asked

    async def follow() -> None:
        async with asyncio.timeout(0.01):
            while True:
                await following.more()

    with pytest.raises(TimeoutError):
        await follow()
