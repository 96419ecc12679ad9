"""The owner's log of what ran: append-only JSON lines, each bound to the one before by its hash.

Standard library only. A line is `{"seq": n, "prev": <hash of line n-1>, ...fields, "hash": h}`
with h the SHA-256 of the line's exact bytes without its own hash. `receipts.head` beside it names
the last line, so that cutting lines off the end shows too. One process appends at a time.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lender.daemon.durable import write_whole

FIRST_PREV = "0" * 64
"""What the first line follows."""

_TAIL_BYTES = 1 << 20
_HASH_FIELD_BYTES = len(b',"hash":""}') + 64


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an untouched log does not show.

    Attributes:
        line: counted from 1; one past the last where lines are missing at the end.
        kind: edited, removed, reordered, truncated, torn, or head.
        text: what it means, in a sentence.
    """

    line: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class _Head:
    seq: int
    hash: str


_EMPTY = _Head(0, FIRST_PREV)


class ReceiptLog:
    """The log at `path`.

    Opening reads nothing; the first `append` goes on where the file ends. A last line that was cut
    by a crash is moved to `receipts.torn`, and a receipt of kind `repair` says so. Lines missing
    at the end are not covered up: the next line follows the head, and `verify` shows the gap.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._head_path = path.with_suffix(".head")
        self._torn_path = path.with_suffix(".torn")
        self._head: _Head | None = None

    def append(self, fields: Mapping[str, Any]) -> int:
        """Add a receipt, durably; return its number. Blocks for two fsyncs.

        Args:
            fields: JSON values; `seq`, `prev` and `hash` are the log's own.

        Raises:
            OSError: it could not be made durable.
        """
        if self._head is None:
            self._head = self._repaired()
        head, line = _chained(self._head, fields)
        try:
            self._write(line)
        except OSError:
            self._head = None  # look again at what the file holds before the next one
            raise
        self._head = head
        self._write_head(head)
        return head.seq

    def read(self) -> Iterator[dict[str, Any]]:
        """All receipts in the order of the file; lines that are none are left to `verify`.

        Raises:
            OSError: the file can't be read (a missing one is empty).
        """
        for line in self._lines():
            entry = _decoded(line)
            if entry is not None:
                yield entry

    def verify(self) -> list[Finding]:
        """What was edited, removed, reordered or cut off; empty for an untouched log.

        Raises:
            OSError: the file can't be read.
        """
        findings: list[Finding] = []
        head, seen_head = self._read_head(), _EMPTY
        last = _EMPTY
        number = 0
        for number, line in enumerate(self._lines(), start=1):
            finding = _fault(number, line, last)
            if finding is not None:
                findings.append(finding)
            entry = _decoded(line)
            if entry is None:
                continue
            last = _Head(_whole(entry.get("seq"), last.seq + 1), _digest(line))
            if head is not None and last.seq == head.seq:
                seen_head = last
        findings.extend(_head_findings(head, seen_head, last, number))
        return findings

    def _lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                yield from file
        except FileNotFoundError:
            return

    def _write(self, line: bytes) -> None:
        """Append all of `line` durably, or nothing."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self._path, flags, 0o600)
        size = os.fstat(handle).st_size
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(handle, left) :]
            os.fdatasync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
        finally:
            os.close(handle)

    def _write_head(self, head: _Head) -> None:
        content = json.dumps({"seq": head.seq, "hash": head.hash}).encode()
        write_whole(self._head_path, content)

    def _read_head(self) -> _Head | None:
        """The recorded head; None where it is missing or no head."""
        try:
            content = json.loads(self._head_path.read_bytes())
            return _Head(int(content["seq"]), str(content["hash"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _repaired(self) -> _Head:
        """Where the next line follows on, after setting a torn last line aside."""
        torn = self._set_torn_aside()
        last, head = self._last(), self._read_head()
        notes = []
        if torn:
            digest = hashlib.sha256(torn).hexdigest()
            notes.append(f"{len(torn)} bytes of a cut line set aside (sha256 {digest[:16]})")
        if head is None and last != _EMPTY:
            notes.append("receipts.head was missing or damaged")
        if head is not None and head.seq > last.seq:
            notes.append(f"receipts {last.seq + 1} to {head.seq} were missing")
            last = head
        for note in notes:
            last, line = _chained(last, {"kind": "repair", "note": note})
            self._write(line)
            self._write_head(last)
        return last

    def _set_torn_aside(self) -> bytes:
        try:
            with self._path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                torn = _after_last_newline(file, size)
                if torn:
                    with self._torn_path.open("ab") as aside:
                        aside.write(torn + b"\n")
                        aside.flush()
                        os.fsync(aside.fileno())
                    file.truncate(size - len(torn))
                    os.fsync(file.fileno())
                return torn
        except FileNotFoundError:
            return b""

    def _last(self) -> _Head:
        """The last line that is one, looked for from the end."""
        last, entry = b"", None
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return _EMPTY
        for last in reversed(lines):
            entry = _decoded(last)
            if entry is not None:
                return _Head(_whole(entry.get("seq"), 0), _digest(last))
        return _EMPTY


def _chained(head: _Head, fields: Mapping[str, Any]) -> tuple[_Head, bytes]:
    seq = head.seq + 1
    content = {"seq": seq, "prev": head.hash, **fields}
    body = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hashlib.sha256(body).hexdigest()
    return _Head(seq, digest), body[:-1] + f',"hash":"{digest}"}}\n'.encode()


def _decoded(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _digest(line: bytes) -> str:
    """The hash that the line's content should carry."""
    return hashlib.sha256(line.rstrip(b"\n")[:-_HASH_FIELD_BYTES] + b"}").hexdigest()


def _fault(number: int, line: bytes, last: _Head) -> Finding | None:
    if not line.endswith(b"\n"):
        return Finding(number, "torn", "the last line was cut, by a crash or by hand")
    entry = _decoded(line)
    if entry is None or not line.endswith(f',"hash":"{_digest(line)}"}}\n'.encode()):
        return Finding(number, "edited", f"line {number} is not what was written")
    seq = _whole(entry.get("seq"), 0)
    if seq > last.seq + 1:
        missing = (
            f"receipts {last.seq + 1} to {seq - 1} are"
            if seq > last.seq + 2
            else (f"receipt {last.seq + 1} is")
        )
        return Finding(number, "removed", f"{missing} missing before line {number}")
    if seq <= last.seq:
        return Finding(number, "reordered", f"receipt {seq} stands behind receipt {last.seq}")
    if entry.get("prev") != last.hash:
        return Finding(number, "edited", f"line {number} does not follow the line before it")
    return None


def _head_findings(head: _Head | None, seen: _Head, last: _Head, lines: int) -> list[Finding]:
    if head is None:
        if last == _EMPTY:
            return []
        return [Finding(lines, "head", "receipts.head is missing or damaged")]
    if head.seq > last.seq:
        text = f"the log ends at receipt {last.seq}; receipts.head says {head.seq}"
        return [Finding(lines + 1, "truncated", text)]
    if seen.hash != head.hash:
        return [Finding(lines, "head", f"receipts.head names another receipt {head.seq}")]
    # A crash between a line and its head leaves the head one behind; more is no accident.
    if last.seq > head.seq + 1:
        return [Finding(lines, "head", f"{last.seq - head.seq} receipts stand behind the head")]
    return []


def _whole(value: object, default: int) -> int:
    return value if type(value) is int else default


def _after_last_newline(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    return tail[tail.rfind(b"\n") + 1 :]
