# noqa: INP001 - beside a script, run by its path
"""What travels on which subject: messages and channels, for docs/asyncapi.json.

Who may use a channel is not said here: that is the table of permissions
(`lender.protocol.permissions`), of which `generate_asyncapi.py` makes the operations.
"""

from typing import Any, NamedTuple

from broker.core.durable.records import SUMMARY_HEADER
from broker.core.endpoints import ERROR_CODE_HEADER, ERROR_HEADER
from broker.core.leasing.feed import COPY_HEADER, FAILURES_HEADER
from broker.core.leasing.holding import STATE_HEADER
from broker.core.leasing.locality import NEAR_HEADER
from lender.protocol import bounds, permissions, streams, subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, JSON, MSGPACK
from lender.protocol.signature import SIGNATURE_HEADER
from lender.protocol.subjects import SUBJECT_HEADER

S, L, J = "{submitter}", "{lender}", "{job}"
_GET = "$JS.API.DIRECT.GET"

PARAMETERS = {
    "submitter": "public key of a submitter: an NATS nkey of type user",
    "lender": "public key of a lender, or `all` where the broker speaks to each of them",
    "job": "the job's id, chosen by its submitter: 8 to 64 characters of A-Z a-z 0-9 _ -",
    "task": "the smallest task index in the chunk",
    "by": "who has stored it: S, or a lender",
    "sha256": "of the whole content, in lower-case hexadecimal",
    "place": "the week in which it is stored, a hyphen, and the number of the piece, from 0",
    "class": "whose work for which machines: `<pool>_<runtime>_<arch>_<gpu>_<S>_<workload>`, "
    "or `assign_<L>`",
    "token": "made up by who began it",
    "kind": "`cp`, `vote` or `retry`",
    "number": "counted for each job and kind",
    "word": "which of the operator's commands",
    "role": "`lender`, `submitter`, or `token` for a join token",
    "key": "public key of who was let in, or the digest of a join token",
    "broker": "the id of a broker's process",
    "delivery": "of which delivery, as the server wrote it in the reply subject of the message",
    "verb": "`PING`, `INFO` or `STATS`",
    "call": "the rest of the subject, of several tokens",
}


class Message(NamedTuple):
    """What a message holds; `schema` is a file in docs/schemas, or a schema itself."""

    text: str
    schema: str | dict[str, Any] | None
    headers: dict[str, str | tuple[str, ...]]
    """Each header's text, or its only values."""
    required: tuple[str, ...] = ()
    content_type: str | None = None
    """None: as the header `Content-Type` says, else MessagePack."""


class Channel(NamedTuple):
    """A subject, what is published there, and what is answered to it."""

    name: str
    address: str
    text: str
    messages: tuple[str, ...]
    replies: tuple[str, ...] = ()


_EITHER: dict[str, str | tuple[str, ...]] = {CONTENT_TYPE_HEADER: (JSON, MSGPACK)}
_PACKED: dict[str, str | tuple[str, ...]] = {CONTENT_TYPE_HEADER: (MSGPACK,)}
_SIGNED = {SIGNATURE_HEADER: "unpadded base64url of the Ed25519 signature over the payload's bytes"}
_KEPT = {SUMMARY_HEADER: "the broker's summary as JSON, for its own replay; others ignore it"}
_FAULT = {
    ERROR_HEADER: "what is wrong, where the answer is an error (ADR-32)",
    ERROR_CODE_HEADER: "400, or 403 for who is not let in",
}
_OF = {SUBJECT_HEADER: "the subject in RESULTS that the event is a copy of"}
_OWN = "the brokers' own, which may change with any version"
_OBJECT = {"type": "object"}

