"""The cache of blobs that sandboxes read: by submitter and SHA-256, bounded, verified on use."""

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Container
from pathlib import Path
from weakref import WeakValueDictionary

from lender.core.kept_blobs import BlobCopy, KeptBlobs, NoRoomError
from lender.daemon.deletion import delete_soon
from lender.daemon.input_files import Mark, blob_path, read_mark, stamp, take_stock, verify
from lender.link.blobs import BlobError, Blobs, Reference
from lender.protocol.bounds import OFFERED_BLOB_BYTES_MIN, OFFERED_BLOBS_MAX
from lender.state.folder import StateFolder

log = logging.getLogger(__name__)

CACHE_BYTES = 8 << 30
"""Without a setting: several large models, and little beside a desktop's disk."""

DISK_SHARE = 4
"""Without a setting: of a disk that runs full, or a small one, at most one part of so many."""


_OPENED = "opened "
"""Begins the names of files that are no blobs, and count all the same."""


class InputError(Exception):
    """A blob that the job names can't be had.

    Attributes:
        reason: in words, for the submitter.
        invalid: the job itself is at fault: the blob is missing, or has another content or size
            than it says. Otherwise this machine has no room, and another may.
    """

    def __init__(self, reason: str, *, invalid: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.invalid = invalid


Fetch = Callable[[str, Reference], Awaitable[Path]]
MakeRoom = Callable[[BlobCopy, int], Awaitable[None]]


class LeaseInputs:
    """The blobs of one lease: none of them makes room for others before `release`."""

    def __init__(self, fetch: Fetch, make_room: MakeRoom, kept: KeptBlobs, submitter: str) -> None:
        self._fetch = fetch
        self._make_room = make_room
        self._kept = kept
        self._submitter = submitter
        self._held: set[BlobCopy] = set()

    async def fetch(self, wanted: Reference) -> Path:
        """Return the file with this content, mode 0444; its name is good until `release`.

        Raises:
            InputError: the submitter's bucket has no such blob, or not with this content and
                size, or it does not fit.
            LinkError: the store can't be reached now.
            OSError: it can't be kept, or was purged meanwhile.
        """
        blob = BlobCopy(self._submitter, wanted.sha256)
        self._hold(blob)
        return await self._fetch(self._submitter, wanted)

    async def make_room(self, name: str, size_bytes: int) -> None:
        """Have a file of the lease's own, beside the cache, count as kept until `release`.

        Raises:
            InputError: it does not fit.
            OSError: what is to make room can't be deleted.
        """
        copy = BlobCopy(self._submitter, f"{_OPENED}{name}")
        self._hold(copy)
        await self._make_room(copy, size_bytes)

    def release_all_but(self, digests: Container[str]) -> None:
        """Say that of those that were fetched nothing reads any other any more."""
        for blob in [one for one in self._held if one.sha256 not in digests]:
            self._held.remove(blob)
            self._kept.release(blob)

    def release(self) -> None:
        """Say that nothing reads them any more, and files of its own are gone. May be repeated."""
        while self._held:
            blob = self._held.pop()
            self._kept.release(blob)
            if blob.sha256.startswith(_OPENED):
                self._kept.forget(blob)

    def _hold(self, blob: BlobCopy) -> None:
        if blob not in self._held:
            self._held.add(blob)
            self._kept.hold(blob)


class InputCache:
    """Files `cache/<submitter>/sha256/<first two hex digits>/<sha256>`, read-only for everybody.

    Submitters share nothing: what one of them sent can be told or taken away from no other. The
    bound is one for all of them.

    A file is verified whenever a lease asks for it. It is read through the first time after a
    start; from then on it counts as the same while inode, size and both times are, and is read
    through again when they are not. What has another content is deleted and fetched anew. This
    finds whatever was written, cut short or replaced since, by a power cut as well. It finds
    neither a disk that returns other bytes than were written, until the next start, nor what is
    altered after the lease has asked; only this user and root can do that, and sandboxes can't.
    """

    def __init__(self, state: StateFolder, blobs: Blobs, limit_bytes: int | None) -> None:
        """See `open`, which also takes up what lies there."""
        self._state = state
        self._blobs = blobs
        self._limit_bytes = limit_bytes
        self._marks: dict[BlobCopy, Mark] = {}
        self._reading = asyncio.Lock()  # one file at a time: the cores are their owner's
        self._locks: WeakValueDictionary[BlobCopy, asyncio.Lock] = WeakValueDictionary()
        self._kept = KeptBlobs()
        self._coming: set[BlobCopy] = set()

    @classmethod
    async def open(
        cls, state: StateFolder, blobs: Blobs, limit_bytes: int | None = None
    ) -> "InputCache":
        """Take up what an earlier daemon kept, as far as the limit allows, and clear its leavings.

        Args:
            state: locked by this process, so that no other daemon fetches into it.
            blobs: where to fetch from.
            limit_bytes: how much to keep of all submitters together. None: `CACHE_BYTES`, or a
                `DISK_SHARE`th of what the disk would have free without it where that is less.

        Raises:
            OSError: the cache can't be read.
        """
        cache = cls(state, blobs, limit_bytes)
        for blob, size_bytes in await asyncio.to_thread(take_stock, state):
            cache._kept.keep(blob, size_bytes)
        await cache._delete(cache._kept.shrink(cache._limit()))
        return cache

    def largest(self) -> tuple[str, ...]:
        """Return the SHA-256 of the largest blobs that lie there, as many as an offer names."""
        kept = self._kept.largest(OFFERED_BLOBS_MAX, OFFERED_BLOB_BYTES_MIN)
        there = (one for one in kept if one not in self._coming)
        names = (one.sha256 for one in there if not one.sha256.startswith(_OPENED))
        return tuple(dict.fromkeys(names))

    def for_lease(self, submitter: str) -> LeaseInputs:
        """Return what a lease of this submitter fetches its blobs with; it must release them."""
        return LeaseInputs(self._fetch, self._make_room, self._kept, submitter)

    def purge(self, submitter: str) -> None:
        """Forget everything of a submitter whose leases were closed.

        At once for every later `fetch`; the disk space is freed in the background. A transfer
        that is still under way ends with an error, since its folder is gone.
        """
        for blob in [blob for blob in self._kept if blob.submitter == submitter]:
            self._forget(blob)
        delete_soon(self._state.cache / submitter)

    async def _fetch(self, submitter: str, wanted: Reference) -> Path:
        """Calls for one blob take turns, so that the first one's transfer serves all."""
        blob, size_bytes = BlobCopy(submitter, wanted.sha256), wanted.size_bytes
        path = blob_path(self._state, blob)
        async with self._locks.setdefault(blob, asyncio.Lock()):
            mark = self._marks.get(blob)
            if mark is None or mark != read_mark(path):
                mark = await self._verify(blob, path)
                if mark is None:
                    mark = await self._transfer(blob, wanted, path)
                self._marks[blob] = mark
            self._kept.keep(blob, mark.size_bytes)
        if mark.size_bytes != size_bytes:
            said = f"the specification says {size_bytes}"
            raise InputError(f"the blob has {mark.size_bytes} bytes, {said}", invalid=True)
        return path

    async def _make_room(self, blob: BlobCopy, size_bytes: int) -> None:
        await self._delete(self._room_for(blob, size_bytes))

    def _room_for(self, blob: BlobCopy, size_bytes: int) -> list[BlobCopy]:
        """Return what is to be deleted for it."""
        try:
            return self._kept.make_room(blob, size_bytes, self._limit())
        except NoRoomError as error:
            raise InputError(_too_large(blob, size_bytes, error), invalid=False) from error

    async def _verify(self, blob: BlobCopy, path: Path) -> Mark | None:
        if read_mark(path) is None:
            return None
        async with self._reading:
            mark = await asyncio.to_thread(verify, path, blob.sha256)
        if mark is None:
            log.warning("%s was altered: it is fetched again", path)
        return mark

    async def _transfer(self, blob: BlobCopy, wanted: Reference, path: Path) -> Mark:
        dropped = self._room_for(blob, wanted.size_bytes)
        self._coming.add(blob)
        try:
            await self._delete([blob, *dropped])
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._blobs.get_to(blob.submitter, wanted, path)
            return stamp(path)
        except BlobError as error:
            self._forget(blob)
            raise InputError(str(error), invalid=True) from error
        except BaseException:
            self._forget(blob)
            raise
        finally:
            self._coming.discard(blob)

    async def _delete(self, blobs: list[BlobCopy]) -> None:
        """Delete files and wait for their space; other calls miss them from the very start."""
        deletions = []
        for blob in blobs:
            self._marks.pop(blob, None)
            if deletion := delete_soon(blob_path(self._state, blob)):
                deletions.append(deletion)
        if deletions:
            await asyncio.wait(deletions)

    def _forget(self, blob: BlobCopy) -> None:
        self._kept.forget(blob)
        self._marks.pop(blob, None)

    def _limit(self) -> int:
        if self._limit_bytes is not None:
            return self._limit_bytes
        free_bytes = shutil.disk_usage(self._state.cache).free
        return min(CACHE_BYTES, (free_bytes + self._kept.total_bytes) // DISK_SHARE)


def _too_large(blob: BlobCopy, size_bytes: int, error: NoRoomError) -> str:
    keeps = f"this lender keeps at most {error.limit_bytes} bytes of inputs"
    used = f", {error.in_use_bytes} of them for running work" if error.in_use_bytes else ""
    return f"blob {blob.sha256} has {size_bytes} bytes: {keeps}{used}"
