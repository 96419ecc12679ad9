"""What the broker says of itself as a NATS micro service, and what it counts."""

import pytest

from broker.core.endpoints import COMMAND, DONE, ENDPOINTS, ENROLL, QUERY, Endpoints, Instance
from broker.core.enrolment.messages import OperatorAnswer
from lender.protocol.enrolment import EnrolAnswer
from lender.protocol.lease import DoneReply
from lender.protocol.query import QueryReply

ME = Instance("id-1", "1.2.3", "2026-01-01T00:00:00Z")


def refused() -> EnrolAnswer:
    key = "U" + "A" * 55
    return EnrolAnswer.model_construct(key=key, commitment="ab" * 32, state="refused", reason="")


@pytest.mark.parametrize("leads", [True, False])
def test_each_verb_is_answered_as_adr_32_has_it(*, leads: bool) -> None:
    endpoints = Endpoints()
    who = {"name": "lender-broker", "id": "id-1", "version": "1.2.3"}
    metadata = {"leads": "true" if leads else "false", "protocol": "1"}
    told = {verb: endpoints.told(verb, ME, leads=leads) for verb in ("PING", "INFO", "STATS")}
    assert told["PING"] == {**who, "metadata": metadata, "type": "io.nats.micro.v1.ping_response"}
    for verb in ("INFO", "STATS"):
        assert told[verb] is not None
        assert told[verb].items() >= {**who, "metadata": metadata}.items()
        assert told[verb]["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
        named = [(one["name"], one["subject"]) for one in told[verb]["endpoints"]]
        assert named == [(one.name, one.subject) for one in ENDPOINTS]
    assert told["STATS"]["started"] == ME.started
    assert endpoints.told("DELETE", ME, leads=leads) is None


def test_requests_errors_and_times_are_counted_by_endpoint() -> None:
    endpoints = Endpoints()
    endpoints.asked(QUERY, 0.003)
    endpoints.asked(QUERY, 0.001)
    endpoints.asked(DONE, 0.5)
    for answer in (
        *(QueryReply(), QueryReply(error="evil\x1b words")),
        *(DoneReply(verdict="committed"), DoneReply(verdict="stale")),
        *(DoneReply(verdict="malformed"), DoneReply(verdict="malformed")),
        *(OperatorAnswer(), OperatorAnswer(error="no such code"), refused()),
    ):
        endpoints.answered(answer)
    told = endpoints.told("STATS", ME, leads=True)
    assert told is not None
    by_name = {one["name"]: one for one in told["endpoints"]}
    counts = {name: (one["num_requests"], one["num_errors"]) for name, one in by_name.items()}
    assert counts == {"query": (2, 1), "done": (1, 2), "enroll": (0, 1), "command": (0, 1)}
    query = by_name["query"]
    assert (query["processing_time"], query["average_processing_time"]) == (4_000_000, 2_000_000)
    # Whoever may look at counts is not told what others wrote.
    assert [one["last_error"] for one in told["endpoints"]] == [
        one.fault for one in (QUERY, DONE, ENROLL, COMMAND)
    ]
    assert Endpoints().told("STATS", ME, leads=True) != told


def test_an_answer_that_is_an_error_says_so_in_its_headers_too() -> None:
    """A header is one line of ASCII, whatever a stranger wrote."""
    answered = Endpoints().answered
    for fine in (QueryReply(), DoneReply(verdict="stale", reason="no"), OperatorAnswer()):
        assert answered(fine) == {}
    assert answered(QueryReply(error="job: caf\u00e9\r\nNats-Evil: 1\x1b")) == {
        "Nats-Service-Error": "job: caf\\xe9\\r Nats-Evil: 1\\x1b",
        "Nats-Service-Error-Code": "400",
    }
    assert answered(refused()) == {
        "Nats-Service-Error": "somebody was refused",
        "Nats-Service-Error-Code": "403",
    }
    assert len(answered(OperatorAnswer(error="x" * 10_000))["Nats-Service-Error"]) == 500