MESSAGES: dict[str, Message] = {
    "Submission": Message(
        "a job, signed by its submitter", "JobSpec", _EITHER | _SIGNED, (SIGNATURE_HEADER,)
    ),
    "Cancellation": Message("ends a job; the payload is empty", None, {}),
    "Terminal": Message("how a job has ended: exactly one of each", "Terminal", _EITHER | _KEPT),
    "Chunk": Message("results of some tasks of an array", "Chunk", _EITHER | _KEPT),
    "TerminalEvent": Message(
        "a copy of what was just committed", "Terminal", _EITHER | _OF, (SUBJECT_HEADER,)
    ),
    "ChunkEvent": Message(
        "a copy of what was just committed", "Chunk", _EITHER | _OF, (SUBJECT_HEADER,)
    ),
    "StatusEvent": Message(
        "news of a job that goes on",
        "QueryReply.json#/$defs/JobStatus",
        _EITHER | {STATE_HEADER: ("running",)},
        (STATE_HEADER,),
    ),
    "TaskLogPiece": Message(
        "what a task writes, in the job's content type", "TaskLogPiece", _EITHER
    ),
    "Piece": Message(
        f"a piece of a content, {bounds.PIECE_BYTES:,} bytes; the last may be shorter",
        {"type": "string", "format": "binary"},
        {},
        content_type="application/octet-stream",
    ),
    "Query": Message("a question about jobs", "Query", _EITHER),
    "QueryReply": Message(
        "what the broker knows, in the query's type", "QueryReply", _EITHER | _FAULT
    ),
    "EnrolRequest": Message(
        "who asks to be let in; the server adds from which line",
        "EnrolRequest",
        _PACKED | _SIGNED,
        (SIGNATURE_HEADER,),
    ),
    "EnrolAnswer": Message("what became of it so far", "EnrolAnswer", _PACKED | _FAULT),
    "Offer": Message("what a lender can run now; its heartbeat", "Offer", _PACKED),
    "Control": Message("what has work, what to stop and to start", "Control", _PACKED),
    "Lease": Message(
        "tasks of one job, with the signed specification",
        "Lease",
        _PACKED
        | {
            FAILURES_HEADER: "how often each task has failed; for the broker's replay",
            COPY_HEADER: "the lease that has the same tasks; for the broker's replay",
            NEAR_HEADER: "whose own queue it is in; for the broker's replay",
        },
    ),
    "Done": Message("results of a lease, or its end", "Done", _PACKED),
    "DoneReply": Message("whether they are committed", "DoneReply", _PACKED | _FAULT),
    "LogHead": Message(
        "the last line of a log of receipts",
        "LogHead",
        {CONTENT_TYPE_HEADER: (JSON,)} | _SIGNED,
        (SIGNATURE_HEADER,),
        JSON,
    ),
    "Leader": Message(
        "which broker serves",
        {
            "type": "object",
            "required": ["broker", "protocol", "version"],
            "properties": {
                "broker": {"type": ["string", "null"]},
                "protocol": {"type": "integer"},
                "version": {"type": "string"},
            },
        },
        {},
        content_type=JSON,
    ),
    "PublishAck": Message(
        "JetStream's: stored, or why not (`error.err_code` 10077: the subject is taken)",
        {
            "type": "object",
            "properties": {
                "stream": {"type": "string"},
                "seq": {"type": "integer"},
                "error": {
                    "type": "object",
                    "properties": {
                        "code": {"type": "integer"},
                        "err_code": {"type": "integer"},
                        "description": {"type": "string"},
                    },
                },
            },
        },
        {},
        content_type=JSON,
    ),
    "Ask": Message("the payload is empty: the subject says it all", None, {}),
    "NothingThere": Message(
        "there is no such message; the status stands in the header line", None, {"Status": ("404",)}
    ),
    "Pull": Message("how many leases, and for how long to wait", _OBJECT, {}, content_type=JSON),
    "Delivered": Message(
        "`+ACK`, `+WPI`, `+TERM`, or `-NAK` with a delay in JSON",
        {"type": "string"},
        {},
        content_type="text/plain",
    ),
    "ServerRequest": Message("of the NATS server's own protocol", _OBJECT, {}, content_type=JSON),
    "ServerAnswer": Message("of the NATS server's own protocol", _OBJECT, {}, content_type=JSON),
    "Note": Message(f"what a replay goes by: {_OWN}", _OBJECT, _KEPT),
    "ServiceAnswer": Message(
        "of a NATS micro service (ADR-32): who is there, and how much it is asked",
        _OBJECT,
        {CONTENT_TYPE_HEADER: (JSON,)},
        content_type=JSON,
    ),
    "Command": Message(f"of `lender-broker` on the operator's machine: {_OWN}", _OBJECT, _PACKED),
    "CommandAnswer": Message(f"to the operator: {_OWN}", _OBJECT, _PACKED),
    "Admission": Message(f"who was let in, or a join token: {_OWN}", _OBJECT, _PACKED),
}

_STORED = ("PublishAck",)

