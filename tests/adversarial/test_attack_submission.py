"""A submitter in the wrong hands: what it signs is bounded, and names are what they look like."""

import json
import time
from typing import Any

import pytest
from broker_parts import ALICE

from lender.protocol import bounds, codec
from lender.protocol.codec import ContentType
from lender.protocol.errors import ProtocolError
from lender.protocol.job import JobSpec

SHA = "ab" * 32
CYRILLIC_A = "\u0430"
FULL_WIDTH_1 = "\uff11"
ARABIC_1 = "\u0661"
ZERO_WIDTH = "\u200b"
TURNED = "\u202e"
LINE = "\u2028"


def fields(**changes: object) -> dict[str, Any]:
    now = time.time()
    return {
        "v": 1,
        "id": "job-00001",
        "submitter": ALICE.public_key,
        "workload": "command",
        "runtime": "process",
        "argv": ["true"],
        "created_at": now,
        "not_after": now + 60,
        **changes,
    }


def refused(payload: bytes, content_type: ContentType = codec.JSON) -> str:
    with pytest.raises(ProtocolError) as caught:
        codec.decode(JobSpec, payload, content_type)
    assert len(str(caught.value)) < 3000, "what is refused is not repeated"
    return caught.value.field


LOOK_ALIKES: list[dict[str, object]] = [
    {"workload": f"comm{CYRILLIC_A}nd"},
    {"workload": f"command{ZERO_WIDTH}"},
    {"workload": "COMMAND"},
    {"workload": "command\n"},
    {"id": f"job-0000{FULL_WIDTH_1}"},
    {"id": f"job-0000{ARABIC_1}"},
    {"id": "job-00001\n"},
    {"id": "job.00001"},
    {"id": "job-*"},
    {"submitter": ALICE.public_key.lower()},
    {"submitter": ALICE.public_key[:-1] + CYRILLIC_A},
    {"requires": {"pool": f"def{CYRILLIC_A}ult"}},
    {"requires": {"labels": [f"ss{ZERO_WIDTH}d"]}},
    {"requires": {"net": [f"ex{CYRILLIC_A}mple.org"]}},
    {"env": {f"P{CYRILLIC_A}TH": "/evil"}},
    {"env": {"A=B": "x"}},
    {"env": {"A": "x\x00LD_PRELOAD=/evil"}},
    {"argv": ["true\x00"]},
    {"name": f"backup{TURNED}gpj.exe"},
    {"name": f"a{ZERO_WIDTH}b"},
    {"name": "a\x1b[2Jb"},
    {"name": f"a{LINE}b"},
]


@pytest.mark.parametrize("change", LOOK_ALIKES, ids=ascii)
def test_a_name_that_passes_for_another_is_refused(change: dict[str, object]) -> None:
    (name,) = change
    assert refused(json.dumps(fields(**change)).encode()).startswith(name)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//x",
        "./x",
        "a/.",
        "a\\..\\x",
        "a\x00b",
        f"a{TURNED}b",
        f"a{LINE}b",
        f"a{ZERO_WIDTH}/b",
        "\x1b]0;owned\x07",
        "~\n",
        "x" * 241,
        "ä" * 128,
    ],
    ids=ascii,
)
def test_a_path_that_leads_out_or_deceives_is_refused(path: str) -> None:
    blob = {"name": path, "sha256": SHA, "size_bytes": 1}
    for change in ({"inputs": [blob]}, {"outputs": [path]}):
        (name,) = change
        assert refused(json.dumps(fields(**change)).encode()).startswith(name)


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ["x"] * (bounds.ARGV_ENTRIES_MAX + 1)},
        {"argv": ["x" * (bounds.ARGV_ENTRY_CHARS_MAX + 1)]},
        {"env": {f"A{n}": "x" for n in range(bounds.ENV_ENTRIES_MAX + 1)}},
        {"outputs": [f"o{n}" for n in range(bounds.OUTPUTS_MAX + 1)]},
        {"array": {"count": bounds.ARRAY_COUNT_MAX + 1}},
        {"array": {"count": 10**30}},
        {"limits": {"memory_bytes": 10**300}},
        {"limits": {"time_s": 1e308}},
        {"limits": {"scratch_bytes": -1}},
        {"limits": {"processes": 2**64}},
        {"retries": 10**9},
        {"priority": -(10**9)},
        {"name": "x" * 121},
        {"after": [{"job": f"job-{n:05}"} for n in range(bounds.AFTER_MAX + 1)]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    (name,) = change
    assert refused(json.dumps(fields(**change)).encode()).startswith(name)


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        (b"[" * 100_000, codec.JSON),
        (b'{"a":' * 100_000, codec.JSON),
        (b"\x91" * 100_000, codec.MSGPACK),
        (b"\x81\xa1a" * 30_000, codec.MSGPACK),
        (b"\xdd\xff\xff\xff\xff", codec.MSGPACK),
        (b"\xdf\xff\xff\xff\xff", codec.MSGPACK),
        (b"\xc6\xff\xff\xff\xff", codec.MSGPACK),
        (b'{"limits": {"time_s": NaN}}', codec.JSON),
        (b'{"limits": {"time_s": 1e999}}', codec.JSON),
        (b'{"retries": ' + b"9" * 5000 + b"}", codec.JSON),
        (b'{"id": "\xff"}', codec.JSON),
        (b'{"id": "\\ud800"}', codec.JSON),
    ],
    ids=range(12),
)
def test_bytes_that_grow_when_they_are_read_are_refused(
    payload: bytes, content_type: ContentType
) -> None:
    assert refused(payload, content_type)
