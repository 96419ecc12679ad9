"""What the broker is asked, and what it says of that: a NATS micro service (ADR-32).

Source: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from broker.core.enrolment.messages import OperatorAnswer
from lender.protocol import subjects
from lender.protocol.enrolment import EnrolAnswer
from lender.protocol.lease import DoneReply
from lender.protocol.query import QueryReply
from lender.protocol.strangers_text import visible
from lender.protocol.version import PROTOCOL

Answer = DoneReply | QueryReply | OperatorAnswer | EnrolAnswer

ERROR_HEADER, ERROR_CODE_HEADER = "Nats-Service-Error", "Nats-Service-Error-Code"

_ERROR_CHARS_MAX = 500
_TYPE = "io.nats.micro.v1.{}_response"
_DESCRIPTION = "gives submitters' jobs to the machines that lend"


class Endpoint(NamedTuple):
    """Requests of one kind."""

    name: str
    subject: str
    fault: str
    """Said of the last request that was answered by an error: none of a stranger's words."""
    code: str
    """Of an answer that is an error, in a header; as HTTP has it."""


QUERY = Endpoint("query", subjects.QUERY_FILTER, "a question was malformed, or one too many", "400")
DONE = Endpoint("done", subjects.DONE_FILTER, "a report was malformed", "400")
ENROLL = Endpoint("enroll", subjects.ENROL, "somebody was refused", "403")
COMMAND = Endpoint(
    "command", subjects.ENROLMENT_FILTER, "a command of the operator's failed", "400"
)

ENDPOINTS = (QUERY, DONE, ENROLL, COMMAND)

_ANSWERED_BY: dict[type[Answer], Endpoint] = {
    QueryReply: QUERY,
    DoneReply: DONE,
    EnrolAnswer: ENROLL,
    OperatorAnswer: COMMAND,
}


class Instance(NamedTuple):
    """One broker's process."""

    id: str
    version: str
    started: str
    """RFC 3339."""


@dataclass(slots=True)
class _Count:
    requests: int = 0
    errors: int = 0
    spent_s: float = 0.0


class Endpoints:
    """Counts requests since the process began, and answers PING, INFO and STATS."""

    def __init__(self) -> None:
        self._counts = {one: _Count() for one in ENDPOINTS}

    def asked(self, endpoint: Endpoint, took_s: float = 0.0) -> None:
        """Count a request that was taken up, for so long."""
        count = self._counts[endpoint]
        count.requests += 1
        count.spent_s += took_s

    def answered(self, answer: Answer) -> dict[str, str]:
        """Look at an answer, which may be an error; returns the headers that say so (ADR-32)."""
        error = _error_of(answer)
        if error is None:
            return {}
        endpoint = _ANSWERED_BY[type(answer)]
        self._counts[endpoint].errors += 1
        line = visible(error or endpoint.fault)[:_ERROR_CHARS_MAX].replace("\n", " ")
        text = line.encode("ascii", "backslashreplace").decode()
        return {ERROR_HEADER: text, ERROR_CODE_HEADER: endpoint.code}

    def told(self, verb: str, instance: Instance, *, leads: bool) -> dict[str, Any] | None:
        """Return the answer to a verb of ADR-32; None where it is none.

        Args:
            verb: `PING`, `INFO` or `STATS`.
            instance: who answers.
            leads: whether it serves now; the others stand by.
        """
        if verb not in ("PING", "INFO", "STATS"):
            return None
        told: dict[str, Any] = {
            "type": _TYPE.format(verb.lower()),
            "name": subjects.SERVICE,
            "id": instance.id,
            "version": instance.version,
            "metadata": {"leads": str(leads).lower(), "protocol": str(PROTOCOL)},
        }
        if verb == "INFO":
            told |= {"description": _DESCRIPTION, "endpoints": [_named(one) for one in ENDPOINTS]}
        if verb == "STATS":
            endpoints = [_counted(one, count) for one, count in self._counts.items()]
            told |= {"started": instance.started, "endpoints": endpoints}
        return told


def _error_of(answer: Answer) -> str | None:
    """Return what is said of an error, None of what is none."""
    match answer:
        case DoneReply():
            return answer.reason if answer.verdict == "malformed" else None
        case EnrolAnswer():
            return answer.reason if answer.state == "refused" else None
        case _:
            return answer.error or None


def _named(endpoint: Endpoint) -> dict[str, Any]:
    # No queue group: whoever leads answers, and nobody else listens.
    return {
        "name": endpoint.name,
        "subject": endpoint.subject,
        "queue_group": "",
        "metadata": {},
    }


def _counted(endpoint: Endpoint, count: _Count) -> dict[str, Any]:
    spent_ns = int(count.spent_s * 1e9)
    return {
        "name": endpoint.name,
        "subject": endpoint.subject,
        "queue_group": "",
        "num_requests": count.requests,
        "num_errors": count.errors,
        "last_error": endpoint.fault if count.errors else "",
        "processing_time": spent_ns,
        "average_processing_time": spent_ns // max(1, count.requests),
    }
