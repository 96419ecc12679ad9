"""How a key asks to be let in, as devices are paired: by a code that two people compare.

The machine commits to a secret (the *opening*) before it is told the broker's nonce, and shows it
after. The code is made of key, nonce and opening, so that whoever stands between the two can choose
none of his own words with both others known: all that is left to him is to guess, once for each
request, with a chance of 2^-40 (Vaudenay, "Secure Communications over Insecure Channels Based on
Short Authenticated Strings", CRYPTO 2005).
"""

import hashlib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from lender.protocol import bounds
from lender.protocol.classes import WorkClass
from lender.protocol.codec import Open
from lender.protocol.errors import ProtocolError
from lender.protocol.ids import PublicKey, Sha256

EnrolledRole = Literal["lender", "submitter"]
"""Whom a broker can let in."""

EnrolState = Literal["begun", "waiting", "admitted", "refused", "anew"]
"""`begun`: show the opening. `anew`: begin again with another one."""

OPENING_BYTES = 32
NONCE_BYTES = 32
SECRET_BYTES = 32
"""Of a join token."""

CODE_LIVES_S = 600.0
"""So long a nonce may be answered, and a request waits for its approval."""

ALL_CLASSES = "*"

# Plain letters: a name is shown to who decides, and no letter of another script looks like one.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}$"
JOIN_TOKEN_PATTERN = r"^ljt_[A-Za-z0-9_-]{43}$"  # noqa: S105 - the form of one

PersonName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""What people call a machine or a submitter."""

# Crockford's base 32: no I, L, O, U, which are read as others.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MISREAD = str.maketrans("OIL", "011", "- ")
_CODE_CHARS = 8
_CODE_BYTES = 5
_DOMAIN = b"lender enrolment 1\n"


def _class_or_all(token: str) -> str:
    if token != ALL_CLASSES:
        try:
            WorkClass.parse(token)
        except ProtocolError as error:
            raise ValueError(error.reason) from error
    return token


ClassName = Annotated[str, AfterValidator(_class_or_all)]
"""Of a queue that a lender may take from; `*` for every."""


class EnrolRequest(Open):
    """A key asks, again and again, until it is told that it is let in, or is not.

    Signed by the key (`signed_part`). `opening` is left out until the nonce is known.
    """

    v: Literal[1] = 1
    role: EnrolledRole
    key: PublicKey
    name: PersonName
    classes: tuple[ClassName, ...] = Field(default=(), max_length=bounds.ENROL_CLASSES_MAX)
    """Of a lender that is in: those that its owner's grants name. Where the operator bounds whom it
    works for, its token names these, as far as they lie within; another's names all there are."""
    commitment: Sha256
    opening: Sha256 | None = None
    after: int = Field(default=0, ge=0, le=1 << 53)
    """A token of this second or an earlier one is of no use any more: it was revoked."""
    token: Annotated[str, StringConstraints(pattern=JOIN_TOKEN_PATTERN)] | None = None
    """Approves whoever shows it, once."""


class EnrolAnswer(Open):
    """What became of it. It names key and commitment: strangers overhear each other's answers."""

    v: Literal[1] = 1
    key: PublicKey
    commitment: Sha256
    state: EnrolState
    nonce: Sha256 | None = None
    token: str | None = None
    """What the server lets the key in by; worth nothing without its private half."""
    at: int = 0
    """Second of that token."""
    authorities: str = Field(default="", max_length=bounds.ENROL_BYTES_MAX)
    """Certificates of who vouches for the fleet's servers (PEM): for whoever could verify one."""
    reason: str = Field(default="", max_length=500)


def signed_part(payload: bytes) -> bytes:
    """Return what a request's signature is over: never the bytes of anything else."""
    return _DOMAIN + payload


def commitment_of(opening: str) -> str:
    """Return what binds to an opening and does not tell it (both 64 hex digits)."""
    return hashlib.sha256(_DOMAIN + b"commitment\n" + opening.encode()).hexdigest()


def code_of(public_key: str, nonce: str, opening: str) -> str:
    """Return the code that people compare, as `ABCD-EFGH`: the first 40 bits of SHA-256."""
    said = f"code\n{public_key}\n{nonce}\n{opening}".encode()
    bits = int.from_bytes(hashlib.sha256(_DOMAIN + said).digest()[:_CODE_BYTES])
    chars = [_ALPHABET[bits >> shift & 31] for shift in range(35, -1, -5)]
    return "".join((*chars[:4], "-", *chars[4:]))


def read_code(text: str) -> str:
    """Return a code as `code_of` writes it, from how people type it.

    Raises:
        ProtocolError: it is none.
    """
    plain = text.strip().upper().translate(_MISREAD)
    if len(plain) != _CODE_CHARS or not set(plain) <= set(_ALPHABET):
        raise ProtocolError("code", "a code is 8 letters and digits, such as 4G7K-X2MQ")
    return f"{plain[:4]}-{plain[4:]}"


def fingerprint_of(public_key: str) -> str:
    """Return a public key short enough to compare: 80 bits of its SHA-256, in fives."""
    digest = hashlib.sha256(public_key.encode()).hexdigest()[:20]
    return " ".join(digest[at : at + 5] for at in range(0, len(digest), 5))


def digest_of(join_token: str) -> str:
    """Return what is kept of a join token."""
    return hashlib.sha256(_DOMAIN + b"token\n" + join_token.encode()).hexdigest()


def name_from(text: str) -> str:
    """Return a name made of what a machine is called: what may not stand in one becomes `-`."""
    plain = re.sub(r"[^A-Za-z0-9_.@-]+", "-", text).lstrip("_.@-")[:63]
    return plain or "unnamed"
