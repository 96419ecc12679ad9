"""The cache of blobs that sandboxes read: named by SHA-256, fetched once, verified on arrival."""

import asyncio
from pathlib import Path

from lender.link.blobs import Blobs
from lender.link.objects import BlobError


class InputError(Exception):
    """A blob that the job names can't be had: it is missing, too large or another content.

    Attributes:
        reason: in words, for the submitter.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InputCache:
    """Files `<folder>/<first two hex digits>/<sha256>`, read-only for everybody."""

    def __init__(self, folder: Path, blobs: Blobs) -> None:
        self._folder = folder
        self._blobs = blobs
        self._fetching: dict[str, asyncio.Task[Path]] = {}

    async def fetch(self, sha256: str, size_bytes: int) -> Path:
        """Return the file with this content; concurrent calls for one blob share one transfer.

        Raises:
            InputError: the store has no such blob, or not with this content and size.
            LinkError: the store can't be reached now.
        """
        path = self._folder / sha256[:2] / sha256
        task = self._fetching.get(sha256)
        if task is None:
            if path.exists():
                return _sized(path, size_bytes)
            task = asyncio.create_task(self._transfer(sha256, size_bytes, path))
            self._fetching[sha256] = task
            task.add_done_callback(lambda _: self._fetching.pop(sha256, None))
        return _sized(await asyncio.shield(task), size_bytes)

    async def _transfer(self, sha256: str, size_bytes: int, path: Path) -> Path:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            await self._blobs.get_to(sha256, path, max_bytes=size_bytes)
        except BlobError as error:
            raise InputError(str(error)) from error
        path.chmod(0o444)  # noqa: ASYNC240 - a metadata call
        return path


def _sized(path: Path, size_bytes: int) -> Path:
    actual_bytes = path.stat().st_size
    if actual_bytes != size_bytes:
        raise InputError(f"the blob has {actual_bytes} bytes, the specification says {size_bytes}")
    return path
