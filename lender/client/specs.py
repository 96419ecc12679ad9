"""From a submitter's words to a specification: names for inputs, defaults, the wire's checks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lender.client.errors import Rejected
from lender.protocol import bounds, codec
from lender.protocol.job import (
    After,
    Array,
    BlobRef,
    Input,
    JobSpec,
    Limits,
    Requires,
    Runtime,
    Sealing,
    Verify,
)

Content = Path | bytes
"""A file to be read, or the bytes themselves."""

DAY_S = 86_400.0

Part = TypeVar("Part", bound=BaseModel)

_WORKLOADS: Mapping[Runtime, str] = {"process": "command", "wasm": "wasm", "python": "python"}
"""What stands for any work of a runtime, in the catalogue that comes with the lender."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """What a job is to be, before its files have been uploaded.

    Attributes:
        argv: the command line; of a wasm job, the arguments after the program's name.
        wasm: a WebAssembly module (WASI preview 1).
        function: a program made by `lender.client.functions`. Without one and without a module it
            is a process job.
        inputs: what each task sees, by its name in the working folder.
        outputs: names of the files to bring back.
        array: number of tasks, or some of their indices; None for a job of one task without any.
        workload: what the owners grant; `wasm`, `python` or `command` unless named.
        priority: among the submitter's own jobs, -100 to 100; a step is worth a minute of waiting.
        expected_s: what a task probably takes; machines that stay long get long tasks.
        delay_s: no task runs before that has passed.
        after: jobs of this submitter that have to have ended before, by id: with success, unless
            `After(job=..., on="end")` says in any way.
        queue_s: how long it may wait for its first task to begin, once it may run; else it expires.
        deadline_s: how long the job may take to end, at most a week.
        gang: all tasks of the array run at the same time, or none does.
        verify: how many owners' machines run each task, and how many have to agree.
        checkpoint: another attempt of a task goes on from what it left in `checkpoint/`.
        traceparent: the caller's span, as W3C Trace Context writes it; tasks and receipts name it.
        sealed: nobody but this submitter and the lenders that it trusts reads inputs and results.
    """

    argv: Sequence[str] = ()
    wasm: Content | None = None
    function: bytes | None = None
    inputs: Mapping[str, Content] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    array: int | Array | None = None
    name: str = ""
    workload: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    requires: Requires = field(default_factory=Requires)
    retries: int = 0
    priority: int = 0
    expected_s: float | None = None
    delay_s: float = 0.0
    after: Sequence[After | str] = ()
    queue_s: float | None = None
    deadline_s: float = DAY_S
    gang: bool = False
    verify: Verify | None = None
    checkpoint: bool = False
    sealed: bool = False
    traceparent: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would be taken for something else, or fail far from here.

        Raises:
            Rejected: naming the field.
        """
        for name in ("argv", "outputs", "after"):
            if isinstance(getattr(self, name), str | bytes):
                raise Rejected(name, "must be a list, and is one text: put it into brackets")
        contents = {f"inputs.{name}": one for name, one in self.inputs.items()}
        for name, content in {**contents, "wasm": self.wasm or b""}.items():
            if not isinstance(content, Path | bytes):
                kind = type(content).__name__
                raise Rejected(name, f"must be a pathlib.Path or bytes, and is a {kind}")

    @property
    def program(self) -> Content | None:
        """What the lenders are to run, where that is no command of their own."""
        return self.wasm if self.function is None else self.function

    @property
    def runtime(self) -> Runtime:
        """How it is run."""
        if self.function is not None:
            return "python"
        return "process" if self.wasm is None else "wasm"


