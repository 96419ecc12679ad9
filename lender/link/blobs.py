"""Content-addressed blobs in JetStream's object store: an object's name is its SHA-256.

The layout is the standard one (ADR-20), so the object store API of any NATS client reads and
writes the same blobs. Chunks are read by direct access and not through consumers: a consumer per
read would pile up at the server.
"""

import asyncio
import contextlib
import hashlib
import io
import logging
import os
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import BinaryIO

from lender.link import objects
from lender.link.api import JetStream, Page
from lender.link.batch import WRONG_LAST_SEQUENCE
from lender.link.connection import Connection
from lender.link.errors import JetStreamError, LinkError
from lender.link.message import StoredMessage
from lender.link.objects import BlobCorruptError, BlobMissingError, BlobTooLargeError, Entry
from lender.link.publisher import Publisher

logger = logging.getLogger(__name__)

CHUNK_BYTES = 512 * 1024
"""Size of the chunks that we write; any other size is read just as well."""

_CHUNKS_IN_FLIGHT = 16
_PAGE_BYTES = 4 * 1024 * 1024
_PAGE_CHUNKS = 256
_PIECE_BYTES = 4 * 1024 * 1024
_HEADER_ROOM_BYTES = 4096


Source = io.BufferedReader | io.BytesIO


class Blobs:
    """The blobs of one NATS account; memory is bounded, however large a blob is.

    Besides what they name, methods raise what `Publisher` and `JetStream` raise; each may simply
    be called again after an OutcomeUnknownError.
    """

    def __init__(self, connection: Connection, timeout_s: float = 10.0) -> None:
        self._connection = connection
        self._js = JetStream(connection, timeout_s)
        self._publisher = Publisher(
            connection, in_flight_max=_CHUNKS_IN_FLIGHT, timeout_s=timeout_s
        )

    def close(self) -> None:
        """Stop; a put still under way fails as unknown."""
        self._publisher.close()

    async def exists(self, sha256: str) -> bool:
        """Tell whether the store holds the blob."""
        return await self._entry(sha256) is not None

    async def put_file(self, path: Path) -> tuple[str, int]:
        """Store a file's content, unless the store holds it already; returns (sha256, size).

        Raises:
            OSError: the file can't be read.
            BlobCorruptError: the file changed while it was being read; nothing was stored.
        """
        with path.open("rb") as file:
            return await self._put(file)

    async def put_bytes(self, content: bytes) -> tuple[str, int]:
        """Store the bytes, unless the store holds them already; returns (sha256, size)."""
        return await self._put(io.BytesIO(content))

    async def put_stream(self, source: io.BufferedReader) -> tuple[str, int]:
        """Store what a seekable file holds from its start; returns (sha256, size).

        Raises:
            OSError: it can't be read.
            BlobCorruptError: it changed while it was being read; nothing was stored.
        """
        return await self._put(source)

    async def get_bytes(self, sha256: str, max_bytes: int) -> bytes:
        """Return a blob's content.

        Raises:
            BlobMissingError, BlobCorruptError, BlobTooLargeError.
        """
        content = io.BytesIO()
        await self._get(sha256, content, max_bytes)
        return content.getvalue()

    async def get_to(self, sha256: str, path: Path, max_bytes: int) -> int:
        """Write a blob's content to `path`, whole and verified or not at all; returns its size.

        Raises:
            BlobMissingError, BlobCorruptError, BlobTooLargeError: see there.
            OSError: it can't be written.
        """
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            # Opened right here: a thread would open it even after a cancellation.
            with part.open("xb") as file:
                size = await self._get(sha256, file, max_bytes)
                await asyncio.to_thread(_sync, file)
            await asyncio.to_thread(part.replace, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return size

    async def _put(self, source: Source) -> tuple[str, int]:
        sha256, size = await asyncio.to_thread(_digest, source)
        known = await self._last_meta(sha256)
        if known is not None and _holds(sha256, known):
            return sha256, size
        nuid = f"{self._connection.inbox.id}{secrets.token_hex(8)}"
        try:
            chunks = await self._put_chunks(source, nuid, sha256, size)
            headers = {
                "Nats-Rollup": "sub",
                "Nats-Expected-Last-Subject-Sequence": str(known.sequence if known else 0),
            }
            meta = objects.meta(sha256, nuid, size, chunks, CHUNK_BYTES)
            await (await self._publisher.publish(objects.meta_subject(sha256), meta, headers))
        except BaseException as error:
            await self._purge_chunks(nuid)
            lost_race = isinstance(error, JetStreamError) and error.err_code == WRONG_LAST_SEQUENCE
            if not (lost_race and await self.exists(sha256)):
                raise
        return sha256, size

    async def _put_chunks(self, source: Source, nuid: str, sha256: str, size: int) -> int:
        """Publish the chunks, a bounded number in flight; returns how many, all stored."""
        subject = objects.chunk_subject(nuid)
        chunk_bytes = min(CHUNK_BYTES, self._connection.nc.max_payload - _HEADER_ROOM_BYTES)
        digest = hashlib.sha256()
        in_flight: deque[asyncio.Future[int]] = deque()
        chunks = sent_bytes = 0

        def read() -> list[bytes]:
            pieces = []
            for _ in range(max(1, _PIECE_BYTES // chunk_bytes)):
                piece = source.read(chunk_bytes)
                if not piece:
                    break
                digest.update(piece)
                pieces.append(piece)
            return pieces

        try:
            while pieces := await asyncio.to_thread(read):
                for piece in pieces:
                    in_flight.append(await self._publisher.publish(subject, piece))
                    chunks += 1
                    sent_bytes += len(piece)
                    while in_flight and in_flight[0].done():
                        in_flight.popleft().result()
            for future in tuple(in_flight):
                await future
        finally:
            _disown(in_flight)
        if digest.hexdigest() != sha256 or sent_bytes != size:
            raise BlobCorruptError(sha256, "the file changed while it was read")
        return chunks

    async def _purge_chunks(self, nuid: str) -> None:
        """Take back the chunks of a put that failed; where that fails too, they age out."""
        try:
            await self._js.purge(objects.STREAM, objects.chunk_subject(nuid))
        except LinkError as error:
            logger.info("chunks of a failed put stay behind: %s", error)

    async def _get(self, sha256: str, target: BinaryIO, max_bytes: int) -> int:
        """Append a blob to `target`, verified; a blob replaced meanwhile is read anew."""
        start = target.tell()
        entry = await self._entry(sha256)
        while True:
            if entry is None:
                raise BlobMissingError(sha256, "the store does not hold it")
            if entry.size > max_bytes:
                raise BlobTooLargeError(sha256, f"{entry.size} bytes, {max_bytes} allowed")
            try:
                await self._get_chunks(sha256, entry, target)
            except BlobCorruptError:
                replaced = await self._entry(sha256)
                if replaced == entry:
                    raise
                target.seek(start)
                target.truncate()
                entry = replaced
            else:
                return entry.size

    async def _get_chunks(self, sha256: str, entry: Entry, target: BinaryIO) -> None:
        digest = hashlib.sha256()
        received = 0

        def write(messages: list[StoredMessage]) -> None:
            for message in messages:
                digest.update(message.payload)
                target.write(message.payload)

        async with contextlib.aclosing(self._pages(entry)) as pages:
            async for messages in pages:
                received += sum(len(message.payload) for message in messages)
                if received > entry.size:
                    break
                await asyncio.to_thread(write, messages)
        if received != entry.size:
            raise BlobCorruptError(sha256, f"{received} bytes are there, not {entry.size}")
        if digest.hexdigest() != sha256:
            raise BlobCorruptError(sha256, "its content has another digest")

    async def _pages(self, entry: Entry) -> AsyncGenerator[list[StoredMessage]]:
        """Yield the chunks in order, the next page already under way."""
        subject = objects.chunk_subject(entry.nuid)

        def fetch(sequence: int) -> asyncio.Task[Page]:
            page = self._js.get_page(
                objects.STREAM, sequence, _PAGE_CHUNKS, subject=subject, max_bytes=_PAGE_BYTES
            )
            return asyncio.get_running_loop().create_task(page)

        fetching = fetch(1) if entry.size else None
        try:
            while fetching is not None:
                page = await fetching
                fetching = (
                    fetch(page.messages[-1].sequence + 1)
                    if page.num_pending and page.messages
                    else None
                )
                yield page.messages
        finally:
            if fetching is not None:
                fetching.cancel()

    async def _entry(self, sha256: str) -> Entry | None:
        meta = await self._last_meta(sha256)
        return objects.entry(sha256, meta) if meta is not None else None

    async def _last_meta(self, sha256: str) -> StoredMessage | None:
        return await self._js.get_last(objects.STREAM, objects.meta_subject(sha256))


def _holds(sha256: str, meta: StoredMessage) -> bool:
    try:
        return objects.entry(sha256, meta) is not None
    except BlobCorruptError:
        return False  # putting the blob again mends it


def _digest(source: Source) -> tuple[str, int]:
    """Return (sha256, size) of a seekable file, which is left at its start."""
    sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    return sha256, size


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _disown(futures: Iterable[asyncio.Future[int]]) -> None:
    """Leave futures to themselves: a failure among them is known already."""
    for future in futures:
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
