"""Signatures over the exact bytes, by the key that they name."""

import base64

import nkeys
import pytest
from core_world import ALICE, BOB

from lender.protocol.errors import ProtocolError
from lender.protocol.signature import Signer, check_public_key, seed_from_entropy, verify

PAYLOAD = b"the exact bytes"


def fault(public_key: str, signature: str | None, payload: bytes = PAYLOAD) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        verify(public_key, payload, signature)
    return caught.value


def key_of(prefix: int, body: bytes = bytes(32)) -> str:
    raw = bytes([prefix]) + body
    checksum = nkeys.crc16(bytearray(raw)).to_bytes(2, "little")
    return base64.b32encode(raw + checksum).decode()


def test_an_own_signature_holds_and_has_no_padding() -> None:
    signature = ALICE.sign(PAYLOAD)
    verify(ALICE.public_key, PAYLOAD, signature)
    assert "=" not in signature
    verify(ALICE.public_key, PAYLOAD, signature + "==")


def test_any_change_breaks_it() -> None:
    signature = ALICE.sign(PAYLOAD)
    assert "does not match" in fault(BOB.public_key, signature).reason
    assert "does not match" in fault(ALICE.public_key, signature, PAYLOAD + b" ").reason
    assert "does not match" in fault(ALICE.public_key, BOB.sign(PAYLOAD)).reason
    assert "does not match" in fault(ALICE.public_key, "A" * 86).reason


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (None, "missing"),
        ("", "64 bytes"),
        ("AAAA", "64 bytes"),
        ("A" * 88, "64 bytes"),
        ("A", "base64url"),
        ("no spaces!", "base64url"),
        ("ünïcode", "base64url"),
        ("A" * 85 + "\n", "base64url"),
    ],
)
def test_what_is_no_signature_is_told_apart(signature: str | None, reason: str) -> None:
    told = fault(ALICE.public_key, signature)
    assert told.field == "signature"
    assert reason in told.reason


def test_a_small_order_key_signs_nothing() -> None:
    """The neutral element as key would accept a forged signature of zeros."""
    neutral = key_of(nkeys.PREFIX_BYTE_USER, b"\x01" + bytes(31))
    forged = base64.urlsafe_b64encode(b"\x01" + bytes(63)).decode()
    assert "does not match" in fault(neutral, forged).reason


def test_a_public_key_is_checked_whole() -> None:
    assert check_public_key(ALICE.public_key) == ALICE.public_key
    swapped = ALICE.public_key[:-1] + ("A" if ALICE.public_key[-1] != "A" else "B")
    for key in (
        "",
        "U",
        swapped,
        ALICE.public_key.lower(),
        "U" + "1" * 55,
        "Uä" + "A" * 54,
        key_of(nkeys.PREFIX_BYTE_ACCOUNT),
        key_of(nkeys.PREFIX_BYTE_USER | 1),
    ):
        with pytest.raises(ProtocolError, match="not a public nkey of type user") as caught:
            check_public_key(key)
        assert caught.value.field == "submitter"


def test_a_signer_is_made_of_a_user_seed_only() -> None:
    seed = seed_from_entropy(bytes(32))
    assert Signer(seed + b"\n").public_key == Signer(seed).public_key
    account = nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_ACCOUNT)
    typo = seed[:20] + (b"A" if seed[20:21] != b"A" else b"B") + seed[21:]
    for wrong in (
        b"",
        b"junk",
        seed[:-1],
        seed[:-1] + b"!",
        bytes(account),
        b"\xff" * 58,
        b"SU",
        typo,
    ):
        with pytest.raises(ProtocolError, match="not an nkey seed of type user"):
            Signer(wrong)
