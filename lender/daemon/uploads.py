"""Stores blobs, however often the line breaks: what a task has made is not lost by that."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from lender.link.errors import (
    JetStreamError,
    LinkError,
    NoRespondersError,
    NotConnectedError,
    OutcomeUnknownError,
)
from lender.protocol.job import BlobRef

PATIENCE_S: Final = 60.0
"""For how long after its first failure an upload is tried again: a server's restart and more."""

_PAUSE_S = 0.5
_UNAVAILABLE = 503


class Store(Protocol):
    """What takes blobs; each call may be made again."""

    async def put_bytes(self, submitter: str, content: bytes) -> BlobRef:
        """Store them in a submitter's bucket; returns how they are found."""

    async def put_stream(self, submitter: str, source: io.BufferedReader) -> BlobRef:
        """Store what a seekable file holds from its start, in the same way."""


class Uploads:
    """A store that is tried again while it can't be reached.

    Raises:
        LinkError: for longer than `PATIENCE_S`, or it refused.
    """

    def __init__(self, store: Store, pause_s: float = _PAUSE_S) -> None:
        self._store = store
        self._pause_s = pause_s

    async def put_bytes(self, submitter: str, content: bytes) -> BlobRef:
        """Store them in a submitter's bucket; returns how they are found."""
        return await self._until_stored(lambda: self._store.put_bytes(submitter, content))

    async def put_stream(self, submitter: str, source: io.BufferedReader) -> BlobRef:
        """Store what a seekable file holds from its start, in the same way."""
        return await self._until_stored(lambda: self._store.put_stream(submitter, source))

    async def _until_stored(self, put: Callable[[], Awaitable[BlobRef]]) -> BlobRef:
        clock = asyncio.get_running_loop().time
        give_up_at: float | None = None
        while True:
            try:
                return await put()
            except LinkError as error:
                give_up_at = give_up_at or clock() + PATIENCE_S
                if not _may_pass(error) or clock() >= give_up_at:
                    raise
            await asyncio.sleep(self._pause_s)


def _may_pass(error: LinkError) -> bool:
    if isinstance(error, JetStreamError):
        return error.code == _UNAVAILABLE
    return isinstance(error, NotConnectedError | OutcomeUnknownError | NoRespondersError)
