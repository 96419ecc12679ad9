"""Messages of RESULTS: how they are written, and what their headers tell a replay.

Beside results it holds notes about checkpoints, votes, retries, and jobs that have begun, which are
the broker's own business: nobody is told of them, and who reads results never comes by their names.

The header `Lender-Record` sums a record up (JSON), so that a replay reads headers only, however
large the values are. RESULTS has a single writer: what stands there was written here.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import TypeAdapter

from broker.core.containers.ranges import RangeSet
from broker.core.effects import PublishEvent, Record
from broker.core.events import Headers
from lender.protocol import bounds, subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, ContentType, encode
from lender.protocol.job import BlobRef, TaskRange
from lender.protocol.lease import TaskCheckpoint
from lender.protocol.result import Chunk, TaskResult, Terminal, TerminalState
from lender.protocol.result_run import ResultRun, encode_results, tasks_of

SUMMARY_HEADER = "Lender-Record"

_STATE: TypeAdapter[TerminalState] = TypeAdapter(TerminalState)
_RESULT_OVERHEAD_BYTES = 300
_OUTPUT_OVERHEAD_BYTES = 120
_JOB_CHARS_MAX = 300
_FAILED = "ft"
_LEFT = "l"
_MOMENT_MAX_S = 1e12
_BLOB_FIELDS = ("sha256", "size_bytes", "by", "week")


class Summary(ABC):
    """What a record's header says of it."""

    __slots__ = ()

    def dump(self) -> str:
        """Return the header's value."""
        return json.dumps(self._fields(), separators=(",", ":"))

    @classmethod
    def load(cls, headers: Headers) -> Self | None:
        """Read a header's value; None if it is not one."""
        try:
            return cls._read(json.loads(headers[SUMMARY_HEADER]))
        except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError):
            return None

    @abstractmethod
    def _fields(self) -> dict[str, Any]: ...

    @classmethod
    @abstractmethod
    def _read(cls, fields: dict[str, Any]) -> Self: ...


@dataclass(frozen=True, slots=True)
class ChunkSummary(Summary):
    """Which tasks of an array a chunk ends, in which attempt, and which of them have failed.

    The attempt is 0 where they were cancelled. Where the tasks are jobs it says when they ended.
    """

    tasks: tuple[TaskRange, ...]
    failed: int
    attempt: int
    failed_tasks: tuple[TaskRange, ...] = ()
    ended_at: float | None = None

    def _fields(self) -> dict[str, Any]:
        ended = {} if self.ended_at is None else {"e": self.ended_at}
        return {
            "t": self.tasks,
            "f": self.failed,
            "a": self.attempt,
            **_dumped(self.failed_tasks),
            **ended,
        }

    @classmethod
    def _read(cls, fields: dict[str, Any]) -> Self:
        return cls(
            _ranges(fields["t"]),
            int(fields["f"]),
            int(fields["a"]),
            _ranges(fields.get(_FAILED, ())),
            _moment(fields["e"]) if "e" in fields else None,
        )


@dataclass(frozen=True, slots=True)
class TerminalSummary(Summary):
    """How a job ended.

    Of one whose tasks are jobs, those that had not ended before: they end as it does.
    """

    name: str
    state: TerminalState
    total: int
    succeeded: int
    failed: int
    submitted_at: float
    ended_at: float
    failed_tasks: tuple[TaskRange, ...] = ()
    left: tuple[TaskRange, ...] | None = None

    def _fields(self) -> dict[str, Any]:
        return {
            "n": self.name,
            "s": self.state,
            "t": self.total,
            "o": self.succeeded,
            "f": self.failed,
            "at": self.submitted_at,
            "e": self.ended_at,
            **_dumped(self.failed_tasks),
            **({} if self.left is None else {_LEFT: self.left}),
        }

    @classmethod
    def _read(cls, fields: dict[str, Any]) -> Self:
        return cls(
            str(fields["n"]),
            _STATE.validate_python(fields["s"]),
            int(fields["t"]),
            int(fields["o"]),
            int(fields["f"]),
            float(fields["at"]),
            _moment(fields.get("e", 0.0)),
            _ranges(fields.get(_FAILED, ())),
            _ranges(fields[_LEFT]) if _LEFT in fields else None,
        )


@dataclass(frozen=True, slots=True)
class CheckpointsSummary(Summary):
    """What tasks of a job would go on from, as an attempt left it."""

    checkpoints: tuple[TaskCheckpoint, ...]
    attempt: int

    def _fields(self) -> dict[str, Any]:
        noted = [
            (task, blob.sha256, blob.size_bytes, blob.by, blob.week)
            for task, blob in self.checkpoints
        ]
        return {"c": noted, "a": self.attempt}

    @classmethod
    def _read(cls, fields: dict[str, Any]) -> Self:
        noted = tuple(
            (int(task), BlobRef(**dict(zip(_BLOB_FIELDS, blob, strict=False))))
            for task, *blob in fields["c"]  # earlier versions had no `by`, or no `week`
        )
        return cls(noted, int(fields["a"]))


