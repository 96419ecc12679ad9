"""The owner's log of what ran, as a file: `receipts.jsonl`, and `receipts.head` beside it.

Standard library only: `lender revoke` writes here without lenderd. The form of a line stands in
`receipt_chain`. The head file names the last line, so that cutting lines off the end shows too.
A lock on the file lets processes append one at a time.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lender.state import durable
from lender.state.durable import write_whole
from lender.state.receipt_chain import (
    EMPTY,
    Finding,
    Head,
    Line,
    LineSigner,
    SignatureHolds,
    Verdict,
    compose,
    examine,
    is_number,
    parse,
)

LOCK_S_MAX = 3.0
"""Another process appends for no longer than this, or the log counts as not writable."""

_LOCK_POLL_S = 0.005
_CHUNK_BYTES = 1 << 16
_KEY_LINES_MAX = 100  # unsigned lines at the end among which the last signed one is looked for


class _Known(NamedTuple):
    """Where the file ended when this process last wrote or looked."""

    inode: int
    size_bytes: int
    head: Head


class ReceiptLog:
    """The log at `path`; with a signer every line is signed, without one it says who wrote it.

    Making one reads nothing. What does not follow from the last line that was written here is
    told in a receipt of kind `repair`: a last line that was cut by a crash (moved to
    `receipts.torn`), a head that is missing, a log that was changed meanwhile, a new key. Lines
    missing at the end are not covered up: the next line follows the last one that was known, and
    `examine` shows the gap.

    `head_fault` says why the head file could not be written after the last append, "" if it was:
    the next append writes it again.
    """

    def __init__(self, path: Path, signer: LineSigner | None = None) -> None:
        self._path = path
        self._head_path = path.with_suffix(".head")
        self._torn_path = path.with_suffix(".torn")
        self._signer = signer
        self._known: _Known | None = None
        self.head_fault = ""

    def append(self, fields: Mapping[str, Any]) -> int:
        """Add a receipt, durably; return its number. See `append_all`."""
        return self.append_all((fields,)).seq

    def append_all(self, receipts: Sequence[Mapping[str, Any]]) -> Head:
        """Add receipts with one sync to disk; return the last one's number and hash.

        Args:
            receipts: JSON values; `seq`, `prev`, `lender`, `by`, `hash` and `signature` are the
                log's own. None at all only looks at what the file holds, and repairs it.

        Raises:
            OSError: they could not be made durable: none of them is in the file. TimeoutError,
                which is one, when another process did not let go of the log.
        """
        with self._locked() as handle:
            head, lines = self._followed(handle)
            for fields in receipts:
                head, line = compose(head, fields, self._signer)
                lines.append(line)
            if lines:
                _write(handle, b"".join(lines))
            status = os.fstat(handle)
            self._known = _Known(status.st_ino, status.st_size, head)
            if lines or self.head_fault:
                self._write_head(head)
        return head

    def read(self) -> Iterator[dict[str, Any]]:
        """All receipts in the order of the file; lines that are none are left to `examine`.

        Raises:
            OSError: the file can't be read (a missing one is empty).
        """
        for raw in self._lines():
            line = parse(raw)
            if line is not None:
                yield line.fields

    def read_back(self) -> Iterator[dict[str, Any]]:
        """The same, from the last one on; reads no more of the file than is asked for."""
        for line in self._parsed_back():
            yield line.fields

    def hash_of(self, seq: int) -> str | None:
        """The hash of receipt `seq`; None where the log holds none, or an edited one.

        Raises:
            OSError: the file can't be read.
        """
        for line in self._parsed_back():
            if line.seq == seq and line.hash:
                return line.digest if line.hash == line.digest else None
        return None

    def examine(self, holds: SignatureHolds | None = None, key: str | None = None) -> Verdict:
        """What was edited, removed, reordered or cut off; see `receipt_chain.examine`.

        Raises:
            OSError: the file can't be read.
        """
        return examine(self._lines(), self._read_head(), holds, key)

    def verify(self) -> list[Finding]:
        """The findings that show without a look at the signatures; empty for an untouched log.

        Raises:
            OSError: the file can't be read.
        """
        return self.examine().findings

    def _lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                yield from file
        except FileNotFoundError:
            return

    def _parsed_back(self) -> Iterator[Line]:
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            for raw in _lines_back(handle, os.fstat(handle).st_size):
                line = parse(raw)
                if line is not None:
                    yield line
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, open to append and ours alone."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        deadline = time.monotonic() + LOCK_S_MAX
        while True:
            handle = os.open(self._path, flags, 0o600)
            try:
                _lock(handle, deadline)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), self._path.lstat()):
                        yield handle
                        return
                # It was replaced while we waited: what we hold is no log any more.
            finally:
                os.close(handle)

    def _write_head(self, head: Head) -> None:
        """The receipt is safe in its line already: a head that can't be written loses nothing."""
        content = json.dumps({"seq": head.seq, "hash": head.hash}).encode()
        try:
            write_whole(self._head_path, content)
            self.head_fault = ""
        except OSError as error:
            self.head_fault = error.strerror or str(error)

    def _read_head(self) -> Head | None:
        """The recorded head; None where it is missing or no head."""
        try:
            content = json.loads(self._head_path.read_bytes())
            seq, digest = content["seq"], content["hash"]
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return Head(seq, str(digest)) if is_number(seq) else None

    def _followed(self, handle: int) -> tuple[Head, list[bytes]]:
        """What the next line follows, and the lines to write before it."""
        known, status = self._known, os.fstat(handle)
        if known is not None and known[:2] == (status.st_ino, status.st_size):
            return known.head, []
        torn = self._set_torn_aside(handle, status.st_size)
        size_bytes = status.st_size - len(torn)
        last, recorded = _last(handle, size_bytes), self._read_head()
        notes = []
        if torn:
            digest = hashlib.sha256(torn).hexdigest()
            notes.append(f"{len(torn)} bytes of a cut line set aside (sha256 {digest[:16]})")
        if recorded is None and last != EMPTY:
            notes.append("receipts.head was missing or damaged")
        for head in (recorded, known.head if known else None):
            if head is not None and head.seq > last.seq:
                notes.append(f"receipts {last.seq + 1} to {head.seq} were missing")
                last = head
        if known is None and (note := self._key_note(handle, size_bytes)):
            notes.append(note)
        if known is not None and _last(handle, min(known.size_bytes, size_bytes)) != known.head:
            notes.append(f"receipt {known.head.seq} and before were changed while lenderd ran")
            # To go on from the changed line would vouch for it: the gap stays.
            last = Head(last.seq, known.head.hash)
        lines = []
        for note in notes:
            last, line = compose(last, {"kind": "repair", "note": note}, self._signer)
            lines.append(line)
        return last, lines

    def _key_note(self, handle: int, size_bytes: int) -> str:
        """Says so where the last signed line is not this signer's."""
        if self._signer is None:
            return ""
        for number, raw in enumerate(_lines_back(handle, size_bytes)):
            line = parse(raw)
            if line is not None and line.signature is not None:
                changed = line.lender != self._signer.public_key
                return f"the machine's key was {line.lender} until here" if changed else ""
            if number > _KEY_LINES_MAX:
                break
        return ""

    def _set_torn_aside(self, handle: int, size_bytes: int) -> bytes:
        torn = next(_lines_back(handle, size_bytes), b"")
        if not torn or torn.endswith(b"\n"):
            return b""
        with self._torn_path.open("ab") as aside:
            aside.write(torn + b"\n")
            aside.flush()
            durable.sync(aside.fileno())
        os.ftruncate(handle, size_bytes - len(torn))
        durable.sync(handle)
        return torn


def _lock(handle: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("another process holds the log of receipts") from None
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _write(handle: int, content: bytes) -> None:
    """Append all of it durably, or nothing."""
    size_bytes = os.fstat(handle).st_size
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(handle, left) :]
        durable.sync(handle, content_only=True)
    except OSError:
        os.ftruncate(handle, size_bytes)
        raise


def _last(handle: int, size_bytes: int) -> Head:
    """The last line of these first bytes that has the form of one."""
    for raw in _lines_back(handle, size_bytes):
        line = parse(raw)
        if line is not None and line.hash:
            return Head(line.seq, line.digest)
    return EMPTY


def _lines_back(handle: int, size_bytes: int) -> Iterator[bytes]:
    """The lines of the file's first bytes from the last one on; only that one may lack its end."""
    rest, position = b"", size_bytes
    while position > 0:
        step = min(_CHUNK_BYTES, position)
        position -= step
        rest = os.pread(handle, step, position) + rest
        # The first line may begin further up, unless this is the file's beginning.
        cut = rest.find(b"\n") + 1 if position else 0
        if position and not cut:
            continue
        *whole, end = rest[cut:].split(b"\n")
        if end:
            yield end
        for line in reversed(whole):
            yield line + b"\n"
        rest = rest[:cut]
