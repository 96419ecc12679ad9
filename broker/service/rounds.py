"""Looks through WORK, a page at a time, for what nobody answers for any more."""

import asyncio
import logging
from collections.abc import Callable

from broker.core.events import WorkSeen
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.link.errors import LinkError
from lender.protocol import streams

logger = logging.getLogger(__name__)

LOOK_S = 30.0
"""Between two pages: a round is as long as the queues are deep, and costs next to nothing."""

PAGE = 200
_PAGE_BYTES = 1024 * 1024


async def look_through(
    connection: Connection, tell: Callable[[WorkSeen], None], every_s: float = LOOK_S
) -> None:
    """Tell of all messages, round after round, for ever."""
    jetstream, sequence = JetStream(connection), 1
    while True:
        await asyncio.sleep(every_s)
        try:
            page = await jetstream.get_page(streams.WORK, sequence, PAGE, max_bytes=_PAGE_BYTES)
        except LinkError as error:
            logger.info("WORK can't be read: %s", error)
            continue
        if page.messages:
            tell(WorkSeen(tuple((one.sequence, one.payload) for one in page.messages)))
        more = page.messages and page.num_pending
        sequence = page.messages[-1].sequence + 1 if more else 1
