"""Contents that only machines of a submitter's choice can read: what is stored is ciphertext.

A sealed job has a key of its own, 32 bytes, which travels in the signed specification: once for
each lender that may run it and once for its submitter, encrypted to that one's identity (X25519
and XSalsa20-Poly1305, libsodium's sealed box; an Ed25519 key serves for both, Thormarker 2021).
Contents are encrypted in pieces by XChaCha20-Poly1305 (libsodium's secretstream), so that none is
too large, and each is bound to its purpose: none can be passed off as another of the same job.
Nonces come from libsodium. docs/protocol.md has the bytes for other languages.
"""

import base64
import binascii
import io
from collections.abc import Iterator
from typing import Final, Protocol

import msgpack
from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.public import SealedBox
from nacl.signing import VerifyKey

from lender.protocol.bounds import STDERR_TAIL_BYTES_MAX
from lender.protocol.errors import ProtocolError
from lender.protocol.result import TaskResult
from lender.protocol.signature import Signer, public_key_bytes

KEY_BYTES: Final = bindings.crypto_secretstream_xchacha20poly1305_KEYBYTES
PIECE_BYTES: Final = 64 * 1024
"""Of plain text, in each piece but the last, which may be shorter or empty."""

HEADER_BYTES: Final = bindings.crypto_secretstream_xchacha20poly1305_HEADERBYTES
_TAG_BYTES: Final = bindings.crypto_secretstream_xchacha20poly1305_ABYTES
_FINAL: Final = bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
SEALED_PIECE_BYTES: Final = PIECE_BYTES + _TAG_BYTES

_DOMAIN = "lender.sealed/1"
_ERROR_CHARS_MAX = 500
_PACKING_BYTES = 4 * _ERROR_CHARS_MAX + 16
SEALED_TAIL_BYTES_MAX: Final = STDERR_TAIL_BYTES_MAX - HEADER_BYTES - _TAG_BYTES - _PACKING_BYTES
"""Of standard error, beside an error of any length, in no more than an open result has room for."""


class SealBrokenError(Exception):
    """It was not sealed by this key for this purpose, or not all of it is there."""


class Source(Protocol):
    """What pieces are read from; a short read means its end."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""


def purpose(kind: str, *names: str | int) -> bytes:
    """Return what a content is bound to: `program`, `input NAME`, `value TASK`, and so on."""
    return "\0".join([_DOMAIN, kind, *map(str, names)]).encode()


def seal_key(key: bytes, recipient: str) -> str:
    """Return a job's key as only `recipient` can open it: unpadded base64url.

    Raises:
        ProtocolError: the recipient's is no public key.
    """
    try:
        curve = VerifyKey(public_key_bytes(recipient)).to_curve25519_public_key()
    except RuntimeError as error:  # a point of small order: nobody has made it from a seed
        raise ProtocolError("sealing.keys", f"nothing can be sealed to {recipient}") from error
    return base64.urlsafe_b64encode(SealedBox(curve).encrypt(key)).rstrip(b"=").decode()


def open_key(sealed: str, signer: Signer) -> bytes:
    """Return the job's key that was sealed to this signer.

    Raises:
        SealBrokenError: it was not.
    """
    try:
        raw = base64.b64decode(sealed + "=" * (-len(sealed) % 4), altchars=b"-_", validate=True)
        key: bytes = SealedBox(signer.curve25519_key()).decrypt(raw)
    except (binascii.Error, ValueError, TypeError, CryptoError) as error:
        raise SealBrokenError("the job's key is not sealed to this one") from error
    if len(key) != KEY_BYTES:
        raise SealBrokenError(f"a job's key has {KEY_BYTES} bytes")
    return key


def sealed_size(size_bytes: int) -> int:
    """Return how long a content of so many bytes is once it is sealed."""
    pieces = max(1, -(-size_bytes // PIECE_BYTES))
    return HEADER_BYTES + size_bytes + pieces * _TAG_BYTES


def sealed_pieces(key: bytes, bound_to: bytes, source: Source) -> Iterator[bytes]:
    """Yield a content as ciphertext: a header, then a piece for each `PIECE_BYTES` of it."""
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    yield bindings.crypto_secretstream_xchacha20poly1305_init_push(state, key)
    piece, last = source.read(PIECE_BYTES), False
    while not last:
        after = source.read(PIECE_BYTES)
        last = not after
        tag = _FINAL if last else 0
        yield bindings.crypto_secretstream_xchacha20poly1305_push(state, piece, bound_to, tag)
        piece = after


def opened_pieces(key: bytes, bound_to: bytes, source: Source) -> Iterator[bytes]:
    """Yield a content's plain text. None of it counts before the last piece was yielded.

    Raises:
        SealBrokenError: it was altered, cut short, or sealed by another key or for another purpose.
    """
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    header = source.read(HEADER_BYTES)
    if len(header) != HEADER_BYTES:
        raise SealBrokenError("it is shorter than anything that is sealed")
    bindings.crypto_secretstream_xchacha20poly1305_init_pull(state, header, key)
    tag = 0
    while tag != _FINAL:
        piece = source.read(SEALED_PIECE_BYTES)
        if len(piece) < _TAG_BYTES:
            raise SealBrokenError("its end is missing")
        try:
            plain, tag = bindings.crypto_secretstream_xchacha20poly1305_pull(state, piece, bound_to)
        except (RuntimeError, CryptoError) as error:
            raise SealBrokenError(
                "it was altered, or sealed by another key or for another purpose"
            ) from error
        yield plain
    if source.read(1):
        raise SealBrokenError("something follows behind its end")


def seal(key: bytes, bound_to: bytes, content: bytes) -> bytes:
    """Return a whole content as ciphertext."""
    return b"".join(sealed_pieces(key, bound_to, io.BytesIO(content)))


def unseal(key: bytes, bound_to: bytes, content: bytes) -> bytes:
    """Return a whole content as plain text.

    Raises:
        SealBrokenError: see `opened_pieces`.
    """
    return b"".join(opened_pieces(key, bound_to, io.BytesIO(content)))


def seal_words(key: bytes, task: int, error: str | None, stderr_tail: bytes) -> bytes:
    """Return what a task said on its way as the sealed `stderr_tail` of its result.

    Both lose their beginnings where they are too long for it. Empty where it said nothing.
    """
    if error is None and not stderr_tail:
        return b""
    kept = stderr_tail[-SEALED_TAIL_BYTES_MAX:]
    words = msgpack.packb([None if error is None else error[-_ERROR_CHARS_MAX:], kept])
    return seal(key, purpose("words", task), words)


def unseal_result(key: bytes, result: TaskResult) -> TaskResult:
    """Return a result with its inline value, error and standard error as plain text.

    What the broker says of a task that nobody ended is not sealed, and says nothing of a task.

    Raises:
        SealBrokenError: something in it was not sealed by this key for this task.
    """
    changes: dict[str, object] = {}
    if result.value:
        changes["value"] = unseal(key, purpose("value", result.task), result.value)
    if result.stderr_tail:
        words = unseal(key, purpose("words", result.task), result.stderr_tail)
        error, stderr_tail = _words(words)
        changes |= {"stderr_tail": stderr_tail, "error": error or result.error}
    return result.model_copy(update=changes)


def _words(packed: bytes) -> tuple[str | None, bytes]:
    try:
        error, stderr_tail = msgpack.unpackb(packed)
    except Exception as fault:  # msgpack raises ValueError and others
        raise SealBrokenError("what a task said is no pair") from fault
    if not isinstance(error, str | None) or not isinstance(stderr_tail, bytes):
        raise SealBrokenError("what a task said is no pair")
    return error, stderr_tail
