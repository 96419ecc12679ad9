"""What goes on in lenderd for as long as it runs, and what of it ends it."""

import asyncio

import pytest

from lender.daemon.background import Background


async def _raise(error: Exception) -> None:
    raise error


async def test_the_first_that_fails_is_what_ended_it() -> None:
    background = Background()
    background.spawn(asyncio.sleep(0))
    background.spawn(_raise(ValueError("first")))
    with pytest.raises(ValueError, match="first"):
        await background.failure
    background.spawn(_raise(ValueError("second")))
    background.fail(ValueError("third"))
    await background.close()
    assert str(background.failure.exception()) == "first"


async def test_what_still_goes_on_is_over_when_it_is_closed_and_that_is_no_failure() -> None:
    background, ended = Background(), asyncio.Event()

    async def go_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    background.spawn(go_on())
    await asyncio.sleep(0)
    await background.close()
    assert ended.is_set()
    assert not background.failure.done()
