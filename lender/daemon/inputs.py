"""The cache of blobs that sandboxes read: by submitter and SHA-256, fetched once, then verified."""

import asyncio
import logging
from pathlib import Path

from lender.link.blobs import Blobs
from lender.link.objects import BlobError
from lender.state.folder import StateFolder
from lender.state.purge import remove, set_aside

log = logging.getLogger(__name__)


class InputError(Exception):
    """A blob that the job names can't be had: it is missing, too large or another content.

    Attributes:
        reason: in words, for the submitter.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InputCache:
    """Files `cache/<submitter>/sha256/<first two hex digits>/<sha256>`, read-only for everybody.

    Submitters share nothing: what one of them sent can be told or taken away from no other.
    """

    def __init__(self, state: StateFolder, blobs: Blobs) -> None:
        self._state = state
        self._blobs = blobs
        self._fetching: dict[tuple[str, str], asyncio.Task[Path]] = {}
        self._removing: set[asyncio.Task[object]] = set()

    async def fetch(self, submitter: str, sha256: str, size_bytes: int) -> Path:
        """Return the file with this content; concurrent calls for one blob share one transfer.

        Raises:
            InputError: the store has no such blob, or not with this content and size.
            LinkError: the store can't be reached now.
            OSError: it can't be kept, or was purged meanwhile.
        """
        path = self._state.inputs(submitter) / sha256[:2] / sha256
        task = self._fetching.get((submitter, sha256))
        if task is None:
            if path.exists():
                return _sized(path, size_bytes)
            task = asyncio.create_task(self._transfer(sha256, size_bytes, path))
            self._fetching[submitter, sha256] = task
            task.add_done_callback(lambda done: self._forget((submitter, sha256), done))
        return _sized(await asyncio.shield(task), size_bytes)

    def purge(self, submitter: str) -> None:
        """Forget everything of a submitter; whoever still waits for a blob of theirs is cancelled.

        At once for every later `fetch`; the disk space is freed in the background.
        """
        for key in [key for key in self._fetching if key[0] == submitter]:
            self._fetching.pop(key).cancel()
        try:
            aside = set_aside(self._state.cache / submitter)
        except OSError as error:
            log.warning("what is cached of %s can't be deleted: %s", submitter, error)
            return
        if aside is not None:
            task: asyncio.Task[object] = asyncio.create_task(asyncio.to_thread(remove, aside))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)

    async def _transfer(self, sha256: str, size_bytes: int, path: Path) -> Path:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            await self._blobs.get_to(sha256, path, max_bytes=size_bytes)
        except BlobError as error:
            raise InputError(str(error)) from error
        path.chmod(0o444)  # noqa: ASYNC240 - a metadata call
        return path

    def _forget(self, key: tuple[str, str], done: asyncio.Task[Path]) -> None:
        if self._fetching.get(key) is done:
            del self._fetching[key]


def _sized(path: Path, size_bytes: int) -> Path:
    actual_bytes = path.stat().st_size
    if actual_bytes != size_bytes:
        raise InputError(f"the blob has {actual_bytes} bytes, the specification says {size_bytes}")
    return path