def inputs_by_name(files: Iterable[str | Path]) -> dict[str, Content]:
    """Name each file for the task as it was named here, or by its last part if it lies elsewhere.

    `data/x.npz` stays `data/x.npz`; `/srv/x.npz` and `../x.npz` become `x.npz`, so that a command
    that names the first works unchanged.

    Raises:
        Rejected: two would have the same name.
    """
    if isinstance(files, str | PurePath):
        raise Rejected("inputs", "must be a list, and is one file: put it into brackets")
    named: dict[str, Path] = {}
    for file in map(Path, files):
        outside = file.is_absolute() or ".." in file.parts
        name = file.name if outside else file.as_posix()
        if named.setdefault(name, file) != file:
            raise Rejected(
                "inputs", f"{named[name]} and {file} would both be {name}: say which name each has"
            )
    return {**named}


def array_of_each(each: Sequence[Sequence[str]], array: int | Array | None = None) -> Array:
    """Return an array whose tasks have words of their own behind the command line.

    Args:
        each: those of each task, in its order.
        array: their number, or which of them are to run; None: all.

    Raises:
        Rejected: there are none or too many, they are not lists, or not as many as `array` says.
    """
    if not each:
        raise Rejected("each", "is empty: there is nothing to run")
    if any(isinstance(words, str | bytes) for words in each):
        raise Rejected("each", "each must be a list, and one is a text: put it into brackets")
    if len(each) > bounds.EACH_MAX:
        raise Rejected("each", f"{len(each)}, at most {bounds.EACH_MAX} in a job: submit several")
    said = {"count": len(each) if array is None else array}
    fields = dict(array) if isinstance(array, Array) else said
    return _part("each", Array, len(each), **fields | {"each": tuple(map(tuple, each))})


def job_spec(
    request: JobRequest,
    *,
    job: str,
    submitter: str,
    now: float,
    program: BlobRef | None,
    inputs: Mapping[str, BlobRef],
    sealing: Sealing | None = None,
) -> JobSpec:
    """Return the specification of a request whose contents are known by their digests.

    Raises:
        Rejected: a field breaks a rule of the wire; nothing was sent.
    """
    inputs_named = [
        _part("inputs", Input, name, name=name, **blob.model_dump())
        for name, blob in inputs.items()
    ]
    after = [
        _part("after", After, one, job=one) if isinstance(one, str) else one
        for one in request.after
    ]
    array = request.array
    if isinstance(array, int):
        array = _part("array", Array, array, count=array)
    try:
        return JobSpec(
            v=1,
            id=job,
            submitter=submitter,
            name=request.name,
            workload=request.workload or _WORKLOADS[request.runtime],
            runtime=request.runtime,
            program=program,
            argv=tuple(request.argv),
            env=dict(request.env),
            inputs=tuple(inputs_named),
            outputs=tuple(request.outputs),
            array=array,
            limits=request.limits,
            requires=request.requires,
            gang=request.gang,
            verify=request.verify,
            sealing=sealing,
            checkpoint=request.checkpoint,
            retries=request.retries,
            priority=request.priority,
            expected_s=request.expected_s,
            not_before=now + request.delay_s if request.delay_s else None,
            after=tuple(after),
            queue_s=request.queue_s,
            traceparent=request.traceparent,
            created_at=now,
            not_after=now + request.deadline_s,
        )
    except ValidationError as error:
        fault = _first_fault(error)
        place = ".".join(str(part) for part in fault["loc"]) or error.title
        raise Rejected(place, fault["msg"]) from error


def _part(place: str, kind: type[Part], said: object, **fields: object) -> Part:
    try:
        return kind(**fields)
    except ValidationError as error:
        reason = _first_fault(error)["msg"].removeprefix("Value error, ")
        raise Rejected(place, f"{said!r}: {reason}") from error


def _first_fault(error: ValidationError) -> ErrorDetails:
    return error.errors(include_url=False, include_input=False)[0]


def payload_of(spec: JobSpec) -> bytes:
    """Return the exact bytes to sign and send.

    Raises:
        Rejected: they are more than a specification may have.
    """
    payload = codec.encode(spec)
    if len(payload) > bounds.SPEC_BYTES_MAX:
        raise Rejected(
            "payload",
            f"{len(payload)} bytes, at most {bounds.SPEC_BYTES_MAX}: send data as inputs",
        )
    return payload
