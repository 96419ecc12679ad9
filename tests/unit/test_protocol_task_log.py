"""What is taken as a piece of a task's log, and what is refused."""

import pytest

from lender.protocol import bounds
from lender.protocol.codec import JSON, MSGPACK, ContentType, decode, encode
from lender.protocol.errors import ProtocolError
from lender.protocol.task_log import TaskLogPiece

FIELDS = {"task": 3, "attempt": 2, "offset_bytes": 40, "content": b"\x1b[2Jhere\n\xff"}


def piece(**changes: object) -> TaskLogPiece:
    return TaskLogPiece.model_validate(FIELDS | changes)


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
def test_any_bytes_travel_in_both_content_types(content_type: ContentType) -> None:
    sent = piece(left_out_bytes=7)
    assert decode(TaskLogPiece, encode(sent, content_type), content_type) == sent


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", -1),
        ("task", bounds.ARRAY_COUNT_MAX),
        ("attempt", 0),
        ("offset_bytes", -1),
        ("offset_bytes", bounds.LOG_BYTES_MAX + 1),
        ("left_out_bytes", -1),
        ("left_out_bytes", bounds.LOG_BYTES_MAX + 1),
        ("content", b"x" * (bounds.LOG_PIECE_BYTES_MAX + 1)),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(field: str, value: object) -> None:
    payload = encode(piece().model_copy(update={field: value}))
    with pytest.raises(ProtocolError) as caught:
        decode(TaskLogPiece, payload)
    assert caught.value.field == field


def test_the_largest_piece_is_no_large_message() -> None:
    largest = piece(content=b"x" * bounds.LOG_PIECE_BYTES_MAX)
    assert len(encode(largest, JSON)) < 16 * 1024