CHANNELS: tuple[Channel, ...] = (
    Channel("submit", subjects.submit(S, J), "jobs; kept in JOBS", ("Submission",), _STORED),
    Channel("cancel", subjects.cancel(S, J), "kept in JOBS", ("Cancellation",), _STORED),
    Channel(
        "event",
        subjects.event(S, J),
        "copies of what was just committed; may be lost",
        ("TerminalEvent", "ChunkEvent", "StatusEvent"),
    ),
    Channel("log", subjects.task_log(S, J, L), "logs, live; may be lost", ("TaskLogPiece",)),
    Channel("result", subjects.result(S, J), "kept in RESULTS", ("Terminal",), _STORED),
    Channel("chunk", f"{subjects.result(S, J)}.{{task}}", "kept in RESULTS", ("Chunk",), _STORED),
    Channel("begun", subjects.begun(S, J), "kept in RESULTS", ("Note",), _STORED),
    Channel("note", f"res.{S}.{J}.{{kind}}.{{number}}", "kept in RESULTS", ("Note",), _STORED),
    Channel("term", subjects.term("{token}"), "kept in RESULTS", ("Note",), _STORED),
    Channel(
        "content",
        f"blob.{S}.{S}.{{sha256}}.{{place}}",
        f"what S stores; kept in {streams.bucket('S')}",
        ("Piece",),
        _STORED,
    ),
    Channel(
        "left",
        f"out.{S}.{L}.{{sha256}}.{{place}}",
        f"what lenders leave for S; kept in {streams.left('S')}",
        ("Piece",),
        _STORED,
    ),
    Channel(
        "query", subjects.query(S), "questions about one's own jobs", ("Query",), ("QueryReply",)
    ),
    Channel("enroll", subjects.ENROL, "without credentials", ("EnrolRequest",), ("EnrolAnswer",)),
    Channel("offer", subjects.offer(L), "each lender's heartbeat", ("Offer",)),
    Channel("control", subjects.control(L), "the broker's words to lenders", ("Control",)),
    Channel(
        "work", subjects.work("{class}"), "kept in WORK until acknowledged", ("Lease",), _STORED
    ),
    Channel("done", subjects.done(L), "answered after the commit", ("Done",), ("DoneReply",)),
    Channel("head", subjects.head(L), "kept in HEADS", ("LogHead",), _STORED),
    Channel("leader", subjects.LEADERSHIP_KEY, "kept in LEADER", ("Leader",), _STORED),
    Channel("ping", subjects.broker_ping("{broker}"), "whether it is there", ("Ask",), ("Ask",)),
    Channel(
        "command", "enrolment.{word}", "the operator's commands", ("Command",), ("CommandAnswer",)
    ),
    Channel(
        "enrolled",
        subjects.enrolled("{role}", "{key}"),
        "kept in ENROLMENT",
        ("Admission",),
        _STORED,
    ),
    *(
        Channel(
            f"get-{name}", f"{_GET}.{stream}.{subject}", text, ("Ask",), (reply, "NothingThere")
        )
        for name, stream, subject, text, reply in (
            ("submission", streams.JOBS, subjects.submit(S, J), "what was submitted", "Submission"),
            ("result", streams.RESULTS, subjects.result(S, J), "how a job ended", "Terminal"),
            ("chunk", streams.RESULTS, f"{subjects.result(S, J)}.{{task}}", "results", "Chunk"),
            (
                "content",
                streams.bucket(S),
                f"blob.{S}.{{by}}.{{sha256}}.{{place}}",
                "a piece of what S has stored",
                "Piece",
            ),
            (
                "left",
                streams.left(S),
                f"out.{S}.{L}.{{sha256}}.{{place}}",
                "a piece of what a lender has left for S",
                "Piece",
            ),
            ("head", streams.HEADS, subjects.head(L), "the last one", "LogHead"),
            ("leader", streams.LEADER, subjects.LEADERSHIP_KEY, "which broker leads", "Leader"),
        )
    ),
    Channel(
        "pull",
        f"$JS.API.CONSUMER.MSG.NEXT.{streams.WORK}.{{class}}",
        "leases, for whoever may take them",
        ("Pull",),
        ("Lease",),
    ),
    Channel(
        "ack", f"$JS.ACK.{streams.WORK}.{{delivery}}", "ends or prolongs a lease", ("Delivered",)
    ),
    *(
        Channel(f"service{name}", subject, text, ("Ask",), ("ServiceAnswer",))
        for name, subject, text in (
            ("s", "$SRV.{verb}", "of all services"),
            ("-brokers", f"$SRV.{{verb}}.{subjects.SERVICE}", "of all brokers"),
            ("-broker", f"$SRV.{{verb}}.{subjects.SERVICE}.{{broker}}", "of one broker"),
        )
    ),
    Channel("user-info", permissions.USER_INFO, "what one may do", ("Ask",), ("ServerAnswer",)),
    Channel(
        "jetstream",
        "$JS.API.{call}",
        "JetStream's API, as far as it is not above",
        ("ServerRequest",),
        ("ServerAnswer",),
    ),
)
"""The last one is about what no other is."""
