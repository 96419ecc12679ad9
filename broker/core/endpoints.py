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
from lender.protocol.version import PROTOCOL

Answer = DoneReply | QueryReply | OperatorAnswer | EnrolAnswer

_TYPE = "io.nats.micro.v1.{}_response"
_DESCRIPTION = "gives submitters' jobs to the machines that lend"


class Endpoint(NamedTuple):
    """Requests of one kind."""

    name: str
    subject: str
    fault: str
    """Said of the last request that was answered by an error: none of a stranger's words."""


QUERY = Endpoint("query", subjects.QUERY_FILTER, "a question was malformed, or one too many")
DONE = Endpoint("done", subjects.DONE_FILTER, "a report was malformed")
ENROLL = Endpoint("enroll", subjects.ENROL, "somebody was refused")
COMMAND = Endpoint("command", subjects.ENROLMENT_FILTER, "a command of the operator's failed")

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

    def answered(self, answer: Answer) -> None:
        """Look at an answer: it may be an error."""
        if _is_error(answer):
            self._counts[_ANSWERED_BY[type(answer)]].errors += 1

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


def _is_error(answer: Answer) -> bool:
    match answer:
        case DoneReply():
            return answer.verdict == "malformed"
        case EnrolAnswer():
            return answer.state == "refused"
        case _:
            return bool(answer.error)


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
