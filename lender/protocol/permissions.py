"""Who may publish and subscribe to what: the one table that servers, documents and tests follow.

Subjects are templates as NATS servers read them in the scope of a signing key (ADR-14): a user's
own public key and the tags of his token stand for the places in braces.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from lender.protocol import streams, subjects
from lender.protocol.classes import WorkClass, own_queue
from lender.protocol.errors import ProtocolError

Role = Literal["broker", "lender", "submitter", "observer", "stranger"]
"""A stranger is whoever has no token; the server takes a sentinel's for it."""

Verb = Literal["publish", "subscribe", "answer"]
"""To answer is to publish to where a message that came on this very connection asks for it."""

Account = Literal["core", "lenders", "submitters", "strangers"]
"""The streams and the broker stand in the first; the others reach of it what the table says."""

STRANGERS_INBOX = "_INBOX_stranger"
"""Of all of them: they are one user to the server, so that nothing secret is answered there."""

SELF = "{{subject()}}"
USER_INFO = "$SYS.REQ.USER.INFO"
"""The server answers by itself, about whoever asks alone; each account has it without an import."""
CLASS_TAG = "class"
SUBMITTER_TAG = "submitter"
ALL = "*"
"""In a tag: every class, or every submitter."""

_CLASS = f"{{{{tag({CLASS_TAG})}}}}"
_SUBMITTER_OF_CLASS = f"{{{{tag({SUBMITTER_TAG})}}}}"

HOME: Mapping[Role, Account] = MappingProxyType(
    {
        "broker": "core",
        "lender": "lenders",
        "observer": "lenders",
        "submitter": "submitters",
        "stranger": "strangers",
    }
)
"""Where each role lives."""


class Right(NamedTuple):
    """One line of the table."""

    role: Role
    verb: Verb
    subject: str
    """A template."""
    why: str
    towards: Account
    """Whose matter it is: where it goes to, or comes from."""


class Answers(NamedTuple):
    """What a role may answer: `count_max` times each message, within `within_s`; None: no bound."""

    count_max: int | None
    within_s: float


ANSWERS: Mapping[Role, Answers] = MappingProxyType(
    {
        # The server keeps in mind each message that may yet be answered.
        "lender": Answers(None, 3600.0),
        "broker": Answers(1, 60.0),
    }
)

_API = "$JS.API"
_SERVICE = (*subjects.SERVICE_FILTERS, subjects.of_service("*"))
_READ_ALONG = (streams.JOBS, streams.RESULTS)


def _last(stream: str, subject: str) -> str:
    """The last message on a subject, by direct access."""
    return f"{_API}.DIRECT.GET.{stream}.{subject}"


def _pages(stream: str) -> str:
    """Any messages, by direct access."""
    return f"{_API}.DIRECT.GET.{stream}"


def _pull(consumer: str) -> str:
    return f"{_API}.CONSUMER.MSG.NEXT.{streams.WORK}.{consumer}"


def _inbox(role: Role) -> Right:
    return Right(role, "subscribe", f"_INBOX_{SELF}.>", "answers to what it asks", HOME[role])


def _standing(role: Role) -> Right:
    why = "asks the server what it may do, and the time (`lender preflight`)"
    return Right(role, "publish", USER_INFO, why, HOME[role])


def _discovery(role: Role) -> tuple[Right, ...]:
    """As tools for NATS micro services ask (ADR-32)."""
    why = "sees which brokers there are, and how much they are asked (`nats micro`)"
    return tuple(Right(role, "publish", subject, why, "core") for subject in _SERVICE)


def _leading(role: Role) -> Right:
    """To see which broker leads, and which version of the protocol it speaks."""
    subject = _last(streams.LEADER, subjects.LEADERSHIP_KEY)
    why = "sees which broker leads, and what it speaks (`lender preflight`)"
    return Right(role, "publish", subject, why, "core")


_SUBMITTER = (
    *(
        Right("submitter", "publish", subject, why, "core")
        for subject, why in (
            (subjects.submit(SELF, "*"), "submits jobs of its own"),
            (subjects.cancel(SELF, "*"), "ends them"),
            (subjects.query(SELF), "asks about them"),
            (
                _last(streams.JOBS, subjects.submit(SELF, "*")),
                "reads back what it submitted, to learn whether an earlier try was accepted",
            ),
            (_last(streams.RESULTS, f"res.{SELF}.>"), "reads its own results"),
            (subjects.blob(SELF, SELF, "*", "*"), "stores contents in its own bucket, each once"),
            # Whose they are shows by the subject: no other stream holds any.
            (_last("*", subjects.of_bucket(SELF)), "reads what its own bucket holds"),
            (_last("*", subjects.of_left(SELF)), "reads what lenders have stored for it"),
        )
    ),
    Right("submitter", "subscribe", subjects.event(SELF, "*"), "news of its own jobs", "core"),
    Right(
        "submitter", "subscribe", subjects.task_log(SELF, "*", "*"), "logs of its jobs", "lenders"
    ),
    _leading("submitter"),
    _standing("submitter"),
    _inbox("submitter"),
)

