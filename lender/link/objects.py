"""How an object of the standard object store (ADR-20) lies in its stream.

An object's last metadata message, JSON on `$O.<bucket>.M.<name>`, names the subject of its
chunks, `$O.<bucket>.C.<nuid>`; its content is their payloads in order.
"""

import base64
import json
import re
from typing import Any, NamedTuple

from lender.link.errors import LinkError
from lender.link.message import StoredMessage

BUCKET = "blobs"
STREAM = f"OBJ_{BUCKET}"

_DIGEST_TYPE = "SHA-256="
_NUID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class BlobError(LinkError):
    """Something is wrong with a blob; `sha256` says which."""

    def __init__(self, sha256: str, reason: str) -> None:
        super().__init__(f"blob {sha256}: {reason}")
        self.sha256 = sha256


class BlobMissingError(BlobError):
    """The store does not hold it; mend: put it again."""


class BlobCorruptError(BlobError):
    """What the store holds under this name is something else, or incomplete."""


class BlobTooLargeError(BlobError):
    """It is larger than the reader allows."""


class Entry(NamedTuple):
    """What the store says about an object that is there."""

    nuid: str
    size: int


def meta_subject(sha256: str) -> str:
    """Where the object called `sha256` has its metadata."""
    return f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(sha256.encode()).decode()}"


def chunk_subject(nuid: str) -> str:
    """Where an object has its chunks."""
    return f"$O.{BUCKET}.C.{nuid}"


def meta(sha256: str, nuid: str, size: int, chunks: int, chunk_bytes: int) -> bytes:
    """Write the metadata of an object named by its digest."""
    return json.dumps(
        {
            "name": sha256,
            "options": {"max_chunk_size": chunk_bytes},
            "bucket": BUCKET,
            "nuid": nuid,
            "size": size,
            "mtime": "0001-01-01T00:00:00Z",  # readers take the message's own time
            "chunks": chunks,
            "digest": _digest_text(sha256),
        }
    ).encode()


def entry(sha256: str, message: StoredMessage) -> Entry | None:
    """Read an object's metadata, whoever wrote it; None for a deleted object.

    Raises:
        BlobCorruptError: it is no metadata, or that of other content.
    """
    try:
        fields: dict[str, Any] = json.loads(message.payload)
        if fields.get("deleted"):
            return None
        nuid, size, digest = fields["nuid"], fields["size"], fields["digest"]
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise BlobCorruptError(sha256, f"its metadata can't be read ({error!r})") from None
    well_formed = (
        isinstance(nuid, str) and _NUID.fullmatch(nuid) and type(size) is int and size >= 0
    )
    if not well_formed:
        raise BlobCorruptError(sha256, "its metadata makes no sense")
    # Some writers leave the padding out.
    if not isinstance(digest, str) or digest.rstrip("=") != _digest_text(sha256).rstrip("="):
        raise BlobCorruptError(sha256, "the store holds other content under this name")
    return Entry(nuid, size)


def _digest_text(sha256: str) -> str:
    return _DIGEST_TYPE + base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode()
