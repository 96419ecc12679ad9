"""Repeat what may be repeated until it is done, the server forbids it, or time is up."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TypeVar

from lender.client.errors import NotAdmitted, Unreachable
from lender.client.listening import closed
from lender.link.connection import Connection
from lender.link.errors import LinkError

logger = logging.getLogger(__name__)

_PAUSE_S = 0.2

Result = TypeVar("Result")


async def insist(
    connection: Connection,
    subject: str,
    attempt: Callable[[], Coroutine[None, None, Result]],
    timeout_s: float,
) -> Result:
    """Return what `attempt` returns once it raises no LinkError any more.

    Args:
        connection: asked for the server's own complaint, since it sends those apart.
        subject: what the attempt publishes to or reads, for the messages.
        attempt: may be repeated, whatever became of the earlier ones.
        timeout_s: bound on all attempts together.

    Raises:
        NotAdmitted: the server forbids this subject to us.
        Unreachable: time is up, or the connection is closed for good; the outcome of the last
            attempt may be unknown.
    """
    complaint = connection.last_error
    last: LinkError | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                trying = asyncio.ensure_future(attempt())
                try:
                    while not trying.done():
                        await asyncio.wait({trying}, timeout=_PAUSE_S)
                        if connection.last_error is not complaint:
                            check_allowed(connection, subject)
                    return await trying
                except LinkError as error:
                    if connection.nc.is_closed:
                        raise closed() from error
                    last = error
                finally:
                    trying.cancel()
                logger.info("%s: %s; trying again", subject, last)
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        raise Unreachable(
            f"{subject}: no success within {timeout_s:g} s ({last or 'no answer'})",
            "check that NATS and the broker run, then do the same again: that is always safe",
        ) from last


def check_allowed(connection: Connection, subject: str) -> None:
    """Stop waiting for an answer that the server, as it has just said, will never give.

    Raises:
        NotAdmitted: its last complaint forbids the subject.
    """
    text = str(connection.last_error).lower()
    if "permissions violation" in text and subject.lower() in text:
        raise NotAdmitted(
            f"the server forbids it ({text})",
            "have the operator run `lender-broker allow NAME` with your public key",
        )