_LENDER = (
    *(
        Right("lender", "publish", subject, why, "core")
        for subject, why in (
            (subjects.offer(SELF), "says what it can run, and that it is there"),
            (subjects.done(SELF), "reports on leases; whose they are shows by the lease's token"),
            (subjects.head(SELF), "publishes the last line of its log of receipts"),
            (_last(streams.HEADS, subjects.head(SELF)), "holds its log against that line"),
            (_pull(_CLASS), "takes leases of the classes that its token names"),
            (_pull(own_queue(SELF)), "takes leases that are meant for it alone"),
            (
                subjects.blob(_SUBMITTER_OF_CLASS, SELF, "*", "*"),
                "adds contents, in an area of its own, for the submitters that its classes name",
            ),
            (
                _last("*", subjects.of_bucket(_SUBMITTER_OF_CLASS)),
                "reads what the submitters store that its classes name",
            ),
            (
                _last("*", subjects.of_left(_SUBMITTER_OF_CLASS)),
                "reads what lenders store for the submitters that its classes name",
            ),
        )
    ),
    Right(
        "lender",
        "answer",
        f"$JS.ACK.{streams.WORK}.>",
        "ends, prolongs or hands back a lease that came to it, and no other",
        "core",
    ),
    Right(
        "lender",
        "publish",
        subjects.task_log("*", "*", SELF),
        "shows what tasks write; who does not know the job's id reaches nobody",
        "lenders",
    ),
    Right("lender", "subscribe", subjects.control(SELF), "the broker's words to it", "core"),
    Right(
        "lender",
        "subscribe",
        subjects.control(subjects.ALL_LENDERS),
        "the broker's words to all",
        "core",
    ),
    _leading("lender"),
    _standing("lender"),
    _inbox("lender"),
)

_OBSERVER = (
    Right(
        "observer",
        "publish",
        _last(streams.HEADS, subjects.HEAD_FILTER),
        "keeps the heads of all logs of receipts, as a witness",
        "core",
    ),
    _leading("observer"),
    *_discovery("observer"),
    Right(
        "observer", "subscribe", subjects.OFFER_FILTER, "sees who lends and what is free", "lenders"
    ),
    _standing("observer"),
    _inbox("observer"),
)

_STRANGER = (
    Right("stranger", "publish", subjects.ENROL, "asks to be let in", "core"),
    Right(
        "stranger",
        "subscribe",
        f"{STRANGERS_INBOX}.*.*",
        "answers to strangers; whoever overhears one has no use for it",
        "strangers",
    ),
    _standing("stranger"),
)

