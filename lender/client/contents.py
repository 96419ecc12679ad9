"""Programs, inputs, values and outputs: contents that travel as blobs, named by their SHA-256."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from lender.client.errors import ContentFault
from lender.client.insistence import insist
from lender.client.specs import Content
from lender.link.blobs import Blobs
from lender.link.connection import Connection
from lender.link.objects import BlobError
from lender.protocol.job import BlobRef

_SLOWEST_BYTES_PER_S = 100_000
"""A line slower than this is given up: it stretches the time allowed for large contents."""

Result = TypeVar("Result")


class Contents:
    """Stores and fetches contents; both may be repeated, since a name means one content only.

    Every method raises ContentFault (the content is gone, damaged, or can't be read or written
    here), NotAdmitted and Unreachable.
    """

    def __init__(self, connection: Connection, blobs: Blobs, timeout_s: float) -> None:
        """Prepare; `timeout_s` is allowed for a transfer, plus time for its size."""
        self._connection = connection
        self._blobs = blobs
        self._timeout_s = timeout_s

    async def store(self, content: Content) -> BlobRef:
        """Store a file, or bytes, and return its name; what is there already is not sent again."""
        if isinstance(content, bytes):
            size = len(content)
            sha256, size = await self._insist(lambda: self._blobs.put_bytes(content), size)
        else:
            try:
                size = content.stat().st_size
                sha256, size = await self._insist(lambda: self._blobs.put_file(content), size)
            except OSError as error:
                raise ContentFault(
                    f"can't read {content}: {error.strerror}", "name a file that you can read"
                ) from error
        return BlobRef(sha256=sha256, size_bytes=size)

    async def fetch(self, sha256: str, size_bytes: int) -> bytes:
        """Return a content whole and verified."""
        return await self._insist(lambda: self._blobs.get_bytes(sha256, size_bytes), size_bytes)

    async def fetch_into(self, sha256: str, size_bytes: int, path: Path) -> None:
        """Write a content to `path`, whole and verified or not at all."""
        try:
            await self._insist(lambda: self._blobs.get_to(sha256, path, size_bytes), size_bytes)
        except OSError as error:
            raise ContentFault(
                f"can't write {path}: {error.strerror}", "choose another folder"
            ) from error

    async def _insist(self, transfer: Callable[[], Awaitable[Result]], size_bytes: int) -> Result:
        async def attempt() -> Result:
            try:
                return await transfer()
            except BlobError as error:
                raise ContentFault(
                    str(error), "see that its source is whole, and try again"
                ) from error

        allowed_s = self._timeout_s + size_bytes / _SLOWEST_BYTES_PER_S
        return await insist(self._connection, "blobs", attempt, allowed_s)
