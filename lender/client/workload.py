"""One workload as the `workload.toml` of its folder describes it: see workloads/README.md."""

import hashlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, StringConstraints, ValidationError

from lender.client.arguments import command_fault, order_fault
from lender.protocol.bounds import MEMORY_BYTES_MAX
from lender.protocol.codec import Closed
from lender.protocol.ids import Sha256, WorkloadName
from lender.protocol.job import Arch, Gpu, Limits, Os, Runtime
from lender.service.bounded_text import read_bounded

DESCRIPTION = "workload.toml"

_LIMITS = ("cpu", "memory_bytes", "time_s", "output_bytes", "scratch_bytes")
"""Those that have to be said; others are the protocol's unless they are."""

Text = Annotated[str, StringConstraints(min_length=1)]
Entry = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+\.wasm$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class CatalogueError(Exception):
    """A workload's description can't be used.

    Attributes:
        path: the file or folder to mend.
        field: the key in it, dotted (`limits.cpu`); empty where the file as a whole is wrong.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, field: str, reason: str) -> None:
        super().__init__(f"{path}: {field}: {reason}" if field else f"{path}: {reason}")
        self.path = path
        self.field = field
        self.reason = reason


class Needs(Closed):
    """What a machine must have, as in `Requires`."""

    os: Os = "any"
    arch: Arch = "any"
    gpu: Gpu = "none"
    vram_bytes: int = Field(default=0, ge=0, le=MEMORY_BYTES_MAX)


class Workload(Closed):
    """A kind of work that can be granted.

    Attributes:
        name: name in grants and jobs; also that of its folder.
        title: one line for people.
        runtime: how it is run.
        entry: file name of the module, or None where the submitter ships the program.
        sha256: digest of the entry, verified when it was read; None without an entry.
        command: words of the command line, with arguments in braces; none where the submitter
            says it.
        files: names of files here that each job takes along, as inputs.
        requires: of a machine, unless a job says otherwise.
        limits: defaults for a task.
        arguments: each argument and its meaning, in their order.
        inputs: each input's name and content.
        outputs: `stdout` or each output's name, and its content.
    """

    name: WorkloadName
    title: Text
    runtime: Runtime
    entry: Entry | None = None
    sha256: Sha256 | None = None
    command: list[Text] = Field(default_factory=list)
    files: list[FileName] = Field(default_factory=list)
    requires: Needs = Needs()
    limits: Limits
    arguments: dict[str, Text] = Field(default_factory=dict)
    inputs: dict[str, Text] = Field(default_factory=dict)
    outputs: dict[str, Text] = Field(default_factory=dict)

    _folder: Path = PrivateAttr()

    def model_post_init(self, context: Any) -> None:  # noqa: ANN401 - pydantic's
        """Take the folder from what it is validated with."""
        self._folder = context

    @property
    def folder(self) -> Path:
        """Where it is described."""
        return self._folder

    @property
    def has_program(self) -> bool:
        """Whether it says what is run: a job's words are its arguments then."""
        return bool(self.entry or self.command)

    @property
    def carried(self) -> dict[str, Path]:
        """The paths of `files`, by name."""
        return {name: self._folder / name for name in self.files}

    @property
    def module(self) -> Path | None:
        """The entry's path."""
        return None if self.entry is None else self._folder / self.entry


def read(folder: Path) -> Workload:
    """Return the workload that a folder describes.

    Raises:
        CatalogueError: the description is malformed, or its entry does not have its digest.
    """
    path = folder / DESCRIPTION
    try:
        workload = Workload.model_validate(tomllib.loads(read_bounded(path)), context=folder)
    except OSError as error:
        raise CatalogueError(path, "", error.strerror or str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise CatalogueError(path, ".".join(map(str, first["loc"])), _reason(first)) from error
    except (ValueError, RecursionError) as error:  # of TOML or of UTF-8
        raise CatalogueError(path, "", str(error)) from error
    for fault in _faults(workload):
        raise CatalogueError(path, *fault)
    return workload


def _reason(fault: Any) -> str:  # noqa: ANN401 - pydantic's
    if fault["type"] == "extra_forbidden":
        return "there is no such key"
    return str(fault["msg"]).removeprefix("Value error, ")


def _faults(workload: Workload) -> Iterator[tuple[str, str]]:
    """Which fields are wrong beside the others, and why."""
    if workload.name != workload.folder.name:
        yield "name", "must be the folder's name"
    for name in _LIMITS:
        if name not in workload.limits.model_fields_set:
            yield f"limits.{name}", "is missing"
    if fault := order_fault(workload.arguments):
        yield "arguments", fault
    if (workload.entry is None) != (workload.sha256 is None):
        yield ("entry" if workload.entry is None else "sha256"), "is missing"
    yield from _command_faults(workload)
    yield from _entry_faults(workload)


def _command_faults(workload: Workload) -> Iterator[tuple[str, str]]:
    if workload.command and workload.runtime != "process":
        yield "command", "only the process runtime has one"
    if fault := command_fault(workload.command, [*workload.arguments]):
        yield "command", fault
    if workload.files and not workload.command:
        yield "files", "only a command line has some"
    for name, path in workload.carried.items():
        # A link may lead to what is not meant to be sent.
        if path.is_symlink() or not path.is_file():
            yield "files", f"{name} is no file in this folder"
        if name in workload.inputs:
            yield "files", f"{name} is an input already"


def _entry_faults(workload: Workload) -> Iterator[tuple[str, str]]:
    if workload.module is None:
        return
    if workload.runtime != "wasm":
        yield "entry", "only the wasm runtime has one"
    try:
        found = hashlib.sha256(workload.module.read_bytes()).hexdigest()
    except OSError as error:
        yield "entry", f"{workload.entry}: {error.strerror or error}"
        return
    if found != workload.sha256:
        yield "sha256", f"{workload.entry} has {found}; build it again or restore it"