@dataclass(frozen=True, slots=True)
class RetriesSummary(Summary):
    """Which tasks are tried again, and how often their work has failed by now."""

    tasks: tuple[TaskRange, ...]
    failures: int
    attempt: int

    def _fields(self) -> dict[str, Any]:
        return {"t": self.tasks, "f": self.failures, "a": self.attempt}

    @classmethod
    def _read(cls, fields: dict[str, Any]) -> Self:
        return cls(_ranges(fields["t"]), int(fields["f"]), int(fields["a"]))


@dataclass(frozen=True, slots=True)
class VotesSummary(Summary):
    """How one owner's lender has answered tasks of a job that is verified."""

    owner: str
    attempt: int
    failures: int
    """How often it had been agreed before that the tasks' work had failed."""
    votes: tuple[tuple[int, str], ...]
    """Pairs of a task and the digest of the answer."""

    def _fields(self) -> dict[str, Any]:
        return {"o": self.owner, "a": self.attempt, "f": self.failures, "v": self.votes}

    @classmethod
    def _read(cls, fields: dict[str, Any]) -> Self:
        votes = tuple((int(task), str(digest)) for task, digest in fields["v"])
        return cls(str(fields["o"]), int(fields["a"]), int(fields["f"]), votes)


def _dumped(failed_tasks: tuple[TaskRange, ...]) -> dict[str, tuple[TaskRange, ...]]:
    return {_FAILED: failed_tasks} if failed_tasks else {}


def _moment(seconds: float) -> float:
    if not 0 <= float(seconds) <= _MOMENT_MAX_S:
        raise ValueError("no time since the epoch")
    return float(seconds)


def _ranges(fields: Iterable[Any]) -> tuple[TaskRange, ...]:
    return tuple((int(first), int(count)) for first, count in fields)


def chunk_record(
    submitter: str, chunk: Chunk, content_type: ContentType, ended_at: float | None = None
) -> Record:
    """Return the record of a piece of an array's results; `ended_at` where its tasks are jobs."""
    results = chunk.results
    failed = RangeSet()
    if not isinstance(results, ResultRun):
        failed = RangeSet.of(one.task for one in results if one.state == "failed")
    tasks = RangeSet.of(tasks_of(results))
    return Record(
        subjects.chunk(submitter, chunk.job, tasks.first),
        {
            CONTENT_TYPE_HEADER: content_type,
            SUMMARY_HEADER: ChunkSummary(
                tasks.pairs(), len(failed), chunk.attempt or 0, failed.pairs(), ended_at
            ).dump(),
        },
        encode_results(chunk, content_type),
    )


def checkpoints_record(
    submitter: str, job: str, number: int, attempt: int, news: tuple[TaskCheckpoint, ...]
) -> Record:
    """Return the note about new checkpoints; `number` makes its subject one of its own."""
    summary = CheckpointsSummary(news, attempt)
    return _note(subjects.checkpoints(submitter, job, number), summary)


def begun_record(submitter: str, job: str) -> Record:
    """Return the note that a job has begun."""
    return Record(subjects.begun(submitter, job), {}, b"")


def retries_record(submitter: str, job: str, number: int, summary: RetriesSummary) -> Record:
    """Return the note about tasks that are tried again; `number` makes its subject its own."""
    return _note(subjects.retries(submitter, job, number), summary)


def votes_record(submitter: str, job: str, number: int, summary: VotesSummary) -> Record:
    """Return the note about answers; `number` makes its subject one of its own."""
    return _note(subjects.votes(submitter, job, number), summary)


def _note(subject: str, summary: Summary) -> Record:
    dumped = summary.dump()
    return Record(subject, {SUMMARY_HEADER: dumped}, dumped.encode())


def terminal_record(
    submitter: str,
    job: str,
    terminal: Terminal,
    summary: TerminalSummary,
    content_type: ContentType,
) -> Record:
    """Return the record that ends a job; a rejected one's subject may hold any tokens."""
    return Record(
        subjects.result(submitter, job),
        {CONTENT_TYPE_HEADER: content_type, SUMMARY_HEADER: summary.dump()},
        encode(terminal, content_type),
    )


def cut_job_token(token: str) -> str:
    """Return a subject's token as what `Terminal.job` takes."""
    return token[:_JOB_CHARS_MAX]


def event_of(submitter: str, job: str, record: Record) -> PublishEvent:
    """Return the event that tells of a committed record."""
    return PublishEvent(
        subjects.event(submitter, job),
        {**record.headers, subjects.SUBJECT_HEADER: record.subject},
        record.payload,
    )


def in_chunks(results: Sequence[TaskResult]) -> Iterator[Sequence[TaskResult]]:
    """Split results, in their order, so that no chunk is much above `CHUNK_BYTES_MAX`."""
    if isinstance(results, ResultRun):
        yield results  # which is far below
        return
    chunk: list[TaskResult] = []
    size_bytes = 0
    for result in results:
        adds_bytes = (
            _RESULT_OVERHEAD_BYTES
            + len(result.value)
            + len(result.stderr_tail)
            + len(result.error or "")
            + sum(_OUTPUT_OVERHEAD_BYTES + len(output.name) for output in result.outputs)
        )
        if chunk and size_bytes + adds_bytes > bounds.CHUNK_BYTES_MAX:
            yield tuple(chunk)
            chunk, size_bytes = [], 0
        chunk.append(result)
        size_bytes += adds_bytes
    if chunk:
        yield tuple(chunk)
