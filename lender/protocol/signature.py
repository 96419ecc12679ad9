"""Ed25519 signatures (RFC 8032) with NATS nkeys over the exact bytes of a specification."""

import base64
import binascii
from functools import lru_cache

import nkeys
from nacl.exceptions import BadSignatureError
from nacl.public import PrivateKey
from nacl.signing import SigningKey, VerifyKey

from lender.protocol.errors import ProtocolError

SIGNATURE_HEADER = "Lender-Signature"

_PUBLIC_KEY_CHARS = 56
_SIGNATURE_BYTES = 64
_KEYS_KEPT = 1024


class Signer:
    """A private key, made from an nkey seed of type user (`SU...`)."""

    def __init__(self, seed: bytes) -> None:
        fault = ProtocolError("seed", "not an nkey seed of type user (SU...)")
        seed = seed.strip()
        try:
            # nkeys does not look at the checksum: a typing error would make another identity.
            if not seed.startswith(b"SU") or not _checksum_holds(_from_base32(seed)):
                raise fault
            self._seed = bytearray(seed)
            self._pair = nkeys.from_seed(self._seed)
            self.public_key: str = self._pair.public_key.decode()
        except (nkeys.NkeysError, ValueError) as error:
            raise fault from error

    def curve25519_key(self) -> PrivateKey:
        """Return the key by which what others sealed to this one is opened (X25519)."""
        seed = bytes(nkeys.decode_seed(self._seed)[1])
        return SigningKey(seed).to_curve25519_private_key()

    def sign(self, payload: bytes) -> str:
        """Return the value of the header `Lender-Signature` for `payload`: unpadded base64url."""
        signature: bytes = self._pair.sign(payload)
        return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def seed_from_entropy(entropy: bytes) -> bytes:
    """Return the nkey seed of type user made from 32 random bytes."""
    seed: bytes = nkeys.encode_seed(entropy, nkeys.PREFIX_BYTE_USER)
    return seed


def verify(public_key: str, payload: bytes, signature: str | None) -> None:
    """Check that `signature` is `public_key`'s over exactly `payload`.

    Raises:
        ProtocolError: it is missing, malformed or someone else's; the field is `signature`.
    """
    if signature is None:
        raise ProtocolError("signature", f"missing: sign the payload, header {SIGNATURE_HEADER}")
    try:
        raw = base64.b64decode(
            signature + "=" * (-len(signature) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError) as error:
        raise ProtocolError("signature", "not base64url") from error
    if len(raw) != _SIGNATURE_BYTES:
        raise ProtocolError("signature", f"an Ed25519 signature has {_SIGNATURE_BYTES} bytes")
    try:
        VerifyKey(public_key_bytes(public_key)).verify(payload, raw)
    except BadSignatureError as error:
        raise ProtocolError("signature", "does not match the payload and the submitter") from error


def check_public_key(public_key: str) -> str:
    """Return `public_key` if it is a well-formed nkey of type user, checksum included.

    Raises:
        ProtocolError: it is not.
    """
    public_key_bytes(public_key)
    return public_key


@lru_cache(_KEYS_KEPT)
def public_key_bytes(public_key: str) -> bytes:
    """Return the 32 bytes of an Ed25519 key that is written as a public nkey of type user.

    Raises:
        ProtocolError: it is none.
    """
    fault = ProtocolError("submitter", "not a public nkey of type user (U..., 56 characters)")
    if len(public_key) != _PUBLIC_KEY_CHARS or not public_key.startswith("U"):
        raise fault
    try:
        raw = _from_base32(public_key.encode())
    except ValueError as error:
        raise fault from error
    if raw[0] != nkeys.PREFIX_BYTE_USER or not _checksum_holds(raw):
        raise fault
    return raw[1:-2]


def _from_base32(text: bytes) -> bytes:
    return base64.b32decode(text + b"=" * (-len(text) % 8))


def _checksum_holds(raw: bytes) -> bool:
    checksum: int = nkeys.crc16(bytearray(raw[:-2]))
    return checksum == int.from_bytes(raw[-2:], "little")
