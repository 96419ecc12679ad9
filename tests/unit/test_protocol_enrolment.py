"""Codes, fingerprints, names, join tokens, and what a request must look like."""

import hashlib

import pytest

from lender.protocol import enrolment
from lender.protocol.codec import decode, encode
from lender.protocol.enrolment import (
    EnrolRequest,
    code_of,
    commitment_of,
    digest_of,
    fingerprint_of,
    name_from,
    read_code,
    signed_part,
)
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import Signer, seed_from_entropy, verify

KEY = Signer(seed_from_entropy(bytes(32)))
OTHER = Signer(seed_from_entropy(bytes([1] * 32)))
NONCE, OPENING = "ab" * 32, "cd" * 32
CLASS = f"default_wasm_any_none_{KEY.public_key}_wasm"


def request(**fields: object) -> EnrolRequest:
    said = {"role": "lender", "key": KEY.public_key, "name": "desk", "commitment": "ef" * 32}
    return EnrolRequest.model_validate({**said, **fields})


def test_a_code_is_forty_bits_of_key_nonce_and_opening() -> None:
    code = code_of(KEY.public_key, NONCE, OPENING)
    said = f"lender enrolment 1\ncode\n{KEY.public_key}\n{NONCE}\n{OPENING}".encode()
    bits = f"{int.from_bytes(hashlib.sha256(said).digest()[:5]):040b}"
    letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    wanted = "".join(letters[int(bits[at : at + 5], 2)] for at in range(0, 40, 5))
    assert code == f"{wanted[:4]}-{wanted[4:]}"
    others = {
        code_of(OTHER.public_key, NONCE, OPENING),
        code_of(KEY.public_key, OPENING, NONCE),
        code_of(KEY.public_key, NONCE, NONCE),
    }
    assert len(others | {code}) == 4


@pytest.mark.parametrize(
    "typed", ["4G7K-X201", "4g7kx201", " 4g7k x2o1 ", "4G7K-X2OI", "4G7K-X20L", "4G-7K-X2-01"]
)
def test_a_code_is_read_as_people_type_it(typed: str) -> None:
    assert read_code(typed) == "4G7K-X201"


@pytest.mark.parametrize("typed", ["", "4G7K", "4G7K-X20", "4G7K-X2011", "4G7K-X2U1", "4G7K-X2é1"])
def test_what_is_no_code_is_refused(typed: str) -> None:
    with pytest.raises(ProtocolError, match="8 letters and digits"):
        read_code(typed)


def test_a_fingerprint_is_of_the_key_alone_and_short_enough_to_compare() -> None:
    print_ = fingerprint_of(KEY.public_key)
    assert print_.replace(" ", "") == hashlib.sha256(KEY.public_key.encode()).hexdigest()[:20]
    assert [len(part) for part in print_.split(" ")] == [5, 5, 5, 5]
    assert print_ != fingerprint_of(OTHER.public_key)


def test_what_is_kept_of_a_secret_does_not_tell_it() -> None:
    token = f"ljt_{'A' * 43}"
    assert token not in digest_of(token)
    assert digest_of(token) != digest_of(f"ljt_{'B' * 43}")
    assert commitment_of(OPENING) != commitment_of(NONCE)
    assert commitment_of(OPENING) != digest_of(OPENING)


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("desk-7", "desk-7"),
        ("Büro\u202e\x1b[2J 1", "B-ro-2J-1"),
        ("-.x", "x"),
        ("", "unnamed"),
        ("é", "unnamed"),
        ("a" * 99, "a" * 63),
    ],
)
def test_a_name_is_made_of_plain_letters(called: str, name: str) -> None:
    assert name_from(called) == name
    assert request(name=name)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "\u0430lice"},  # a Cyrillic letter
        {"name": "a\x1b[2J"},
        {"name": "a\n"},
        {"name": "a" * 64},
        {"name": ""},
        {"role": "broker"},
        {"role": "observer"},
        {"key": "U"},
        {"commitment": "ef" * 31},
        {"opening": "x"},
        {"after": -1},
        {"after": 1 << 60},
        {"token": "secret"},
        {"token": f"ljt_{'A' * 43}\n"},
        {"classes": ("x",)},
        {"classes": (">",)},
        {"classes": (CLASS,) * 97},
        {"classes": (CLASS,) * 10_000},
        {"v": 2},
    ],
)
def test_a_request_is_held_to_its_form(fields: dict[str, object]) -> None:
    payload = encode(request().model_copy(update=fields))
    with pytest.raises(ProtocolError):
        decode(EnrolRequest, payload)


def test_classes_are_those_of_queues_or_all() -> None:
    assert request(classes=(CLASS, "*")).classes == (CLASS, "*")


def test_a_signature_over_a_request_is_over_nothing_else() -> None:
    payload = encode(request())
    signature = KEY.sign(signed_part(payload))
    verify(KEY.public_key, signed_part(payload), signature)
    with pytest.raises(ProtocolError):
        verify(KEY.public_key, payload, signature)
    assert signed_part(payload) != payload
    assert enrolment.CODE_LIVES_S == 600
