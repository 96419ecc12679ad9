"""Bytes to models and back: what is accepted, and what a sender is told."""

import base64
import json

import msgpack
import pytest
from core_world import make_spec

from lender.protocol.codec import JSON, MSGPACK, content_type_of, decode, encode
from lender.protocol.errors import ProtocolError
from lender.protocol.job import JobSpec
from lender.protocol.lease import Done, Offer
from lender.protocol.result import TaskResult


def fault(model: type, payload: bytes, content_type: str = MSGPACK) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode(model, payload, content_type)  # type: ignore[arg-type]  # a test's choice
    return caught.value


def test_no_header_means_messagepack_and_json_may_name_its_charset() -> None:
    assert content_type_of(None) == MSGPACK
    assert content_type_of(MSGPACK) == MSGPACK
    assert content_type_of("application/json") == JSON
    assert content_type_of("Application/JSON; charset=utf-8") == JSON
    with pytest.raises(ProtocolError, match="Content-Type must be"):
        content_type_of("text/html")


def test_json_carries_bytes_as_standard_base64_and_reads_either_alphabet() -> None:
    value = b"\xff\xfe\xfb?>"
    sent = json.loads(encode(TaskResult(task=0, state="succeeded", value=value), JSON))
    assert base64.b64decode(sent["value"], validate=True) == value
    for text in ("//77Pz4=", "__77Pz4=", "__77Pz4"):
        payload = json.dumps({"task": 0, "state": "succeeded", "value": text}).encode()
        assert decode(TaskResult, payload, JSON).value == value


def test_messagepack_carries_bytes_as_they_are() -> None:
    packed = encode(TaskResult(task=0, state="succeeded", value=b"\xff"))
    assert msgpack.unpackb(packed)["value"] == b"\xff"


def test_what_is_none_is_left_out() -> None:
    assert b"limit" not in encode(TaskResult(task=0, state="failed"), JSON)
    assert "limit" not in msgpack.unpackb(encode(TaskResult(task=0, state="failed")))


def test_a_submitters_unknown_field_is_refused_by_name() -> None:
    fields = make_spec().model_dump(exclude_none=True) | {"colour": "red"}
    told = fault(JobSpec, msgpack.packb(fields))
    assert (told.field, told.reason) == ("colour", "unknown field")
    nested = make_spec().model_dump(exclude_none=True)
    nested["limits"]["gpus"] = 1
    assert fault(JobSpec, msgpack.packb(nested)).field == "limits.gpus"


def test_a_peers_unknown_field_is_ignored() -> None:
    payload = msgpack.packb({"task": 3, "state": "failed", "mood": "good"})
    assert decode(TaskResult, payload) == TaskResult(task=3, state="failed")


def test_the_wrong_type_is_told_by_field() -> None:
    assert fault(TaskResult, msgpack.packb({"task": "3", "state": "failed"})).field == "task"
    assert fault(TaskResult, b'{"task": 1.5, "state": "failed"}', JSON).field == "task"
    assert fault(TaskResult, b"[]", JSON).field == "payload"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_is_infinite(number: str) -> None:
    payload = f'{{"task": 0, "state": "failed", "cpu_s": {number}}}'.encode()
    assert fault(TaskResult, payload, JSON).field == "cpu_s"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\x80\x80",
        b"\x81\x01\x02",
        b"\x91" * 5000 + b"\x00",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xa4\xff\xff\xff\xff",
    ],
)
def test_malformed_messagepack_is_a_fault_of_the_payload(payload: bytes) -> None:
    assert fault(Done, payload).field == "payload"


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b'{"a":' * 5000, b'"\\ud800"'])
def test_malformed_json_is_a_fault_of_the_payload(payload: bytes) -> None:
    assert fault(Done, payload, JSON).field == "payload"


def test_what_a_sender_is_told_is_bounded() -> None:
    fields = make_spec().model_dump(exclude_none=True) | {"x" * 100_000: 1}
    assert len(fault(JobSpec, msgpack.packb(fields)).field) == 200


def test_an_offer_bounds_its_lists() -> None:
    payload = msgpack.packb({"classes": ["c"] * 4097})
    assert fault(Offer, payload).field in {"lender", "classes"}
