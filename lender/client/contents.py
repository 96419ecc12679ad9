"""Programs, inputs, values and outputs: contents that travel as blobs, named by their SHA-256."""

import asyncio
import shutil
import stat
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from lender.client.errors import ContentFault, NotAdmitted
from lender.client.insistence import insist
from lender.client.specs import Content
from lender.link.blobs import BlobError, Blobs, BucketFullError, Reference, Told
from lender.link.connection import Connection
from lender.link.errors import NoRespondersError
from lender.protocol.job import BlobRef

_SLOWEST_BYTES_PER_S = 100_000
"""A line slower than this is given up: it stretches the time allowed for large contents."""

_BUCKET_WITHIN_S = 10.0
"""A broker makes the bucket of who is allowed within a second; a cluster may be electing."""

_KNOWN_S = 600.0
_KNOWN_MAX = 1024
_KNOWN_BYTES_MAX = 1 << 20
"""What is small and known to be there is not asked for again for so long: it is kept for days."""

_STORED, _LEFT = "blob.", "out."
"""Begin the subjects of what submitters store, and of what lenders leave."""

_NAME_ANOTHER = "name a file that you can read"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a content has come on its way to the fleet, or from there.

    Attributes:
        name: of its file here; empty for what is none (a value, a function).
        to_fleet: it is being stored, not fetched.
    """

    name: str
    to_fleet: bool
    done_bytes: int
    total_bytes: int


def check_is_file(path: Path) -> None:
    """See that it can be read twice, from its start to an end: a pipe can't, nor /dev/zero.

    Raises:
        ContentFault: it is none, or is not there.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: no file can be called so
        reason = error.strerror if isinstance(error, OSError) else error
        raise ContentFault(f"can't read {path}: {reason}", _NAME_ANOTHER) from error
    if not stat.S_ISREG(mode):
        reason = "Is a directory" if stat.S_ISDIR(mode) else "it is a pipe, a device or a socket"
        raise ContentFault(f"can't read {path}: {reason}", _NAME_ANOTHER)


class Contents:
    """Stores and fetches contents of one submitter's jobs.

    Both may be repeated, since a name means one content only.

    Every method raises ContentFault (the content is gone, damaged, or can't be read or written
    here), NotAdmitted and Unreachable.
    """

    def __init__(
        self,
        connection: Connection,
        blobs: Blobs,
        submitter: str,
        timeout_s: float,
        told: Callable[[Transfer], None],
    ) -> None:
        """Prepare; `timeout_s` is allowed for a transfer, plus time for its size.

        `told` is called from time to time while one goes on, and at its end.
        """
        self._told = told
        self._connection = connection
        self._blobs = blobs
        self._submitter = submitter
        self._timeout_s = timeout_s
        self._known: OrderedDict[bytes, tuple[float, BlobRef]] = OrderedDict()

    async def store(self, content: Content, name: str = "") -> BlobRef:
        """Store a file, or bytes, and return its name; what is there already is not sent again.

        `name` is what people call it, where that is not its file's name.
        """
        blobs, mine = self._blobs, self._submitter
        if isinstance(content, bytes) and len(content) <= _KNOWN_BYTES_MAX:
            return await self._store_once(content, name)
        if isinstance(content, bytes):
            return await self._put(content, name)
        try:
            size = content.stat().st_size
            told = self._teller(name or content.name, size, to_fleet=True)
            return await self._insist(lambda: blobs.put_file(mine, content, told), size, _STORED)
        except OSError as error:
            raise ContentFault(f"can't read {content}: {error.strerror}", _NAME_ANOTHER) from error

    async def _store_once(self, content: bytes, name: str) -> BlobRef:
        digest, now = sha256(content).digest(), asyncio.get_running_loop().time()
        at, stored = self._known.get(digest, (0.0, None))
        if stored is None or now > at + _KNOWN_S:
            stored = await self._put(content, name)
            self._known[digest] = now, stored
            self._known.move_to_end(digest)
            if len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        return stored

    async def _put(self, content: bytes, name: str) -> BlobRef:
        blobs, mine, size = self._blobs, self._submitter, len(content)
        told = self._teller(name, size, to_fleet=True)
        return await self._insist(lambda: blobs.put_bytes(mine, content, told), size, _STORED)

    async def fetch(self, blob: Reference) -> bytes:
        """Return a content whole and verified."""
        blobs, mine, place = self._blobs, self._submitter, _LEFT if blob.by else _STORED
        told = self._teller("", blob.size_bytes, to_fleet=False)
        return await self._insist(lambda: blobs.get_bytes(mine, blob, told), blob.size_bytes, place)

    async def fetch_into(self, blob: Reference, path: Path) -> None:
        """Write a content to `path`, whole and verified or not at all."""
        blobs, mine, place = self._blobs, self._submitter, _LEFT if blob.by else _STORED
        told = self._teller(path.name, blob.size_bytes, to_fleet=False)
        try:
            await self._insist(lambda: blobs.get_to(mine, blob, path, told), blob.size_bytes, place)
        except OSError as error:
            raise ContentFault(
                f"can't write {path}: {error.strerror}", "choose another folder"
            ) from error

    async def renew(self, blob: Reference) -> BlobRef:
        """Store anew what is there yet, as it was, and return its new name."""
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="lender-"))
        try:
            await self.fetch_into(blob, folder / blob.sha256)
            return await self.store(folder / blob.sha256)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _teller(self, name: str, total_bytes: int, *, to_fleet: bool) -> Told:
        return lambda done_bytes: self._told(Transfer(name, to_fleet, done_bytes, total_bytes))

    async def _insist(
        self, transfer: Callable[[], Awaitable[Result]], size_bytes: int, place: str
    ) -> Result:
        now = asyncio.get_running_loop().time
        began = now()

        async def attempt() -> Result:
            try:
                return await transfer()
            except BucketFullError as error:
                raise ContentFault(str(error), "store it again when others are gone") from error
            except BlobError as error:
                raise ContentFault(
                    str(error), "see that its source is whole, and try again"
                ) from error
            except NoRespondersError as error:
                if now() < began + min(self._timeout_s / 2, _BUCKET_WITHIN_S):
                    raise
                raise NotAdmitted(
                    "there is no bucket for your contents",
                    "have the operator run `lender-broker allow NAME` with your public key while "
                    "a broker serves, which then makes one",
                ) from error

        allowed_s = self._timeout_s + size_bytes / _SLOWEST_BYTES_PER_S
        return await insist(self._connection, place, attempt, allowed_s)
