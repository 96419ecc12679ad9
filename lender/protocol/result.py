"""What comes back: task results, chunks of an array's results, and the job's terminal record."""

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lender.protocol import bounds
from lender.protocol.codec import Bytes, Open
from lender.protocol.ids import JobId, LeaseId, PublicKey, Sha256
from lender.protocol.job import TaskRange, Week

LimitName = Literal["memory", "time", "output", "disk", "processes"]
TerminalState = Literal["succeeded", "failed", "cancelled", "rejected", "expired"]


class Output(Open):
    """A file that a task left, as a blob."""

    name: str = Field(max_length=240)
    sha256: Sha256
    size_bytes: int = Field(ge=0)
    by: PublicKey | None = None
    """The lender that stored it in the submitter's bucket."""
    week: Week | None = None
    """In which week it did."""


class ValueBlob(Open):
    """A task's value that was too large to travel inline."""

    sha256: Sha256
    size_bytes: int = Field(ge=0)
    by: PublicKey | None = None
    """As of an output."""
    week: Week | None = None
    """As of an output."""


class TaskResult(Open):
    """The end of one task: its value is what it wrote to standard output."""

    task: int = Field(ge=0)
    state: Literal["succeeded", "failed"]
    exit_code: int | None = None
    value: Bytes = Field(default=b"", max_length=bounds.INLINE_VALUE_BYTES_MAX)
    value_blob: ValueBlob | None = None
    outputs: tuple[Output, ...] = Field(default=(), max_length=bounds.OUTPUTS_MAX)
    stderr_tail: Bytes = Field(default=b"", max_length=bounds.STDERR_TAIL_BYTES_MAX)
    limit: LimitName | None = None
    error: str | None = Field(default=None, max_length=2000)
    cancelled: bool = Field(default=False, exclude_if=operator.not_)
    """It counts as failed, and nobody has run it to its end: its submitter took it back."""
    cpu_s: float = Field(default=0.0, ge=0, le=bounds.MEASURED_S_MAX)
    duration_s: float = Field(default=0.0, ge=0, le=bounds.MEASURED_S_MAX)


if TYPE_CHECKING:
    Results = Sequence[TaskResult]
else:
    Results = tuple[TaskResult, ...]
"""Of many tasks: decoded they are a tuple, for which `result_run` may put its columns."""


def reason_of(result: TaskResult) -> str | None:
    """Say why a job has failed whose only task has this result; None for a success."""
    if result.state == "succeeded":
        return None
    if result.limit is not None:
        return f"the {result.limit} limit was hit"
    return result.error or f"exit code {result.exit_code}"


SignedDigest = tuple[Annotated[int, Field(ge=0)], Sha256]
"""A task, and the digest of the result that its lender has signed for it."""


class ReportProof(Open):
    """A lender's signature over the report that some results came in: see `signed_results`.

    `others` are results of that report that are not in the record, or not as they were signed.
    """

    signature: str = Field(max_length=100)
    others: tuple[SignedDigest, ...] = Field(
        default=(), max_length=bounds.CHUNK_RESULTS_MAX, exclude_if=operator.not_
    )


class Chunk(Open):
    """Results of some tasks of an array, committed at `res.S.J.<first task>`.

    Of tasks that were cancelled the broker itself says so: then there is no lease, attempt, lender.
    """

    v: Literal[1] = 1
    job: JobId
    lease: LeaseId | None = None
    attempt: int | None = None
    lender: PublicKey | None = None
    results: Results
    proof: ReportProof | None = None
    """None: the lender has not signed them."""


class Terminal(Open):
    """The job's last word, committed at `res.S.J`: exactly one per accepted job.

    A job without array carries its one task's result here. `field` and `reason` are for a
    rejected job (which field is wrong, and why) or say why it failed, expired or was cancelled.
    """

    v: Literal[1] = 1
    job: str = Field(max_length=300)
    state: TerminalState
    field: str | None = None
    reason: str | None = None
    tasks_succeeded: int = 0
    tasks_failed: int = 0
    tasks_total: int = 0
    failed_tasks: tuple[TaskRange, ...] = Field(
        default=(), max_length=bounds.FAILED_RANGES_MAX, exclude_if=operator.not_
    )
    """Of an array: those that failed, or the first of them where they make too many ranges."""
    result: TaskResult | None = None
    lender: PublicKey | None = None
    attempt: int | None = None
    lease: LeaseId | None = None
    proof: ReportProof | None = None
    """As in a chunk, of `result`."""
    finished_at: float
