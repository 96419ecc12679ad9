"""Which trace a job belongs to: what is one, and that earlier versions need not know."""

import pytest
from core_world import make_spec
from pydantic import ValidationError

from lender.protocol.codec import JSON, MSGPACK, decode, encode
from lender.protocol.job import JobSpec
from lender.protocol.trace import is_traceparent

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("trace", [TRACE, TRACE[:-2] + "00", "cc" + TRACE[2:]])
def test_a_job_names_its_trace_on_either_wire(trace: str) -> None:
    assert is_traceparent(trace)
    spec = make_spec(traceparent=trace)
    for content_type in (JSON, MSGPACK):
        assert decode(JobSpec, encode(spec, content_type), content_type).traceparent == trace


@pytest.mark.parametrize(
    "text",
    [
        "",
        TRACE.upper(),
        TRACE + "\n",
        TRACE + "-00",
        TRACE[:-1],
        "ff" + TRACE[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)
def test_what_is_no_trace_is_refused(text: str) -> None:
    assert not is_traceparent(text)
    with pytest.raises(ValidationError, match="traceparent"):
        make_spec(traceparent=text)


def test_who_names_none_sends_what_earlier_versions_read() -> None:
    assert b"traceparent" not in encode(make_spec(), JSON)
