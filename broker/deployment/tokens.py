"""Keys of operators, accounts and users, and the signed tokens by which one vouches for another.

Tokens are JWTs (RFC 7519) whose header says `ed25519-nkey`: claims of NATS's own in the field
`nats`, version 2, signed by an nkey (ADR-14 of NATS; github.com/nats-io/jwt reads them).
"""

import base64
import hashlib
import json
from typing import Any, Literal

import nkeys
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

Kind = Literal["operator", "account", "user"]

ENTROPY_BYTES = 32

_PREFIXES: dict[Kind, int] = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


class TokenError(Exception):
    """A token or a key is not what it should be."""


class Key:
    """A private key."""

    def __init__(self, seed: bytes) -> None:
        """Read a seed: `SO...` of an operator, `SA...` of an account, `SU...` of a user.

        Raises:
            TokenError: it is none.
        """
        try:
            self._pair = nkeys.from_seed(bytearray(seed.strip()))
            self.public: str = self._pair.public_key.decode()
        except (nkeys.NkeysError, ValueError, IndexError) as error:
            raise TokenError("no nkey seed (SO..., SA... or SU...)") from error
        self.seed = seed.strip()

    @classmethod
    def make(cls, kind: Kind, entropy: bytes) -> "Key":
        """Return the key made from 32 random bytes."""
        return cls(nkeys.encode_seed(entropy, _PREFIXES[kind]))

    def sign(self, payload: bytes) -> bytes:
        """Return the 64 bytes of the Ed25519 signature."""
        signature: bytes = self._pair.sign(payload)
        return signature


def encode(subject: str, name: str, nats: dict[str, Any], issuer: Key, now: float) -> str:
    """Return the token by which `issuer` vouches for `subject`.

    Args:
        subject: public key.
        name: for people to read.
        nats: the claims of NATS's own, `type` among them.
        issuer: whose word it is.
        now: seconds since the epoch; of two tokens of an account the later one counts.
    """
    claims = {
        "iat": int(now),
        "iss": issuer.public,
        "name": name,
        "sub": subject,
        "nats": {**nats, "version": 2},
    }
    digest = hashlib.sha256(_json(claims)).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    text = f"{_base64(_json(_HEADER))}.{_base64(_json(claims))}"
    return f"{text}.{_base64(issuer.sign(text.encode()))}"


def decode(token: str) -> dict[str, Any]:
    """Return the claims of a token that its issuer has signed; who that is, is for the caller.

    Raises:
        TokenError: it is none, or was changed.
    """
    try:
        text, _, signature = token.rpartition(".")
        header, claims = (json.loads(_bytes(part)) for part in text.split("."))
        issuer = claims["iss"]
        raw = base64.b32decode(issuer + "=" * (-len(issuer) % 8))
        VerifyKey(raw[1:-2]).verify(text.encode(), _bytes(signature))
        if header != _HEADER:
            raise TokenError(f"not a token of NATS: {header}")
    except (ValueError, LookupError, TypeError, RecursionError, BadSignatureError) as error:
        raise TokenError("not a token, or it was changed") from error
    found: dict[str, Any] = claims
    return found


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
