"""The form of the owner's log: JSON lines, each bound to the one before by its hash.

Standard library only; no file is opened here. A line is
`{"seq": n, "prev": <hash of line n-1>, ...fields, "hash": h, "signature": s}`.
h is the SHA-256 of the line's exact bytes before `,"hash"`, closed by a brace. s is the Ed25519
signature of the key in the field `lender` over `SIGNED_PREFIX` and h. It is null where an owner's
verb wrote the line without lenderd (`by` says so): the next signed line covers it through the
chain, as it covers the lines of earlier versions, which have no `signature`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeGuard

FIRST_PREV = "0" * 64
"""What the first line follows."""

SIGNED_PREFIX = b"lender.receipt/1\n"
"""Keeps a signature of a line from being taken for one of anything else."""

OWNER = "owner"
"""Who wrote a line without a signature: a verb of the owner's, by its own hand."""

_END = re.compile(
    rb',"hash":"([0-9a-f]{64})"(,"signature":(?:null|"([A-Za-z0-9_-]{1,128})"))?\}\n\Z'
)
_END_BYTES_MAX = 256

_in_short = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

_SEQ_MAX = 1 << 53


def is_number(seq: object) -> TypeGuard[int]:
    """Tell whether it may number a line: so many are never written, and more can't be told."""
    return type(seq) is int and 0 <= seq <= _SEQ_MAX


class Finding(NamedTuple):
    """Something that an untouched log does not show.

    Attributes:
        line: counted from 1; one past the last where lines are missing at the end.
        kind: edited, removed, reordered, truncated, torn, head, unsigned, signature or published.
        text: what it means, in a sentence.
    """

    line: int
    kind: str
    text: str


class Head(NamedTuple):
    """A line by its number and hash; the last one stands for the whole log."""

    seq: int
    hash: str


EMPTY = Head(0, FIRST_PREV)


class LineSigner(Protocol):
    """Signs as one lender; `lender.protocol.signature.Signer` does."""

    public_key: str

    def sign(self, payload: bytes) -> str:
        """Return the signature as text."""
        ...


SignatureHolds = Callable[[str, bytes, str], bool]
"""Tells whether a public key signed a payload: (key, payload, signature)."""


class Line(NamedTuple):
    """A line that is a JSON object.

    Attributes:
        fields: all of it.
        hash: what it carries as its hash; empty where the line has another form.
        digest: what it should carry.
        signature: None where there is none.
        versioned: whether it has a place for a signature.
    """

    fields: dict[str, Any]
    hash: str
    digest: str
    signature: str | None
    versioned: bool

    @property
    def seq(self) -> int:
        """Its number; 0 where it has none."""
        seq = self.fields.get("seq")
        return seq if is_number(seq) else 0

    @property
    def lender(self) -> str:
        """The key that it names as its signer."""
        return str(self.fields.get("lender", ""))


class Verdict(NamedTuple):
    """What an examination found.

    Attributes:
        findings: empty for an untouched log.
        notes: what is worth knowing and no fault.
        receipts: lines that were read.
        signed: of those, with a signature.
        head: the last one.
    """

    findings: list[Finding]
    notes: list[str]
    receipts: int
    signed: int
    head: Head


def compose(head: Head, fields: Mapping[str, Any], signer: LineSigner | None) -> tuple[Head, bytes]:
    """Return the line that follows `head`, and itself as the new head."""
    seq = head.seq + 1
    origin = {"by": OWNER} if signer is None else {"lender": signer.public_key}
    content = {"seq": seq, "prev": head.hash, **origin, **fields}
    body = _in_short(content).encode()
    digest = hashlib.sha256(body).hexdigest()
    signature = None if signer is None else signer.sign(SIGNED_PREFIX + digest.encode())
    end = f',"hash":"{digest}","signature":{json.dumps(signature)}}}\n'
    return Head(seq, digest), body[:-1] + end.encode()


def parse(raw: bytes) -> Line | None:
    """Read a line; None for what is no whole JSON object."""
    if not raw.endswith(b"\n"):
        return None
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    end = _END.search(raw, max(0, len(raw) - _END_BYTES_MAX))
    if end is None:
        return Line(fields, "", "", None, versioned=False)
    digest = hashlib.sha256(raw[: end.start()] + b"}").hexdigest()
    signature = end[3].decode() if end[3] else None
    return Line(fields, end[1].decode(), digest, signature, versioned=end[2] is not None)


def examine(
    lines: Iterable[bytes],
    head: Head | None,
    holds: SignatureHolds | None = None,
    key: str | None = None,
) -> Verdict:
    """Find what was edited, removed, reordered, inserted or cut off.

    Args:
        lines: all lines of the log with their ends.
        head: what is recorded as the last line; None where that is missing or damaged.
        holds: checks signatures; None checks only where they stand and where they are missing.
        key: the machine's own public key, if known.
    """
    examination = _Examination(head, holds, key)
    for raw in lines:
        examination.take(raw)
    return examination.verdict()


