"""Contents in submitters' buckets: in pieces, each under a subject that says what it holds.

A piece's subject names the bucket, who stores it, the SHA-256 of the whole and the piece's number
(`subjects.blob`). The server takes one message for a subject, and lets everybody write in an area
of their own only: so nobody replaces anything, and storing a content again finds the pieces that
are there. The last piece is stored when all others are, so that it stands for the whole. All of
them age out, whoever still uses them: so they are stored anew in each week, at another place.
docs/decisions/0026-identity.md has why this is not the object store of NATS.
"""

import asyncio
import hashlib
import io
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from lender.link.api import JetStream
from lender.link.batch import SUBJECT_TAKEN, is_full
from lender.link.connection import Connection
from lender.link.errors import JetStreamError, LinkError, passing
from lender.link.message import StoredMessage
from lender.link.publisher import Publisher
from lender.protocol import streams, subjects
from lender.protocol.bounds import PIECE_BYTES
from lender.protocol.job import BlobRef, week_of

_IN_FLIGHT = 16
_READ_AHEAD = 8
_READ_AT_ONCE = 8

LAG_PAUSES_S = (0.1, 0.4, 1.0)
"""In a cluster a piece that was just stored may not have come to whichever server answers: of 900
that were asked for at once 7 had not. What is not there after these is missing."""

_AGAIN_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 10.0)
"""A transfer that is under way outlives a line that breaks, and a server's restart, so long."""

Source = io.BufferedReader | io.BytesIO
Subject = Callable[[int], str]
Told = Callable[[int], None]
"""Called with how many bytes of a content have come through by now."""


def nobody(_done_bytes: int) -> None:
    """Nobody is told."""


class BlobError(LinkError):
    """Something is wrong with a content; `sha256` says which."""

    def __init__(self, sha256: str, reason: str) -> None:
        super().__init__(f"blob {sha256}: {reason}")
        self.sha256 = sha256


class BlobMissingError(BlobError):
    """The bucket does not hold it, or not all of it; mend: store it again."""


class BlobCorruptError(BlobError):
    """What the bucket holds under this name, or what was to be stored, is something else."""


class BucketFullError(BlobError):
    """As much is stored for the submitter as its operator allows."""


class Reference(Protocol):
    """What names a content: a `BlobRef`, an input, an output, a large value."""

    @property
    def sha256(self) -> str:
        """Of the whole content, lower-case hexadecimal."""

    @property
    def size_bytes(self) -> int:
        """Of the whole content."""

    @property
    def by(self) -> str | None:
        """Who stored it; None: the submitter in whose bucket it is."""

    @property
    def week(self) -> int | None:
        """In which it was stored; None: by an earlier version."""


class _Outline(NamedTuple):
    """A content, and each of its pieces, as a first reading found them."""

    sha256: str
    size_bytes: int
    pieces: list[bytes]
    """Digests."""


