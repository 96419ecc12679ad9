"""Subjects, as drawn in docs/protocol.md. S is a submitter's public key, L a lender's, J a job."""

import re
from typing import NamedTuple

from lender.protocol.errors import ProtocolError

SUBMIT_FILTER = "submit.*.*"
CANCEL_FILTER = "cancel.*.*"
WORK_FILTER = "work.*"
RESULT_FILTER = "res.>"
TERMINALS = "res.*.*"
TERMINAL_EVENTS = "event.{{wildcard(1)}}.{{wildcard(2)}}"
"""Where the server sends a copy of each of them, in its own words (subject mapping)."""
OFFER_FILTER = "offer.*"
DONE_FILTER = "done.*"
QUERY_FILTER = "query.*"
HEAD_FILTER = "head.*"

ALL_LENDERS = "all"
"""Stands for L in `ctl.L` when the broker speaks to every lender."""

SUBJECT_HEADER = "Lender-Subject"
"""Of an event: the subject in RESULTS that it is a copy of."""

REPUBLISHED_HEADER = "Nats-Subject"
"""The same in a copy that the server sends by itself, in its words."""


def submit(submitter: str, job: str) -> str:
    """Where S publishes job J, durably; the server refuses a second message there."""
    return f"submit.{submitter}.{job}"


def cancel(submitter: str, job: str) -> str:
    """Where S asks for the end of job J, durably."""
    return f"cancel.{submitter}.{job}"


def of_submitter(submitter: str) -> str:
    """Filter of JOBS: whatever S asks of the ledger."""
    return f"*.{submitter}.*"


def work(class_token: str) -> str:
    """The work queue of a class."""
    return f"work.{class_token}"


def result(submitter: str, job: str) -> str:
    """Where the terminal record of job J is committed."""
    return f"res.{submitter}.{job}"


def chunk(submitter: str, job: str, first_task: int) -> str:
    """Where a part of an array's results is committed, named by the first task in it."""
    return f"res.{submitter}.{job}.{first_task}"


def checkpoints(submitter: str, job: str, number: int) -> str:
    """Where the broker notes, for its own replay, what tasks of job J would go on from."""
    return f"res.{submitter}.{job}.cp.{number}"


def begun(submitter: str, job: str) -> str:
    """Where the broker notes, for its own replay, that a task of job J has begun."""
    return f"res.{submitter}.{job}.begun"


def votes(submitter: str, job: str, number: int) -> str:
    """Where the broker notes, for its own replay, how a lender answered tasks of job J."""
    return f"res.{submitter}.{job}.vote.{number}"


def retries(submitter: str, job: str, number: int) -> str:
    """Where the broker notes, for its own replay, which tasks of job J it tries again."""
    return f"res.{submitter}.{job}.retry.{number}"


def event(submitter: str, job: str) -> str:
    """Core NATS: what was just committed for job J."""
    return f"event.{submitter}.{job}"


def task_log(submitter: str, job: str, lender: str) -> str:
    """Core NATS: what tasks of job J write while L runs them."""
    return f"log.{submitter}.{job}.{lender}"


def task_log_filter(submitter: str, job: str) -> str:
    """The logs of job J, whoever runs its tasks."""
    return f"log.{submitter}.{job}.*"


def of_bucket(submitter: str) -> str:
    """Whatever S stores, and what lenders of earlier versions have stored for S."""
    return f"blob.{submitter}.>"


def of_left(submitter: str) -> str:
    """Whatever lenders store for S."""
    return f"out.{submitter}.>"


def blob(submitter: str, by: str, sha256: str, piece: int | str, week: int | None = None) -> str:
    """Where a piece of a content is stored for S, once and for all: in the area of who stores it.

    What S stores and what lenders store lie apart, in two streams: who fills one has not filled
    the other.

    Args:
        submitter: whose bucket it is.
        by: who stores it: S, or a lender.
        sha256: of the whole content.
        piece: counted from 0, each of `bounds.PIECE_BYTES`; the last is stored when all others are.
        week: in which it is stored (`job.week_of`); the next one has another place for the same.
    """
    stored = piece if week is None else f"{week}-{piece}"
    whose = "blob" if by == submitter else "out"
    return f"{whose}.{submitter}.{by}.{sha256}.{stored}"


def former_blob(submitter: str, by: str, sha256: str, piece: int) -> str:
    """Where an earlier version had a lender store a piece: beside what S stores, in no week."""
    return f"blob.{submitter}.{by}.{sha256}.{piece}"


def offer(lender: str) -> str:
    """Core NATS: what L can run now; also its heartbeat."""
    return f"offer.{lender}"


def control(lender: str) -> str:
    """Core NATS: the broker's words to L."""
    return f"ctl.{lender}"