_BROKER_LINES: tuple[tuple[Verb, str, str], ...] = (
    ("publish", f"{_API}.STREAM.CREATE.*", "makes streams, and buckets for each submitter"),
    ("publish", f"{_API}.STREAM.UPDATE.*", "brings them to this version's settings"),
    *(
        ("publish", f"{_API}.{call}", why)
        for stream in _READ_ALONG
        for call, why in (
            (f"STREAM.INFO.{stream}", "learns where the stream ends"),
            (f"STREAM.MSG.GET.{stream}", "learns from its leader what comes next"),
            (f"CONSUMER.CREATE.{stream}.*", "replays it and reads along"),
            (f"CONSUMER.MSG.NEXT.{stream}.*", "replays it and reads along"),
            (f"CONSUMER.DELETE.{stream}.*", "leaves no reader behind"),
            (f"DIRECT.GET.{stream}", "reads a part of it"),
        )
    ),
    ("publish", _last(streams.RESULTS, subjects.RESULT_FILTER), "sees which record was first"),
    ("publish", _last(streams.LEADER, subjects.LEADERSHIP_KEY), "sees which broker leads"),
    ("publish", f"{_API}.CONSUMER.CREATE.{streams.WORK}.*", "opens the queue of a class"),
    ("publish", f"{_API}.STREAM.MSG.DELETE.{streams.WORK}", "takes back what is cancelled"),
    ("publish", _pages(streams.WORK), "replays the outstanding leases"),
    ("publish", subjects.WORK_FILTER, "leases"),
    ("publish", subjects.RESULT_FILTER, "commits; nobody else writes results"),
    ("publish", subjects.LEADERSHIP_KEY, "leads"),
    ("publish", subjects.broker_ping("*"), "asks whether another broker is there"),
    ("publish", subjects.event("*", "*"), "tells submitters what was committed"),
    ("publish", subjects.control("*"), "tells lenders what has work, and what to stop"),
    ("publish", subjects.ENROLLED_FILTER, "keeps whom the operator has let in"),
    ("publish", _pages(streams.ENROLMENT), "reads whom it was"),
    ("publish", subjects.ENROLMENT_FILTER, "the operator's commands ask the broker that serves"),
    ("subscribe", subjects.ENROLMENT_FILTER, "answers the operator's commands"),
    ("subscribe", subjects.ENROL, "strangers who ask to be let in"),
    ("subscribe", subjects.OFFER_FILTER, "who lends"),
    ("subscribe", subjects.DONE_FILTER, "reports"),
    ("subscribe", subjects.QUERY_FILTER, "questions"),
    ("subscribe", subjects.broker_ping("*"), "answers other brokers"),
    *(("subscribe", one, "tells that it is there, and what it is asked") for one in _SERVICE),
    ("subscribe", "_INBOX.>", "answers to what it asks; only brokers live in this account"),
    ("answer", ">", "answers reports, questions and other brokers"),
)
_BROKER = (
    *(Right("broker", verb, subject, why, "core") for verb, subject, why in _BROKER_LINES),
    # By the broker's credentials the operator's commands ask, and his tools may.
    *_discovery("broker"),
)

RIGHTS: tuple[Right, ...] = (*_BROKER, *_LENDER, *_SUBMITTER, *_OBSERVER, *_STRANGER)
"""What is not in here is refused."""


def templates(role: Role, verb: Verb) -> tuple[str, ...]:
    """Return the subjects of a role's rights, as they stand in the table."""
    return tuple(one.subject for one in RIGHTS if (one.role, one.verb) == (role, verb))


def granted(role: Role, verb: Verb, key: str, tags: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what one user may publish or subscribe to, as the server makes it of the templates.

    Args:
        role: of the signing key that vouches for the user.
        verb: to answer has no subjects of its own.
        key: the user's public key.
        tags: of the user's token, such as `class:default_wasm_any_none_U..._wasm`; a lender's as
            `completed` makes them.
    """
    return tuple(
        subject
        for template in templates(role, verb)
        for subject in _filled(template.replace(SELF, key), tags)
    )


def completed(tags: Iterable[str]) -> tuple[str, ...]:
    """Return a lender's tags and those that follow: the submitters whom its classes name.

    A server can't take a class apart. `class:*` stands for all submitters, too.
    """
    given = tuple(tags)
    submitters = (_submitter_of(one) for one in _values(given, CLASS_TAG))
    found = (f"{SUBMITTER_TAG}:{one}" for one in submitters if one is not None)
    return tuple(dict.fromkeys((*given, *found)))


def permits(patterns: Iterable[str], subject: str) -> bool:
    """Tell whether one of the patterns lets a subject pass.

    A wildcard in `subject` is a token like any other: so the server looks at it.
    """
    parts = subject.split(".")
    return any(_matches(pattern.split("."), parts) for pattern in patterns)


def pattern_of(template: str) -> str:
    """Return what all subjects that a template stands for have in common."""
    # A wildcard can't be part of a token.
    return ".".join("*" if "{{" in token else token for token in template.split("."))


def _filled(template: str, tags: Iterable[str]) -> list[str]:
    for place, name in ((_CLASS, CLASS_TAG), (_SUBMITTER_OF_CLASS, SUBMITTER_TAG)):
        if place in template:
            return [template.replace(place, one) for one in _values(tags, name)]
    return [template]


def _values(tags: Iterable[str], name: str) -> list[str]:
    return [tag.partition(":")[2] for tag in tags if tag.startswith(f"{name}:")]


def _submitter_of(class_token: str) -> str | None:
    if class_token == ALL:
        return ALL
    try:
        return WorkClass.parse(class_token).submitter
    except ProtocolError:
        return None


def _matches(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    for at, wanted in enumerate(pattern):
        if wanted == ">":
            return len(parts) > at
        if at >= len(parts) or wanted not in ("*", parts[at]):
            return False
    return len(pattern) == len(parts)