class _Examination:
    def __init__(self, head: Head | None, holds: SignatureHolds | None, key: str | None) -> None:
        self._head, self._holds, self._key = head, holds, key
        self._findings: list[Finding] = []
        self._number = 0
        self._last, self._at_head = EMPTY, EMPTY
        self._torn = False
        self._unsigned_behind_head = 0
        self._signed, self._early, self._tail = 0, 0, 0
        self._own_seen = False
        self._others: dict[str, int] = {}

    def take(self, raw: bytes) -> None:
        """Look at the next line."""
        self._number += 1
        if not raw.endswith(b"\n"):
            self._torn = True
            self._find("torn", "the last line was cut, by a crash or by hand")
            return
        line = parse(raw)
        if line is None or not line.hash:
            self._find("edited", f"line {self._number} is not what was written")
            return
        fault = self._chain_fault(line) or self._signature_fault(line)
        if fault is not None:
            self._find(*fault)
        if line.seq <= self._last.seq:
            return  # out of its place: what comes next follows what stood before
        # The hash that it carries: one edited line is one finding, not two.
        self._last = Head(line.seq, line.hash)
        if self._head is not None:
            if line.seq == self._head.seq:
                self._at_head = self._last
            elif line.seq > self._head.seq and line.signature is None:
                self._unsigned_behind_head += 1

    def verdict(self) -> Verdict:
        """After the last line."""
        fault = self._head_fault()
        if fault is not None:
            self._findings.append(fault)
        if self._signed and self._key is not None and not self._own_seen:
            self._find("signature", "no receipt is signed with this machine's own key")
        return Verdict(self._findings, self._notes(), self._number, self._signed, self._last)

    def _find(self, kind: str, text: str) -> None:
        self._findings.append(Finding(self._number, kind, text))

    def _chain_fault(self, line: Line) -> tuple[str, str] | None:
        number, last = self._number, self._last
        if line.hash != line.digest:
            return "edited", f"line {number} is not what was written"
        if line.seq <= last.seq:
            return "reordered", f"receipt {line.seq} stands behind receipt {last.seq}"
        if line.seq > last.seq + 1:
            missing = f"receipt {last.seq + 1} is"
            if line.seq > last.seq + 2:
                missing = f"receipts {last.seq + 1} to {line.seq - 1} are"
            return "removed", f"{missing} missing before line {number}"
        if line.fields.get("prev") != last.hash:
            return "edited", f"line {number} does not follow the line before it"
        return None

    def _signature_fault(self, line: Line) -> tuple[str, str] | None:
        if line.signature is None:
            return self._unsigned_fault(line)
        self._signed += 1
        self._tail = 0
        signed = SIGNED_PREFIX + line.digest.encode()
        if self._holds is not None and not self._holds(line.lender, signed, line.signature):
            return "signature", f"the signature of line {self._number} does not hold"
        if line.lender == self._key:
            self._own_seen = True
        elif self._own_seen:
            text = f"line {self._number} is signed with a key that is not this machine's"
            return "signature", text
        else:
            self._others[line.lender] = self._others.get(line.lender, 0) + 1
        return None

    def _unsigned_fault(self, line: Line) -> tuple[str, str] | None:
        if line.versioned and line.fields.get("by") == OWNER:
            self._tail += 1
            return None
        if not line.versioned and not self._signed and not self._tail:
            self._early += 1
            return None
        return "unsigned", f"the signature of line {self._number} is missing"

    def _head_fault(self) -> Finding | None:
        head, last = self._head, self._last
        text = ""
        if head is None:
            text = "" if last == EMPTY else "receipts.head is missing or damaged"
        elif head.seq > last.seq:
            if self._torn and head.seq == last.seq + 1:
                return None  # the torn line, which was told
            text = f"the log ends at receipt {last.seq}; receipts.head says {head.seq}"
            return Finding(self._number + 1, "truncated", text)
        elif self._at_head.hash != head.hash:
            text = f"receipts.head names another receipt {head.seq}"
        elif self._unsigned_behind_head > 1:
            # A crash between a line and its head leaves the head behind. lenderd signs what it
            # writes in one go; a verb writes one line: more of those is no accident.
            text = f"{self._unsigned_behind_head} unsigned receipts stand behind the head"
        return Finding(self._number, "head", text) if text else None

    def _notes(self) -> list[str]:
        notes = []
        if self._early:
            cover = "the first signed one covers them" if self._signed else "none is signed yet"
            notes.append(f"{self._early} from before lenderd signed: {cover}")
        if self._key is not None:
            for key, count in self._others.items():
                notes.append(f"{count} signed with an earlier key, {key}")
        if self._tail:
            notes.append(
                f"the last {self._tail} not signed, written by `lender revoke` without lenderd: "
                "the next signed one covers them"
            )
        return notes