def done(lender: str) -> str:
    """Request: L reports results of a lease; the answer comes after the commit."""
    return f"done.{lender}"


def query(submitter: str) -> str:
    """Request: S asks the broker about its own jobs."""
    return f"query.{submitter}"


def head(lender: str) -> str:
    """Where L publishes, durably, the last line of its log of receipts."""
    return f"head.{lender}"


ENROL = "enroll.ask"
"""Request: a stranger asks to be let in."""

ENROLMENT_FILTER = "enrolment.*"
ENROLMENT_REQUESTS = "enrolment.requests"
"""Request: the operator asks who waits."""
ENROLMENT_APPROVE = "enrolment.approve"
"""Request: the operator lets one in who waits."""
ENROLMENT_TOKEN = "enrolment.token"  # noqa: S105 - no secret
"""Request: the operator has a join token kept."""
ENROLMENT_LENDERS = "enrolment.lenders"
"""Request: who was let in as a lender."""
ENROLMENT_BOUND = "enrolment.bound"
"""Request: the operator says for whom one of them may work."""

ENROLLED_FILTER = "enrolled.*.*"


def enrolled(role: str, public_key: str) -> str:
    """Where it is kept, durably, that a key was let in as one of a role."""
    return f"enrolled.{role}.{public_key}"


def join_token(digest: str) -> str:
    """Where it is kept, durably, what a join token is good for, and whether it was used."""
    return f"enrolled.token.{digest}"


LEADERSHIP_KEY = "leader.key"
"""Names the broker that serves."""

TERM_PREFIX = "res.broker."
"""Of what a broker commits before anything else: no submitter is called so."""


def term(token: str) -> str:
    """Where a broker that takes over commits that it has."""
    return f"{TERM_PREFIX}{token}"


def broker_ping(broker: str) -> str:
    """Request: whether that broker's process is there."""
    return f"leader.ping.{broker}"


SERVICE = "lender-broker"
"""What brokers are called as a NATS micro service (ADR-32)."""

SERVICE_FILTERS = ("$SRV.*", f"$SRV.*.{SERVICE}")
"""Requests: PING, INFO or STATS of all services, or of all brokers; each of them answers."""


def of_service(broker: str) -> str:
    """Request: the same of one broker."""
    return f"$SRV.*.{SERVICE}.{broker}"


class JobSubject(NamedTuple):
    """A parsed `submit.S.J`, `cancel.S.J`, `res.S.J` or `res.S.J.<first task>`."""

    verb: str
    submitter: str
    job: str
    first_task: int | None


def parse_job_subject(subject: str) -> JobSubject:
    """Split a subject that names a job.

    Raises:
        ProtocolError: it does not.
    """
    tokens = subject.split(".")
    verb = tokens[0]
    if len(tokens) == 3 and verb in ("submit", "cancel", "res"):
        return JobSubject(verb, tokens[1], tokens[2], None)
    if len(tokens) == 4 and verb == "res" and re.fullmatch(r"[0-9]{1,7}", tokens[3]):
        return JobSubject(verb, tokens[1], tokens[2], int(tokens[3]))
    raise ProtocolError("subject", f"names no job: {subject[:200]!r}")


class NoteSubject(NamedTuple):
    """A parsed `res.S.J.cp.<number>`, `res.S.J.vote.<number>` or `res.S.J.retry.<number>`."""

    submitter: str
    job: str
    number: int


def parse_checkpoints_subject(subject: str) -> NoteSubject | None:
    """Split the subject of a note about checkpoints; None for any other subject."""
    return _parse_note(subject, "cp")


def parse_votes_subject(subject: str) -> NoteSubject | None:
    """Split the subject of a note about votes; None for any other subject."""
    return _parse_note(subject, "vote")


def parse_retries_subject(subject: str) -> NoteSubject | None:
    """Split the subject of a note about tasks that are tried again; None for any other subject."""
    return _parse_note(subject, "retry")


def _parse_note(subject: str, kind: str) -> NoteSubject | None:
    found = re.fullmatch(rf"res\.([^.]+)\.([^.]+)\.{kind}\.([0-9]{{1,8}})", subject)
    return NoteSubject(found[1], found[2], int(found[3])) if found else None


def parse_begun_subject(subject: str) -> tuple[str, str] | None:
    """Return submitter and job of a note that a job has begun; None for any other subject."""
    found = re.fullmatch(r"res\.([^.]+)\.([^.]+)\.begun", subject)
    return (found[1], found[2]) if found else None


def last_token(subject: str) -> str:
    """Return the principal that a subject ends with (`offer.L`, `log.S.J.L`), or a class."""
    return subject.rpartition(".")[2]