class Blobs:
    """The contents that one client stores and reads; memory is bounded, however large they are.

    Besides what they name, methods raise what `Publisher` and `JetStream` raise: NoRespondersError
    where there is no such bucket. Each may simply be called again.
    """

    def __init__(
        self,
        connection: Connection,
        author: str,
        timeout_s: float = 10.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            connection: as whom the server knows `author`.
            author: public key of this client: a submitter or a lender.
            timeout_s: for the answer to each piece.
            now: the clock, seconds since the epoch.
        """
        self._author = author
        self._now = now
        self._js = JetStream(connection, timeout_s)
        self._publisher = Publisher(connection, in_flight_max=_IN_FLIGHT, timeout_s=timeout_s)

    def close(self) -> None:
        """Stop; a put still under way fails as unknown."""
        self._publisher.close()

    async def put_file(self, submitter: str, path: Path, told: Told = nobody) -> BlobRef:
        """Store a file's content in a submitter's bucket, unless it is there; returns its name.

        `told` hears first of none of it: the file is read through before anything is sent.

        What was stored in another week is not looked for: it may be gone before it is read.

        Raises:
            OSError: the file can't be read.
            BlobCorruptError: the file changed while it was being read.
            BucketFullError: no more fits in.
        """
        with path.open("rb") as file:
            return await self._put(submitter, file, told)

    async def put_bytes(self, submitter: str, content: bytes, told: Told = nobody) -> BlobRef:
        """Store the bytes, as `put_file` does."""
        return await self._put(submitter, io.BytesIO(content), told)

    async def put_stream(self, submitter: str, source: io.BufferedReader) -> BlobRef:
        """Store what a seekable file holds from its start, as `put_file` does."""
        return await self._put(submitter, source, nobody)

    async def get_bytes(self, submitter: str, blob: Reference, told: Told = nobody) -> bytes:
        """Return a content from a submitter's bucket, whole and verified.

        Raises:
            BlobMissingError, BlobCorruptError.
        """
        content = io.BytesIO()
        await self._get(submitter, blob, content, told)
        return content.getvalue()

    async def get_to(
        self, submitter: str, blob: Reference, path: Path, told: Told = nobody
    ) -> None:
        """Write a content to `path`, whole and verified or not at all.

        Raises:
            BlobMissingError, BlobCorruptError: see there.
            OSError: it can't be written.
        """
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            # Opened right here: a thread would open it even after a cancellation.
            with part.open("xb") as file:
                await self._get(submitter, blob, file, told)
                await asyncio.to_thread(_sync, file)
            await asyncio.to_thread(part.replace, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    async def _put(self, submitter: str, source: Source, told: Told) -> BlobRef:
        told(0)
        outline = await asyncio.to_thread(_outline, source)
        by = None if submitter == self._author else self._author
        week = week_of(self._now())
        ref = BlobRef(sha256=outline.sha256, size_bytes=outline.size_bytes, by=by, week=week)
        stream, subject = _place(submitter, ref)
        last = len(outline.pieces) - 1
        if last > 0:
            if await self._is_whole(stream, subject(last), outline):
                told(ref.size_bytes)
                return ref
            first = await self._first_missing(stream, subject, last)
            await self._store(source, subject, outline, range(first, last), told)
        if last >= 0:
            await self._store(source, subject, outline, range(last, last + 1), told)
        return ref

    async def _is_whole(self, stream: str, last: str, outline: _Outline) -> bool:
        stored = await self._js.get_last(stream, last)
        if stored is None:
            return False
        if hashlib.sha256(stored.payload).digest() != outline.pieces[-1]:
            raise BlobCorruptError(outline.sha256, "we have stored something else under this name")
        return True

    async def _first_missing(self, stream: str, subject: Subject, count: int) -> int:
        """Return a piece from which on to store, where an earlier try may have left some.

        They were sent in their order, and one is not sent before all but the last `_IN_FLIGHT` are
        there: so many before the first that is found missing may be missing, too.
        """
        there, missing = -1, count
        if count <= _IN_FLIGHT or await self._js.get_last(stream, subject(0)) is None:
            return 0
        while missing - there > 1:
            middle = (there + missing) // 2
            if await self._js.get_last(stream, subject(middle)) is None:
                missing = middle
            else:
                there = middle
        return max(0, missing - _IN_FLIGHT)

    async def _store(
        self, source: Source, subject: Subject, outline: _Outline, numbers: range, told: Told
    ) -> None:
        """Store pieces, a bounded number in flight; returns when all are there."""
        in_flight: deque[asyncio.Future[int]] = deque()
        there = numbers.start

        async def take_oldest() -> None:
            nonlocal there
            await _stored(in_flight[0], outline.sha256)
            in_flight.popleft()
            there += 1
            told(min(there * PIECE_BYTES, outline.size_bytes))

        try:
            for first in numbers[::_READ_AT_ONCE]:
                some = range(first, min(first + _READ_AT_ONCE, numbers.stop))
                for number, piece in await asyncio.to_thread(_pieces, source, outline, some):
                    in_flight.append(await self._publisher.publish(subject(number), piece))
                    while in_flight and in_flight[0].done():
                        await take_oldest()
            while in_flight:
                await take_oldest()
        finally:
            _disown(in_flight)

    async def _get(self, submitter: str, blob: Reference, target: BinaryIO, told: Told) -> None:
        """Append a content to `target`, verified."""
        stream, subject = _place(submitter, blob)
        count = -(-blob.size_bytes // PIECE_BYTES)
        asked = (self._read(stream, subject, number) for number in range(count))
        digest = hashlib.sha256()

        def take(payload: bytes) -> None:
            digest.update(payload)
            target.write(payload)

        reading = deque(map(asyncio.ensure_future, islice(asked, _READ_AHEAD)))
        try:
            for number in range(count):
                message = await reading[0]
                reading.popleft()
                reading.extend(map(asyncio.ensure_future, islice(asked, 1)))
                size_bytes = min(PIECE_BYTES, blob.size_bytes - number * PIECE_BYTES)
                await asyncio.to_thread(take, _piece(blob.sha256, number, message, size_bytes))
                told(number * PIECE_BYTES + size_bytes)
        finally:
            for one in reading:
                one.cancel()
            _disown(reading)
        if digest.hexdigest() != blob.sha256:
            raise BlobCorruptError(blob.sha256, "its content has another digest")

    async def _read(self, stream: str, subject: Subject, number: int) -> StoredMessage | None:
        """Return a piece; one behind the first is asked for again where the line breaks."""
        for pause_s in _AGAIN_S if number else ():
            try:
                return await self._find(stream, subject(number))
            except LinkError as error:
                if not passing(error):
                    raise
            await asyncio.sleep(pause_s)
        return await self._find(stream, subject(number))

    async def _find(self, stream: str, subject: str) -> StoredMessage | None:
        """Return a piece, None if it is missing for certain."""
        for pause_s in LAG_PAUSES_S:
            if (found := await self._js.get_last(stream, subject)) is not None:
                return found
            await asyncio.sleep(pause_s)
        return await self._js.get_last(stream, subject)


def _place(submitter: str, blob: Reference) -> tuple[str, Subject]:
    """Return the stream that holds a content, and the subject of each of its pieces."""
    by, sha256 = blob.by or submitter, blob.sha256
    if by != submitter and blob.week is None:
        return streams.bucket(submitter), partial(subjects.former_blob, submitter, by, sha256)
    stream = streams.bucket(submitter) if by == submitter else streams.left(submitter)
    return stream, partial(subjects.blob, submitter, by, sha256, week=blob.week)


def _piece(sha256: str, number: int, message: StoredMessage | None, size_bytes: int) -> bytes:
    if message is None:
        what = f"its piece {number} is missing" if number else "the bucket does not hold it"
        raise BlobMissingError(sha256, what)
    if len(message.payload) != size_bytes:
        found = f"{len(message.payload)} bytes, not {size_bytes}"
        raise BlobCorruptError(sha256, f"its piece {number} has {found}")
    return message.payload


async def _stored(storing: asyncio.Future[int], sha256: str) -> None:
    """Wait until a piece is there; it may have been before."""
    try:
        await storing
    except JetStreamError as error:
        if is_full(error):
            raise BucketFullError(
                sha256,
                "the submitter's bucket for it is full: each content is kept for 16 days, and the "
                "operator may allow more (`lender-broker allow NAME --stored`)",
            ) from error
        if error.err_code != SUBJECT_TAKEN:
            raise


def _outline(source: Source) -> _Outline:
    """Read a seekable file through, from its start."""
    whole, pieces, size_bytes = hashlib.sha256(), [], 0
    source.seek(0)
    while piece := source.read(PIECE_BYTES):
        whole.update(piece)
        pieces.append(hashlib.sha256(piece).digest())
        size_bytes += len(piece)
    return _Outline(whole.hexdigest(), size_bytes, pieces)


def _pieces(source: Source, outline: _Outline, numbers: range) -> list[tuple[int, bytes]]:
    """Read pieces again. What has changed is not to be stored: it could not be replaced."""
    source.seek(numbers.start * PIECE_BYTES)
    found = [(number, source.read(PIECE_BYTES)) for number in numbers]
    if any(hashlib.sha256(piece).digest() != outline.pieces[number] for number, piece in found):
        raise BlobCorruptError(outline.sha256, "the file changed while it was read")
    return found


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _disown(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Leave futures to themselves: a failure among them is known already."""
    for future in futures:
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
