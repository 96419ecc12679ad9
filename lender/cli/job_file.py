"""A job written down: a TOML file for what doesn't fit a line. Its faults name line and field.

Keys are those of the options of `lender submit`; sizes and durations are written as there.
"""

import argparse
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lender.cli.array_indices import indices
from lender.cli.catalogue_choice import described
from lender.cli.exits import CommandError, Exit
from lender.cli.job_options import latest_end_s, verification
from lender.cli.toml_lines import Place, line_of, line_of_fault
from lender.client import (
    Array,
    Catalogue,
    CatalogueError,
    Content,
    JobRequest,
    Limits,
    Rejected,
    Requires,
    Verify,
)
from lender.client.specs import array_of_each, inputs_by_name, job_spec, payload_of
from lender.protocol.job import After, BlobRef, JobSpec
from lender.protocol.reach import parse_reach
from lender.protocol.strangers_text import visible
from lender.service.bounded_text import read_bounded
from lender.service.quantities import duration_s, size_bytes

Read = TypeVar("Read")

_NOBODY = "UAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
_NO_BLOB = BlobRef(sha256="0" * 64, size_bytes=0)
_NO_JOB = "0" * 26
_NOW = 1e9


def _typed(read: Callable[[str], Read]) -> BeforeValidator:
    """Have a text read as the option of that name is; a plain number is one as well."""

    def take(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return value
        try:
            return read(str(value))
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(take)


def _predecessor(text: str) -> After:
    job, _, on = text.partition(":")
    return After.model_validate({"job": job, "on": on or "success"})


Size = Annotated[int, _typed(size_bytes)]
Duration = Annotated[float, _typed(duration_s)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Limits(_Table):
    cpu: int | None = None
    mem: Size | None = Field(None, serialization_alias="memory_bytes")
    timeout: Duration | None = Field(None, serialization_alias="time_s")
    prepare_time: Duration | None = Field(None, serialization_alias="prepare_s")
    output: Size | None = Field(None, serialization_alias="output_bytes")
    scratch: Size | None = Field(None, serialization_alias="scratch_bytes")
    processes: int | None = None


class _Machine(_Table):
    pool: str | None = None
    os: str | None = None
    arch: str | None = None
    gpu: str | None = None
    vram: Size | None = Field(None, serialization_alias="vram_bytes")
    labels: list[str] | None = None
    prefers: list[str] | None = None
    net: Annotated[tuple[str, ...], _typed(parse_reach)] | None = None


class _When(_Table):
    priority: int = 0
    delay: Duration = 0.0
    after: list[Annotated[After, _typed(_predecessor)]] = []
    queue_time: Duration | None = None
    deadline: Duration | None = None
    expect: Duration | None = None


class _JobFile(_Table):
    command: list[str] = []
    wasm: str | None = None
    array: Annotated[Array, _typed(indices)] | None = None
    each: list[str | list[str]] | None = None
    gang: bool = False
    name: str = ""
    workload: str | None = None
    inputs: list[str] | dict[str, str] = []
    outputs: list[str] = []
    env: dict[str, str] = {}
    retries: int = 0
    verify: Annotated[Verify, _typed(verification)] | None = None
    checkpoint: bool = False
    seal: bool = False
    limits: _Limits = _Limits()
    machine: _Machine = _Machine()
    when: _When = _When()


# What the wire calls otherwise than the file does.
_PLACES: dict[str, Place] = {
    "argv": ("command",),
    "memory_bytes": ("limits", "mem"),
    "time_s": ("limits", "timeout"),
    "prepare_s": ("limits", "prepare_time"),
    "output_bytes": ("limits", "output"),
    "scratch_bytes": ("limits", "scratch"),
    "vram_bytes": ("machine", "vram"),
    "expected_s": ("when", "expect"),
    "not_before": ("when", "delay"),
    "not_after": ("when", "deadline"),
    "queue_s": ("when", "queue_time"),
    "sealing": ("seal",),
    "priority": ("when", "priority"),
    "after": ("when", "after"),
}


def read_job_file(path: Path, catalogue: Catalogue) -> JobRequest:
    """Return the job that a file describes; files that it names lie beside it.

    Args:
        path: of the file.
        catalogue: what it may name as its workload.

    Raises:
        CommandError: it can't be read, or describes no job: says line, field and mend.
    """
    try:
        text = read_bounded(path)
        tree = tomllib.loads(text)
    except OSError as error:
        raise CommandError(Exit.USAGE, f"can't read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        line, reason = line_of_fault(text, str(error))
        raise CommandError(Exit.USAGE, f"{path}:{line}: {visible(reason)}") from error
    except (ValueError, RecursionError) as error:  # also of numbers that are too long
        reason = visible(str(error)) or "nested too deeply"
        raise CommandError(Exit.USAGE, f"{path}: {reason}") from error
    try:
        request = described(_request(_JobFile.model_validate(tree), path.parent), catalogue)
        _check(request)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = _PLACES.get(str(fault["loc"][-1]), fault["loc"])
        if error.title in {"Limits", "Requires"} and place == fault["loc"]:
            place = ("limits" if error.title == "Limits" else "machine", *place)
        raise _fault(path, text, place, _message(fault)) from error
    except Rejected as error:
        field, reason = error.field, error.reason.removeprefix("Value error, ")
        if field == JobSpec.__name__ and ": " in reason:  # of several fields: names one itself
            field, reason = reason.split(": ", 1)
        place = _PLACES.get(field.split(".")[-1], tuple(field.split(".")))
        raise _fault(path, text, place, reason) from error
    except _MissingFileError as error:
        raise _fault(path, text, error.place, str(error)) from error
    except CatalogueError as error:
        raise _fault(path, text, ("workload",), str(error)) from error
    return request


class _MissingFileError(Exception):
    def __init__(self, place: Place, path: Path) -> None:
        super().__init__(f"there is no file {path}")
        self.place = place


def _request(file: _JobFile, folder: Path) -> JobRequest:
    named: dict[str, Content] = (
        inputs_by_name(file.inputs)
        if isinstance(file.inputs, list)
        else {name: Path(one) for name, one in file.inputs.items()}
    )
    inputs: dict[str, Content] = {}
    for name, one in named.items():
        inputs[name] = folder / one if isinstance(one, Path) else one
        if not _is_file(folder / str(one)):
            raise _MissingFileError(("inputs", name), folder / str(one))
    wasm = None if file.wasm is None else folder / file.wasm
    if wasm is not None and not _is_file(wasm):
        raise _MissingFileError(("wasm",), wasm)
    when, array = file.when, file.array
    if file.each is not None:
        if array is not None:
            raise Rejected("each", "says how many tasks there are: leave out array")
        array = array_of_each([[one] if isinstance(one, str) else one for one in file.each])
    limits = file.limits.model_dump(by_alias=True, exclude_none=True)
    machine = file.machine.model_dump(by_alias=True, exclude_none=True)
    requires = {key: tuple(one) if isinstance(one, list) else one for key, one in machine.items()}
    return JobRequest(
        argv=file.command,
        wasm=wasm,
        inputs=inputs,
        outputs=file.outputs,
        array=array,
        name=file.name,
        workload=file.workload,
        env=file.env,
        limits=Limits.model_validate(limits),
        requires=Requires.model_validate(requires),
        retries=file.retries,
        verify=file.verify,
        priority=when.priority,
        expected_s=when.expect,
        delay_s=when.delay,
        after=when.after,
        queue_s=when.queue_time,
        deadline_s=latest_end_s(when.deadline, when.delay, when.after),
        gang=file.gang,
        checkpoint=file.checkpoint,
        sealed=file.seal,
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # none can be called so
        return False


def _check(request: JobRequest) -> None:
    """Hold it against the rules of the wire, before anything is sent.

    Raises:
        Rejected: it breaks one.
    """
    each = request.array.each if isinstance(request.array, Array) else ()
    if request.wasm is None and not (request.argv or each):
        raise Rejected("command", "say what to run, or name a module by wasm")
    spec = job_spec(
        request,
        job=_NO_JOB,
        submitter=_NOBODY,
        now=_NOW,
        program=_NO_BLOB if request.wasm is not None else None,
        inputs=dict.fromkeys(request.inputs, _NO_BLOB),
    )
    payload_of(spec)


def _message(fault: Any) -> str:  # noqa: ANN401 - pydantic's
    if fault["type"] == "extra_forbidden":
        return "there is no such key"
    return str(fault["msg"]).removeprefix("Value error, ")


def _fault(path: Path, text: str, place: Place, message: str) -> CommandError:
    names = ".".join(str(one) for one in place)
    where = f"{path}:{line_of(text, place)}"
    return CommandError(Exit.USAGE, f"{where}: {visible(names)}: {visible(message)}")
