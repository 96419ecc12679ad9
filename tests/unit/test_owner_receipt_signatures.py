"""Who lacks the machine's key can't change a log of receipts unseen, nor chain it anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lender.protocol import signature
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import Signer, seed_from_entropy
from lender.state.receipt_chain import FIRST_PREV, Finding, Head, Verdict, compose
from lender.state.receipts import ReceiptLog

OURS = Signer(seed_from_entropy(b"o" * 32))
THIEF = Signer(seed_from_entropy(b"t" * 32))


def holds(key: str, payload: bytes, signed: str) -> bool:
    try:
        signature.verify(key, payload, signed)
    except ProtocolError:
        return False
    return True


def proof(path: Path) -> Verdict:
    return ReceiptLog(path).examine(holds, OURS.public_key)


def kinds(findings: list[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = ReceiptLog(tmp_path / "receipts.jsonl", OURS)
    for number in range(1, 6):
        log.append({"lease": f"lease-{number}", "job": f"job-{number}"})
    return tmp_path / "receipts.jsonl"


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def rewritten(path: Path, signer: Signer | None, *, last: int = 5) -> None:
    """The log as somebody would forge it who can compute, with the head file to match."""
    log = ReceiptLog(path.with_name("forged.jsonl"), signer)
    for number in range(1, last + 1):
        log.append({"lease": f"lease-{number}", "job": "job-9" if number == 3 else f"job-{number}"})
    path.write_bytes(path.with_name("forged.jsonl").read_bytes())
    path.with_suffix(".head").write_bytes(path.with_name("forged.head").read_bytes())


def test_an_untouched_log_is_signed_line_by_line(path: Path) -> None:
    verdict = proof(path)
    assert (verdict.findings, verdict.notes) == ([], [])
    assert (verdict.receipts, verdict.signed) == (5, 5)


def test_a_log_that_was_chained_anew_shows(path: Path) -> None:
    rewritten(path, THIEF)
    assert ReceiptLog(path).verify() == []  # the chain alone does not tell
    assert kinds(proof(path).findings) == ["signature"]


def test_a_log_that_was_chained_anew_without_signatures_ends_unsigned(path: Path) -> None:
    rewritten(path, None)
    verdict = proof(path)
    assert "the last 5 not signed" in verdict.notes[0]


def test_a_log_that_goes_on_after_it_was_chained_anew_shows(path: Path) -> None:
    log = ReceiptLog(path, OURS)
    log.append({"lease": "lease-6"})
    rewritten(path, THIEF, last=6)
    log.append({"lease": "lease-7"})
    log.append({"lease": "lease-8"})
    assert {"edited", "removed"} & set(kinds(proof(path).findings))
    notes = [one["note"] for one in log.read() if one.get("kind") == "repair"]
    assert any("changed while lenderd ran" in note for note in notes)


def cut_signature(line: bytes) -> bytes:
    return line[: line.rindex(b',"signature"')] + b"}\n"


def null_signature(line: bytes) -> bytes:
    return line[: line.rindex(b',"signature"')] + b',"signature":null}\n'


def swap_signature(line: bytes) -> bytes:
    end = b'"}\n'
    other = b"A" if line[-len(end) - 40 : -len(end) - 39] != b"A" else b"B"
    return line[: -len(end) - 40] + other + line[-len(end) - 39 :]


def turn_signature(line: bytes) -> bytes:
    """Signed over the same hash by another."""
    start = line.rindex(b'"hash":"') + 8
    signed = THIEF.sign(b"lender.receipt/1\n" + line[start : start + 64])
    return line[: line.rindex(b',"signature"')] + f',"signature":"{signed}"}}\n'.encode()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (cut_signature, "unsigned"),
        (null_signature, "unsigned"),
        (swap_signature, "signature"),
        (turn_signature, "signature"),
        (lambda line: line.replace(b"job-3", b"job-9"), "edited"),
    ],
)
def test_one_changed_line_is_one_finding(
    path: Path, change: Callable[[bytes], bytes], kind: str
) -> None:
    lines = lines_of(path)
    path.write_bytes(b"".join([*lines[:2], change(lines[2]), *lines[3:]]))
    (finding,) = proof(path).findings
    assert (finding.line, finding.kind) == (3, kind)


def test_an_inserted_line_shows(path: Path) -> None:
    lines = lines_of(path)
    before = Head(2, str(list(ReceiptLog(path).read())[1]["hash"]))
    for signer in (None, THIEF):
        _, line = compose(before, {"job": "job-x"}, signer)
        path.write_bytes(b"".join([*lines[:2], line, *lines[2:]]))
        assert proof(path).findings


def test_lines_of_another_log_of_ours_do_not_fit(path: Path, tmp_path: Path) -> None:
    other = ReceiptLog(tmp_path / "other.jsonl", OURS)
    for number in range(1, 6):
        other.append({"lease": f"lease-{number}", "job": f"other-{number}"})
    lines = lines_of(path)
    path.write_bytes(b"".join([*lines[:2], lines_of(tmp_path / "other.jsonl")[2], *lines[3:]]))
    assert "edited" in kinds(proof(path).findings)


def test_what_a_revoke_wrote_is_covered_by_the_next_signed_line(path: Path) -> None:
    ReceiptLog(path).append({"job": "job-6", "outcome": "revoked"})
    verdict = proof(path)
    assert verdict.findings == []
    assert "the last 1 not signed" in verdict.notes[0]
    ReceiptLog(path, OURS).append({"job": "job-7"})
    verdict = proof(path)
    assert (verdict.findings, verdict.notes) == ([], [])


OLD_LINE = {"job": "job-1", "ended_at": 1.0}


def old_log(path: Path, count: int) -> None:
    """As the version before signatures wrote it."""
    lines, head = [], Head(0, FIRST_PREV)
    for _ in range(count):
        head, line = compose(head, OLD_LINE, None)
        line = cut_signature(line)
        lines.append(line)
    path.write_bytes(b"".join(lines))
    path.with_suffix(".head").write_text(f'{{"seq": {head.seq}, "hash": "{head.hash}"}}')


def test_a_log_of_an_earlier_version_goes_on_signed(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    old_log(path, 3)
    verdict = proof(path)
    assert verdict.findings == []
    assert verdict.notes == ["3 from before lenderd signed: none is signed yet"]
    assert ReceiptLog(path, OURS).append({"job": "job-4"}) == 4
    verdict = proof(path)
    assert verdict.findings == []
    assert verdict.notes == ["3 from before lenderd signed: the first signed one covers them"]


def test_an_edit_of_what_an_earlier_version_wrote_shows(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    old_log(path, 3)
    ReceiptLog(path, OURS).append({"job": "job-4"})
    path.write_bytes(path.read_bytes().replace(b"job-1", b"job-2", 1))
    assert kinds(proof(path).findings) == ["edited"]


def test_a_new_key_of_the_machine_is_told_in_the_log(path: Path) -> None:
    fresh = Signer(seed_from_entropy(b"n" * 32))
    log = ReceiptLog(path, fresh)
    assert log.append_all(()).seq == 6
    verdict = log.examine(holds, fresh.public_key)
    assert verdict.findings == []
    assert verdict.notes == [f"5 signed with an earlier key, {OURS.public_key}"]
    assert OURS.public_key in list(log.read())[-1]["note"]
    # Whoever holds the old key can't write on.
    ReceiptLog(path, OURS).append({"job": "job-7"})
    assert "signature" in kinds(log.examine(holds, fresh.public_key).findings)


def test_many_receipts_in_one_go_and_a_head_behind_them_are_no_fault(path: Path) -> None:
    head = path.with_suffix(".head")
    before = head.read_bytes()
    fields: list[dict[str, Any]] = [{"job": f"job-{number}"} for number in range(6, 20)]
    ReceiptLog(path, OURS).append_all(fields)
    head.write_bytes(before)  # killed in between
    assert proof(path).findings == []
    assert ReceiptLog(path, OURS).append({"job": "later"}) == 20
    assert proof(path).findings == []


@pytest.mark.parametrize(
    "raw", [b"[" * 100_000, b"\xff\xfe", b"null", b"{}", b"\r", b'{"seq":"x"}']
)
def test_no_line_is_too_strange_to_be_reported(path: Path, raw: bytes) -> None:
    lines = lines_of(path)
    path.write_bytes(b"".join([*lines[:2], raw + b"\n", *lines[2:]]))
    assert kinds(proof(path).findings) == ["edited"]
    assert ReceiptLog(path, OURS).append({"job": "later"}) == 6


def test_receipts_are_read_from_the_end_however_long_they_are(tmp_path: Path) -> None:
    log = ReceiptLog(tmp_path / "receipts.jsonl", OURS)
    for number in range(1, 40):
        log.append({"job": f"job-{number}", "note": "é\r" * number * 300})
    assert [one["seq"] for one in log.read_back()] == list(range(39, 0, -1))
    assert list(log.read()) == list(log.read_back())[::-1]
    assert log.hash_of(17) == list(log.read())[16]["hash"]
    assert log.hash_of(40) is None
    assert list(ReceiptLog(tmp_path / "none").read_back()) == []
