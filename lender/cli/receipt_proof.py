"""Whether the log of receipts is as it was written: chain, signatures, published head."""

import json
from typing import Any, NamedTuple

from lender.cli.owner import tell
from lender.cli.words import count, key, moment
from lender.protocol import signature
from lender.protocol.codec import JSON, decode
from lender.protocol.errors import ProtocolError
from lender.protocol.log_head import LogHead, MissingHead
from lender.state.folder import StateFolder
from lender.state.receipt_chain import Finding
from lender.state.receipts import ReceiptLog

_HEAD_ANSWER_S = 5.0


class Proof(NamedTuple):
    """What was checked and what was found.

    Attributes:
        findings: empty for an untouched log.
        notes: what is worth knowing and no fault.
        receipts: in the log.
        signed: of those.
        head: number and hash of the last one; worth a note elsewhere.
        key: the machine's public key; empty where it could not be read.
        published: number and time of the published head; empty where there is none to compare.
        not_compared: why not, in words.
    """

    findings: list[Finding]
    notes: list[str]
    receipts: int
    signed: int
    head: dict[str, Any]
    key: str
    published: dict[str, Any]
    not_compared: str


def prove(state: StateFolder, receipts: ReceiptLog) -> Proof:
    """Check everything that can be checked from here.

    Raises:
        OSError: the log can't be read.
    """
    own, notes = _own_key(state)
    verdict = receipts.examine(_holds, own or None)
    findings = list(verdict.findings)
    published: dict[str, Any] = {}
    not_compared = ""
    if not own:
        not_compared = "its signature could not be checked without the machine's key"
    else:
        told = tell(state, "head", _HEAD_ANSWER_S)
        answer = told.reply.get("published") if told.outcome == "answered" else None
        if not isinstance(answer, dict):
            not_compared = str(told.reply.get("reason") or told.reason or "lenderd is not running")
        else:
            faults, published = _compare(receipts, own, answer, verdict.receipts)
            findings += faults
    return Proof(
        findings,
        notes + verdict.notes,
        verdict.receipts,
        verdict.signed,
        verdict.head._asdict(),
        own,
        published,
        not_compared,
    )


def words(proof: Proof) -> list[str]:
    """The same for a person."""
    lines = [f"✗ line {one.line}: {one.kind}: {one.text}" for one in proof.findings]
    kinds = {one.kind for one in proof.findings}
    if not kinds - {"signature", "unsigned", "published"}:
        lines.append(f"✓ {count(proof.receipts, 'receipt')}: each follows the one before it")
        if proof.receipts:
            lines.append(f"  the last one, {proof.head['seq']}, has the hash {proof.head['hash']}")
    if proof.signed and not kinds & {"signature", "unsigned"}:
        lines.append(f"✓ {proof.signed} signed by this machine, {key(proof.key) or 'key unknown'}")
    if proof.published and "published" not in kinds:
        told = proof.published
        lines.append(f"✓ agrees with receipt {told['seq']}, published {moment(float(told['at']))}")
    lines += [f"! {note}" for note in proof.notes]
    if proof.not_compared:
        lines.append(f"! not compared with the published head: {proof.not_compared}")
    return lines


def _own_key(state: StateFolder) -> tuple[str, list[str]]:
    try:
        return signature.Signer(state.identity.read_bytes()).public_key, []
    except (OSError, ProtocolError):
        note = "the machine's key can't be read: signatures were checked against the keys named"
        return "", [note]


def _holds(public_key: str, payload: bytes, signed: str) -> bool:
    try:
        signature.verify(public_key, payload, signed)
    except ProtocolError:
        return False
    return True


def _compare(
    receipts: ReceiptLog, own: str, answer: dict[str, Any], lines: int
) -> tuple[list[Finding], dict[str, Any]]:
    """Hold the log against the head that the broker keeps for us."""
    try:
        payload = str(answer["payload"]).encode()
        signature.verify(own, payload, str(answer["signature"]))
        head = decode(LogHead, payload, JSON)
    except (KeyError, ProtocolError, json.JSONDecodeError):
        text = "what is published as this machine's head is not signed by it"
        return [Finding(lines, "published", text)], {}
    wanted = [head.missing] if head.missing else []
    if head.seq:
        wanted.append(MissingHead(seq=head.seq, hash=head.hash, at=head.at))
    findings = []
    for one in wanted:
        found = receipts.hash_of(one.seq)
        if found != one.hash:
            state = "missing" if found is None else "another one"
            text = f"receipt {one.seq}, published {moment(one.at)}, is {state} here"
            findings.append(Finding(lines, "published", text))
    return findings, {"seq": head.seq, "at": head.at}
