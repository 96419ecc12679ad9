"""What a submitter asks for: the job specification, the signed document of the whole product."""

import operator
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from lender.protocol import bounds
from lender.protocol.codec import Closed
from lender.protocol.ids import JobId, Label, PoolName, PublicKey, Sha256, WorkloadName
from lender.protocol.reach import PLACE_CHARS_MAX, PLACE_PATTERN, PLACES_MAX, check_place
from lender.protocol.trace import Traceparent

Runtime = Literal["wasm", "process", "python", "oci"]
Arch = Literal["any", "x86_64", "aarch64"]
Gpu = Literal["none", "nvidia"]
Os = Literal["any", "linux", "macos"]

NETWORKED: frozenset[Runtime] = frozenset({"process", "python"})
"""Runtimes whose sandboxes can be given a network."""

DEVICED: frozenset[Runtime] = frozenset({"process", "python"})
"""Runtimes whose sandboxes can be given a device; see `lender.protocol.devices`."""

TASK_PLACEHOLDER = "{task}"
"""Stands in an argv entry for the task's index."""

_NAME_BYTES_MAX = 255  # Linux and macOS: NAME_MAX


def _check_relative_path(path: str) -> str:
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or not path.isprintable() or "\\" in path:
        raise ValueError("must be a relative path without . or .. and of printable characters")
    if any(len(part.encode()) > _NAME_BYTES_MAX for part in parts):
        raise ValueError(f"no part of a path may be longer than {_NAME_BYTES_MAX} bytes")
    return path


def _check_printable(text: str) -> str:
    # It is shown to owners in a terminal.
    if not text.isprintable():
        raise ValueError("must be of printable characters")
    return text


RelativePath = Annotated[
    str, Field(min_length=1, max_length=240), AfterValidator(_check_relative_path)
]


PYTHON_VERSION_PATTERN = r"^3\.(0|[1-9][0-9]?)$"
PythonVersion = Annotated[str, StringConstraints(pattern=PYTHON_VERSION_PATTERN)]
"""Major and minor, such as `3.11`."""


Place = Annotated[
    str,
    StringConstraints(max_length=PLACE_CHARS_MAX, pattern=PLACE_PATTERN),
    AfterValidator(check_place),
]
"""Of the network: see `lender.protocol.reach`."""
Reach = Annotated[tuple[Place, ...], Field(max_length=PLACES_MAX)]


SealedKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{107}$")]
"""80 bytes in unpadded base64url."""


Week = Annotated[int, Field(ge=0, le=bounds.WEEK_MAX)]
"""Of `bounds.WEEK_S`, counted from the epoch."""


def week_of(now: float) -> int:
    """Return in which week a content is that is stored `now`, in seconds since the epoch."""
    return int(now // bounds.WEEK_S)


class BlobRef(Closed):
    """Content in the bucket of the job's submitter, named by its SHA-256."""

    sha256: Sha256
    size_bytes: int = Field(ge=0, le=bounds.BLOB_BYTES_MAX)
    by: PublicKey | None = None
    """Who stored it there; None: the submitter."""
    week: Week | None = None
    """In which week, by the clock of who stored it. None: an earlier version did."""


class Input(Closed):
    """A blob that a task sees read-only under `name` in its working folder."""

    name: RelativePath
    sha256: Sha256
    size_bytes: int = Field(ge=0, le=bounds.BLOB_BYTES_MAX)
    by: PublicKey | None = None
    """As in a BlobRef: so what a lender has left of an earlier job need not be sent again."""
    week: Week | None = None
    """As in a BlobRef."""


AfterOn = Literal["success", "end"]


class After(Closed):
    """A job of the same submitter that has to have ended before: with success, or in any way."""

    job: JobId
    on: AfterOn = "success"


TaskRange = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]
"""(first task index, number of tasks)."""


ArgvEntry = Annotated[str, Field(max_length=bounds.ARGV_ENTRY_CHARS_MAX, pattern=r"^[^\x00]*$")]
Words = Annotated[tuple[ArgvEntry, ...], Field(max_length=bounds.ARGV_ENTRIES_MAX)]


