"""Bytes to validated models and back, in MessagePack or JSON.

The content type stands in the header `Content-Type`. JSON carries byte strings as base64
(RFC 4648, section 4); MessagePack carries them as they are.
"""

import base64
from typing import Annotated, Any, Literal, TypeVar

import msgpack
from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError

from lender.protocol import bounds
from lender.protocol.errors import ProtocolError

ContentType = Literal["application/json", "application/msgpack"]
JSON: ContentType = "application/json"
MSGPACK: ContentType = "application/msgpack"

CONTENT_TYPE_HEADER = "Content-Type"

UNPACK_ERRORS = (
    ValueError,
    msgpack.exceptions.UnpackException,
    msgpack.exceptions.ExtraData,
    RecursionError,
)
"""What msgpack raises of bytes that are none of its own."""

_FIELD_CHARS_MAX = 200
_REASON_CHARS_MAX = 2000


def _to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


# Pydantic by itself writes the URL-safe alphabet, which strict decoders elsewhere refuse.
Bytes = Annotated[bytes, PlainSerializer(_to_base64, when_used="json")]
"""A byte string: itself in MessagePack, base64 in JSON. Either alphabet is read."""


class Closed(BaseModel):
    """Base of what a submitter writes: an unknown field is a mistake, and is refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, val_json_bytes="base64", allow_inf_nan=False
    )


class Open(BaseModel):
    """Base of what lenders and brokers write: a newer peer's unknown fields are ignored."""

    model_config = ConfigDict(
        extra="ignore", strict=True, frozen=True, val_json_bytes="base64", allow_inf_nan=False
    )


Model = TypeVar("Model", bound=BaseModel)


def content_type_of(header: str | None) -> ContentType:
    """Return the content type that a header names; no header means MessagePack.

    Raises:
        ProtocolError: any other type.
    """
    if header is None or header == MSGPACK:
        return MSGPACK
    if header.split(";")[0].strip().lower() == JSON:
        return JSON
    raise ProtocolError("payload", f"{CONTENT_TYPE_HEADER} must be {JSON} or {MSGPACK}")


def encode(message: BaseModel, content_type: ContentType = MSGPACK) -> bytes:
    """Encode a model; fields that hold None are left out."""
    if content_type == JSON:
        return message.model_dump_json(exclude_none=True).encode()
    packed: bytes = msgpack.packb(message.model_dump(exclude_none=True))
    return packed


def decode(model: type[Model], payload: bytes, content_type: ContentType = MSGPACK) -> Model:
    """Decode and validate `payload`.

    Raises:
        ProtocolError: not well-formed, or not a `model`; the field names the first fault.
    """
    if content_type == MSGPACK:
        return validated(model, unpacked(payload))
    try:
        return model.model_validate_json(payload)
    except ValidationError as error:
        raise _first_fault(error) from error


def unpacked(payload: bytes) -> Any:  # noqa: ANN401 - whatever stands there
    """Take MessagePack apart.

    Raises:
        ProtocolError: not well-formed.
    """
    # Tuples, because strict validation takes no list for a tuple.
    entries_max = min(len(payload), bounds.LIST_ENTRIES_MAX)
    try:
        return msgpack.unpackb(payload, use_list=False, max_array_len=entries_max)
    except UNPACK_ERRORS as error:
        raise ProtocolError("payload", f"malformed MessagePack: {error}") from error


def validated(model: type[Model], fields: object) -> Model:
    """Make a model of what MessagePack held.

    Raises:
        ProtocolError: it is none; the field names the first fault.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _first_fault(error) from error


def _first_fault(error: ValidationError) -> ProtocolError:
    fault = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in fault["loc"]) or "payload"
    reason = "unknown field" if fault["type"] == "extra_forbidden" else fault["msg"]
    return ProtocolError(field[:_FIELD_CHARS_MAX], reason[:_REASON_CHARS_MAX])
