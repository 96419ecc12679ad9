"""The readings of the last days on disk, bounded, for `lender policy replay`.

Rows are gathered and written as one block a minute or so; a crash costs the last block. A block
that is torn or unreadable ends its file for readers, and is cut off by the next writer. Nothing
that goes wrong here is a reason to fail: it is said in `fault`, and recording tries again.
"""

import errno
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lender.core.signals import Signals
from lender.daemon.signal_rows import BlockError, Row, pack, unpack

ROWS_PER_BLOCK: Final = 60
BLOCK_S: Final = 300.0
"""A block is also written when its first row is older."""
FILE_BYTES_MAX: Final = 256 << 10
FILES_MAX: Final = 16
"""4 MiB in all: at one reading a second about a week, at one in five more than a month."""

_HEADER: Final = struct.Struct("<HI")
"""Length of a block, and its CRC-32."""

_log = logging.getLogger(__name__)


class SignalHistory:
    """Files `<number>.signals` in one folder, the newest of the highest number."""

    def __init__(self, folder: Path, days: int = 7) -> None:
        """Use `folder`, which is made when the first block is written.

        Args:
            folder: of these files alone.
            days: older files are deleted; 0 deletes all and records nothing.
        """
        self._folder = folder
        self._days = days
        self._rows: list[Row] = []
        self._file: Path | None = None
        self._deleted = False
        self.fault = ""
        """Why the last block is missing, in words; empty: nothing is."""

    def record(self, now: float, signals: Signals) -> None:
        """Keep a reading at `now`, seconds since the epoch. Never raises for a full disk."""
        if self._days == 0:
            self._delete_all()
            return
        self._rows.append((now, signals))
        if len(self._rows) >= ROWS_PER_BLOCK or now - self._rows[0][0] >= BLOCK_S:
            self._write_block()

    def close(self) -> None:
        """Write what was gathered."""
        if self._rows:
            self._write_block()

    def read(self, since: float) -> Iterator[Row]:
        """Yield what was recorded at `since` or later, oldest first.

        Also while a lenderd records: the block that it has not finished is left out.
        """
        for path in self._files():
            try:
                content = path.read_bytes() if path.stat().st_mtime >= since else b""
            except FileNotFoundError:
                continue  # rotated away meanwhile
            for block in _blocks(content):
                try:
                    rows = unpack(block)
                except BlockError:
                    continue  # of another version
                yield from (row for row in rows if row[0] >= since)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.signals"))

    def _write_block(self) -> None:
        rows, self._rows = self._rows, []
        try:
            block = pack(rows)
            framed = _HEADER.pack(len(block), zlib.crc32(block)) + block
            path = self._file or self._begin()
            if path.stat().st_size + len(framed) > FILE_BYTES_MAX:
                path = self._rotate(path)
            # Whatever fails from here on, the next block looks at the file anew.
            self._file = None
            _append(path, framed)
            self._file = path
            self.fault = ""
        except (OSError, ValueError, OverflowError) as error:
            # The last two: a sensor told no number.
            self._file = None
            fault = f"readings are not recorded: {getattr(error, 'strerror', None) or error}"
            if not self.fault:
                _log.warning("%s", fault)
            self.fault = fault

    def _begin(self) -> Path:
        """Return the file to append to, without a torn block at its end."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        files = self._files()
        if not files:
            return self._made(1)
        content = files[-1].read_bytes()
        whole = sum(_HEADER.size + len(block) for block in _blocks(content))
        if whole < len(content):
            os.truncate(files[-1], whole)
        return files[-1]

    def _rotate(self, path: Path) -> Path:
        files = self._files()
        oldest = time.time() - self._days * 86_400
        for index, old in enumerate(files):
            if index + FILES_MAX <= len(files) or old.stat().st_mtime < oldest:
                old.unlink()
        return self._made(int(path.stem) + 1)

    def _delete_all(self) -> None:
        if self._deleted:
            return
        self._deleted = True
        try:
            for path in self._files():
                path.unlink()
        except OSError as error:
            self.fault = f"old readings can't be deleted: {error.strerror}"

    def _made(self, number: int) -> Path:
        path = self._folder / f"{number:08d}.signals"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return path


def _append(path: Path, framed: bytes) -> None:
    """Append without fsync: a power cut may cost the last minutes."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.write(handle, framed) < len(framed):
            raise OSError(errno.ENOSPC, "the disk is full")
    finally:
        os.close(handle)


def _blocks(content: bytes) -> Iterator[bytes]:
    """Yield the blocks of a file up to the first that is torn."""
    at = 0
    while at + _HEADER.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, at)
        block = content[at + _HEADER.size : at + _HEADER.size + length]
        if not block or len(block) < length or zlib.crc32(block) != checksum:
            return
        yield block
        at += _HEADER.size + length