class Array(Closed):
    """Makes a job of `count` tasks, with indices from 0; or of those of them that are named."""

    count: int = Field(ge=1, le=bounds.ARRAY_COUNT_MAX)
    tasks: tuple[TaskRange, ...] = Field(
        default=(), max_length=bounds.ARRAY_RANGES_MAX, exclude_if=operator.not_
    )
    """Only these of the indices, in ascending order; none named: all."""
    each: tuple[Words, ...] = Field(
        default=(), max_length=bounds.EACH_MAX, exclude_if=operator.not_
    )
    """What follows `argv` in the command line of each task; none: nothing does."""
    separate: bool = Field(default=False, exclude_if=operator.not_)
    """Its tasks are jobs that were submitted together: each is told that it is task 0 of 1 of the
    job that `ids.task_name` calls it."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        end = -1
        for first, count in self.tasks:
            if first <= end or first + count > self.count:
                raise ValueError(
                    "tasks: must be ascending ranges of indices below count that do not touch"
                )
            end = first + count
        return self

    @model_validator(mode="after")
    def _of_each(self) -> Self:
        if self.each and len(self.each) != self.count:
            raise ValueError("each: must be as many as count, also where only some are to run")
        if self.separate and self.count > bounds.EACH_MAX:
            raise ValueError(f"separate: at most {bounds.EACH_MAX} jobs go together")
        return self


PREPARE_S = 600.0


class Limits(Closed):
    """What one task may use. A limit that is hit fails the task and is named in its result.

    `prepare_s` alone is of what comes before the first task: a lender that fetches the inputs and
    compiles for longer hands its lease back, which costs the job nothing.
    """

    cpu: int = Field(default=1, ge=1, le=256)
    memory_bytes: int = Field(
        default=512 << 20, ge=bounds.MEMORY_BYTES_MIN, le=bounds.MEMORY_BYTES_MAX
    )
    time_s: float = Field(default=300.0, gt=0, le=bounds.TIME_S_MAX)
    """Of execution: preparing is not counted."""
    prepare_s: float = Field(
        default=PREPARE_S,
        gt=0,
        le=bounds.TIME_S_MAX,
        exclude_if=lambda prepare_s: prepare_s == PREPARE_S,
    )
    output_bytes: int = Field(default=1 << 20, ge=0, le=bounds.OUTPUT_BYTES_MAX)
    scratch_bytes: int = Field(default=256 << 20, ge=0, le=bounds.SCRATCH_BYTES_MAX)
    processes: int = Field(default=64, ge=1, le=4096)


class Requires(Closed):
    """What a machine must have to run the job at all.

    What came later is left out of what is sent where nobody asks for it: an older reader refuses
    fields that it does not know.
    """

    pool: PoolName = "default"
    arch: Arch = "any"
    os: Os = Field(default="any", exclude_if=lambda os: os == "any")
    labels: tuple[Label, ...] = Field(
        default=(), max_length=bounds.LABELS_MAX, exclude_if=operator.not_
    )
    """A machine without one of them does not run the job. One that begins with `accel-` asks for
    the device that it stands for."""
    prefers: tuple[Label, ...] = Field(
        default=(), max_length=bounds.LABELS_MAX, exclude_if=operator.not_
    )
    """Of the machines that can run the job now, one with more of them is better."""
    gpu: Gpu = "none"
    vram_bytes: int = Field(default=0, ge=0, le=bounds.MEMORY_BYTES_MAX)
    """GPU memory that one task takes at most."""
    python: PythonVersion | None = None
    """Of a python job, and of no other: its byte code runs on this minor version only."""
    net: Reach = Field(default=(), exclude_if=operator.not_)
    """Where on the network its tasks have to get to, by a proxy: only process and python jobs. A
    machine whose owner does not allow all of it does not run the job."""


class Verify(Closed):
    """Each task is run by lenders of `replicas` different owners; `quorum` have to agree.

    Equal are answers of equal state, exit code, value and outputs. With `spot_check` a lender
    whose answers others have confirmed lately runs most tasks alone, and is checked now and then.
    """

    replicas: int = Field(default=2, ge=2, le=bounds.REPLICAS_MAX)
    quorum: int = Field(default=2, ge=1, le=bounds.REPLICAS_MAX)
    spot_check: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.quorum > self.replicas:
            raise ValueError("quorum: no more can agree than are asked")
        if self.spot_check and self.quorum == 1:
            raise ValueError("quorum: one answer alone checks nothing")
        return self


class Sealing(Closed):
    """What a job reads and leaves is encrypted: `lender.protocol.sealing`.

    That is its inputs, checkpoints, values, outputs and what it writes to standard error, and the
    program of a python job, which holds its arguments. Other programs, `argv` and `env` are not.
    """

    keys: dict[PublicKey, SealedKey] = Field(min_length=2, max_length=bounds.SEALED_TO_MAX + 1)
    """The job's key, sealed to each lender that may run it and to its submitter."""


