"""What becomes of a submission: a job, or a rejection that names the field and the reason."""

from collections.abc import Container
from dataclasses import dataclass
from typing import NamedTuple

from broker.core.events import Headers
from lender.protocol import bounds
from lender.protocol.codec import (
    CONTENT_TYPE_HEADER,
    MSGPACK,
    ContentType,
    content_type_of,
    decode,
)
from lender.protocol.errors import ProtocolError
from lender.protocol.ids import check_job_id
from lender.protocol.job import JobSpec, TaskRange
from lender.protocol.signature import SIGNATURE_HEADER, verify
from lender.protocol.subjects import parse_job_subject

_SEPARATE = b"separate"
"""The field's name, as it stands in JSON and in MessagePack."""

CLOCK_SKEW_S = 3600.0
"""How far a submitter's clock may be ahead of ours."""


class Admission(NamedTuple):
    """A specification that may run, as its submitter signed it, or seems to have."""

    spec: JobSpec
    payload: bytes
    content_type: ContentType
    signature: str
    verified: bool
    """False after a replay: the signature is checked before the first lease."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a submission can't run; told in `content_type`."""

    field: str
    reason: str
    content_type: ContentType
    separate: tuple[TaskRange, ...] = ()
    """The tasks that would have been jobs of their own, as far as that is known."""


def separate_tasks(spec: JobSpec | None) -> tuple[TaskRange, ...]:
    """Return the tasks of a job that are jobs of their own."""
    together = spec is not None and spec.array is not None and spec.array.separate
    return spec.task_ranges if spec is not None and together else ()


def admit(
    subject: str,
    headers: Headers,
    payload: bytes,
    submitters: Container[str] | None,
    now: float | None,
    pools: frozenset[str] | None = None,
) -> Admission | Rejection:
    """Check a submission from outside, in full; in a replay all but its signature.

    The ledger takes whatever comes, so a replay does not know what was verified before; to verify
    all of it would take longer than everything else.

    Args:
        subject: `submit.S.J` as published.
        headers: of the message.
        payload: of the message.
        submitters: public keys that may submit; None for a replay: what the ledger accepted goes
            on, though its submitter be forbidden since, or the list be lost.
        now: seconds since the epoch; None for a replay, where a job that is late has expired
            and is not refused.
        pools: that are served; None for all of them.
    """
    content_type, spec = MSGPACK, None
    try:
        content_type = content_type_of(headers.get(CONTENT_TYPE_HEADER))
        spec = _checked(subject, payload, content_type, submitters)
        signature = headers.get(SIGNATURE_HEADER)
        if now is not None:
            verify(spec.submitter, payload, signature)
        _check_time(spec, now)
        _check_pool(spec, pools)
    except ProtocolError as error:
        return Rejection(error.field, error.reason, content_type, separate_tasks(spec))
    return Admission(spec, payload, content_type, signature or "", verified=now is not None)


def over_quota(headers: Headers, payload: bytes, reason: str) -> Rejection:
    """Return the rejection of a submission by someone who has as much as it may have.

    It is read only where it is of several jobs together, since others may wait for one of them.
    """
    content_type, spec = MSGPACK, None
    try:
        content_type = content_type_of(headers.get(CONTENT_TYPE_HEADER))
        if len(payload) <= bounds.SPEC_BYTES_MAX and _SEPARATE in payload:
            spec = decode(JobSpec, payload, content_type)
    except ProtocolError:
        pass
    return Rejection("quota", reason, content_type, separate_tasks(spec))


def _checked(
    subject: str, payload: bytes, content_type: ContentType, submitters: Container[str] | None
) -> JobSpec:
    if len(payload) > bounds.SPEC_BYTES_MAX:
        raise ProtocolError(
            "payload",
            f"{len(payload)} bytes; a specification has at most {bounds.SPEC_BYTES_MAX}: "
            "put data into blobs",
        )
    _, submitter, job, _ = parse_job_subject(subject)
    check_job_id(job)
    spec = decode(JobSpec, payload, content_type)
    if spec.id != job:
        raise ProtocolError("id", "differs from the job id in the subject")
    if spec.submitter != submitter:
        raise ProtocolError("submitter", "differs from the submitter in the subject")
    if submitters is not None and submitter not in submitters:
        raise ProtocolError(
            "submitter", "unknown here: the operator allows it with `lender-broker allow NAME KEY`"
        )
    return spec


def _check_time(spec: JobSpec, now: float | None) -> None:
    if now is None:
        return
    if spec.not_after <= now:
        raise ProtocolError("not_after", "already past when the job arrived")
    if spec.created_at > now + CLOCK_SKEW_S:
        # Waiting longer than the ledger keeps it, the job would be forgotten.
        raise ProtocolError("created_at", "lies in the future: set the clock")


def _check_pool(spec: JobSpec, pools: frozenset[str] | None) -> None:
    if pools is None or spec.requires.pool in pools:
        return
    served = ", ".join(sorted(pools))
    raise ProtocolError(
        "requires.pool",
        f"{spec.requires.pool} is not served here, only {served}: name one of these, "
        "or submit where it is served",
    )