_ONE_TASK: tuple[TaskRange, ...] = ((0, 1),)
_ALL: frozenset[str] = frozenset()

_PROGRAMS: Mapping[Runtime, str] = MappingProxyType(
    {
        "wasm": "a wasm job names its module's blob",
        "python": "a python job names the blob of its function",
        "oci": "an oci job names the blob of its image",
    }
)
"""What a job's program is, for the runtimes that can't do without one."""

JobName = Annotated[str, Field(max_length=120), AfterValidator(_check_printable)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
EnvValue = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]


class JobSpec(Closed):
    """One job: a program, its inputs and limits, for one task or an array of them.

    The submitter signs the encoded bytes; broker and lender verify the same bytes, so nothing on
    the way can change what runs. Times are seconds since the epoch, on the submitter's clock.

    What `program` and `argv` are is the runtime's to say. wasm: a module, and its arguments.
    process: a command line, and a tar archive of the root file system that it sees in place of
    the machine's. python: a pickled callable that is called with the task's index; no arguments.
    oci: an archive of an image, and a command line in place of the image's own.
    """

    v: Literal[1]
    id: JobId
    submitter: PublicKey
    name: JobName = ""
    workload: WorkloadName
    runtime: Runtime
    program: BlobRef | None = None
    argv: Words = ()
    env: dict[EnvName, EnvValue] = Field(default_factory=dict, max_length=bounds.ENV_ENTRIES_MAX)
    inputs: tuple[Input, ...] = Field(default=(), max_length=bounds.INPUTS_MAX)
    outputs: tuple[RelativePath, ...] = Field(default=(), max_length=bounds.OUTPUTS_MAX)
    array: Array | None = None
    limits: Limits = Limits()
    requires: Requires = Requires()
    checkpoint: bool = False
    """A task keeps its durable state in `checkpoint/`; another attempt of it goes on from there."""
    gang: bool = Field(default=False, exclude_if=operator.not_)
    """All tasks of the array that have no result run at the same time, or none does."""
    retries: int = Field(default=0, ge=0, le=bounds.RETRIES_MAX)
    priority: int = Field(
        default=0, ge=-bounds.PRIORITY_MAX, le=bounds.PRIORITY_MAX, exclude_if=operator.not_
    )
    """Among the submitter's own jobs: one step is worth a minute of waiting."""
    verify: Verify | None = None
    sealing: Sealing | None = Field(default=None, exclude_if=operator.not_)
    """Only these lenders run it, and nobody between reads what it works on. None: in the clear."""
    expected_s: float | None = Field(default=None, gt=0, le=bounds.TIME_S_MAX)
    """What the submitter thinks that a task takes, until it has been measured."""
    not_before: float | None = Field(default=None, gt=0)
    """No task is handed out before."""
    after: tuple[After, ...] = Field(
        default=(), max_length=bounds.AFTER_MAX, exclude_if=operator.not_
    )
    """No task is handed out before these have ended as asked. If one ends otherwise, the job is
    cancelled; one that is not known is waited for."""
    queue_s: float | None = Field(default=None, gt=0, le=bounds.QUEUE_S_MAX)
    """The job expires unless a lender has begun one of its tasks within this, counted from when it
    may run: from `created_at`, from `not_before`, or from the end of the last of `after`."""
    traceparent: Traceparent | None = None
    """The submitter's span that asks for it (W3C Trace Context): tasks and receipts name it, and
    nothing is decided by it."""
    created_at: float = Field(gt=0)
    not_after: float = Field(gt=0)
    """The job expires unless it has ended by then; at most a week after `created_at`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.program is None and self.runtime in _PROGRAMS:
            raise ValueError(f"program: {_PROGRAMS[self.runtime]}")
        self._check_words(self.array.each if self.array else ())
        if (self.runtime == "python") != (self.requires.python is not None):
            raise ValueError("requires.python: a python job names its version, and no other does")
        if self.requires.net and self.runtime not in NETWORKED:
            raise ValueError(f"requires.net: a {self.runtime} job can't have a network")
        return self if not self.inputs else self._with_consistent_inputs()

    def _check_words(self, each: tuple[tuple[str, ...], ...]) -> None:
        if self.runtime == "process" and not (self.argv or (each and all(each))):
            raise ValueError("argv: a process job is a command line")
        if self.runtime == "python" and (self.argv or each):
            raise ValueError("argv: a python job has none; its function carries its arguments")
        if len(self.argv) + max(map(len, each), default=0) > bounds.ARGV_ENTRIES_MAX:
            raise ValueError(f"array.each: with argv at most {bounds.ARGV_ENTRIES_MAX} words")
        if self.array is not None and self.array.separate and (self.gang or self.checkpoint):
            raise ValueError("array.separate: not of a gang, and without checkpoints")
        if self.array is not None and self.array.separate and self.runtime == "python":
            raise ValueError("array.separate: a python job's function is called with its index")

    def _with_consistent_inputs(self) -> Self:
        names = [one.name for one in self.inputs]
        if len(set(names)) != len(names):
            raise ValueError("inputs: two inputs share a name")
        if any(str(parent) in names for name in names for parent in PurePosixPath(name).parents):
            raise ValueError("inputs: the name of one is a folder of another")
        if self.checkpoint and any(PurePosixPath(name).parts[0] == "checkpoint" for name in names):
            raise ValueError("inputs: the folder checkpoint/ is the task's own")
        return self

    @model_validator(mode="after")
    def _timely(self) -> Self:
        if self.after:
            self._check_after()
        if not self.created_at < self.not_after <= self.created_at + bounds.QUEUE_S_MAX:
            raise ValueError("not_after: must be within a week after created_at")
        if self.not_before is not None and self.not_before >= self.not_after:
            raise ValueError("not_before: must be before not_after")
        return self

    def _check_after(self) -> None:
        before = [one.job for one in self.after]
        if len(set(before)) != len(before):
            raise ValueError("after: a job is named twice")
        if self.id in before:
            raise ValueError("after: the job would wait for itself")

    @model_validator(mode="after")
    def _gang_of_few(self) -> Self:
        if self.gang and (self.array is None or self.array.count > bounds.GANG_TASKS_MAX):
            raise ValueError(f"gang: must be an array of at most {bounds.GANG_TASKS_MAX} tasks")
        return self

    @model_validator(mode="after")
    def _sealed(self) -> Self:
        if self.sealing is not None and self.submitter not in self.sealing.keys:
            raise ValueError("sealing.keys: its submitter could not read what comes back")
        if self.sealing is not None and self.verify is not None:
            raise ValueError("verify: nobody on the way can compare answers that are sealed")
        return self

    @model_validator(mode="after")
    def _independent(self) -> Self:
        if self.verify is not None and self.checkpoint:
            raise ValueError("verify: who goes on from another's checkpoint checks nothing")
        if self.verify is not None and self.gang:
            raise ValueError("verify: of a gang each task runs once, together with the others")
        return self

    @property
    def sealed_to(self) -> frozenset[str]:
        """The lenders that may run it; empty: any."""
        return frozenset(self.sealing.keys).difference((self.submitter,)) if self.sealing else _ALL

    @property
    def task_ranges(self) -> tuple[TaskRange, ...]:
        """The indices of all tasks: 0 without an array."""
        if self.array is None:
            return _ONE_TASK
        return self.array.tasks or ((0, self.array.count),)

    @property
    def task_count(self) -> int:
        """Number of tasks: 1 without an array."""
        return 1 if self.array is None else sum([count for _, count in self.task_ranges])

    def has_task(self, index: int) -> bool:
        """Tell whether one of its tasks has this index."""
        return any(first <= index < first + count for first, count in self.task_ranges)

    @property
    def task_end(self) -> int:
        """The lowest number above all indices that the array could have."""
        return self.array.count if self.array else 1
