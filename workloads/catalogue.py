"""Reads the catalogue: one `workload.toml` per folder, whose format README.md describes."""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

Runtime = Literal["wasm", "process", "python", "oci"]

_DESCRIPTION = "workload.toml"
_RUNTIMES: dict[str, Runtime] = {one: one for one in get_args(Runtime)}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_ENTRY = re.compile(r"[a-z0-9-]+\.wasm")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEMORY_BYTES_MIN = 1 << 20
_TIME_S_MAX = 7 * 86_400.0
_TEXTS = ("arguments", "inputs", "outputs")


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


@dataclass(frozen=True)
class Limits:
    """What one task of the workload may use unless its job asks otherwise."""

    cpu: int
    memory_bytes: int
    time_s: float
    output_bytes: int
    scratch_bytes: int


@dataclass(frozen=True)
class Workload:
    """A kind of work that can be granted.

    Attributes:
        name: name in grants and jobs; also that of its folder.
        title: one line for people.
        runtime: how it is run.
        entry: path of the module, or None where the submitter ships the program.
        sha256: digest of the entry, verified when it was loaded; None without an entry.
        limits: defaults for a task.
        arguments: each argument and its meaning, in their order.
        inputs: each input's name and content.
        outputs: `stdout` or each output's name, and its content.
    """

    name: str
    title: str
    runtime: Runtime
    entry: Path | None
    sha256: str | None
    limits: Limits
    arguments: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def load(folder: Path | None = None) -> dict[str, Workload]:
    """Return the workloads described in the folders of `folder`, by name.

    Args:
        folder: the catalogue; None for the one that comes with the package.

    Raises:
        CatalogueError: a description is malformed, or an entry does not have its digest.
    """
    folder = Path(__file__).parent if folder is None else folder
    try:
        folders = [one for one in sorted(folder.iterdir()) if (one / _DESCRIPTION).exists()]
    except OSError as error:
        raise CatalogueError(folder, "", error.strerror or str(error)) from error
    return {one.name: _read(one) for one in folders}


def _read(folder: Path) -> Workload:
    path = folder / _DESCRIPTION
    try:
        table = _Table(path, tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise CatalogueError(path, "", error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:  # of TOML or of UTF-8
        raise CatalogueError(path, "", str(error)) from error

    name = table.text("name")
    if not _NAME.fullmatch(name) or name != folder.name:
        raise table.error("name", "must be the folder's name: a-z, then up to 31 of a-z 0-9 -")
    runtime = _RUNTIMES.get(table.text("runtime"))
    if runtime is None:
        raise table.error("runtime", f"must be one of {', '.join(_RUNTIMES)}")
    entry, sha256 = _entry(folder, table) if table.has("entry", "sha256") else (None, None)
    if entry is not None and runtime != "wasm":
        raise table.error("entry", "only the wasm runtime has one")
    limits = _limits(table.table("limits"))
    workload = Workload(
        name,
        table.text("title"),
        runtime,
        entry,
        sha256,
        limits,
        *(table.table(key, optional=True).texts() for key in _TEXTS),
    )
    table.close()
    return workload


def _entry(folder: Path, table: "_Table") -> tuple[Path, str]:
    name, sha256 = table.text("entry"), table.text("sha256")
    if not _ENTRY.fullmatch(name):
        raise table.error("entry", "must be a file name: a-z 0-9 - and .wasm")
    if not _SHA256.fullmatch(sha256):
        raise table.error("sha256", "must be 64 lower-case hexadecimal digits")
    entry = folder / name
    try:
        found = hashlib.sha256(entry.read_bytes()).hexdigest()
    except OSError as error:
        raise table.error("entry", f"{name}: {error.strerror or error}") from error
    if found != sha256:
        raise table.error("sha256", f"{name} has {found}; build it again or restore it")
    return entry, sha256


def _limits(table: "_Table") -> Limits:
    limits = Limits(
        cpu=table.integer("cpu", least=1),
        memory_bytes=table.integer("memory_bytes", least=_MEMORY_BYTES_MIN),
        time_s=table.seconds("time_s"),
        output_bytes=table.integer("output_bytes", least=0),
        scratch_bytes=table.integer("scratch_bytes", least=0),
    )
    table.close()
    return limits


class _Table:
    """A TOML table whose every key is to be taken once, with its type checked."""

    def __init__(self, path: Path, values: dict[str, object], prefix: str = "") -> None:
        self._path = path
        self._values = values
        self._prefix = prefix

    def error(self, key: str, reason: str) -> CatalogueError:
        return CatalogueError(self._path, self._prefix + key, reason)

    def has(self, *keys: str) -> bool:
        return any(key in self._values for key in keys)

    def close(self) -> None:
        for key in self._values:
            raise self.error(key, "unknown key")

    def text(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, "must be a string that is not empty")
        return value

    def texts(self) -> Mapping[str, str]:
        return MappingProxyType({key: self.text(key) for key in list(self._values)})

    def integer(self, key: str, least: int) -> int:
        value = self._take(key)
        if type(value) is not int or value < least:
            raise self.error(key, f"must be an integer, {least} or more")
        return value

    def seconds(self, key: str) -> float:
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, "must be a number of seconds")
        if not 0 < value <= _TIME_S_MAX:
            raise self.error(key, "must be above 0 and at most a week")
        return float(value)

    def table(self, key: str, *, optional: bool = False) -> "_Table":
        value = {} if optional and key not in self._values else self._take(key)
        if not isinstance(value, dict):
            raise self.error(key, "must be a table")
        return _Table(self._path, value, f"{self._prefix}{key}.")

    def _take(self, key: str) -> object:
        if key not in self._values:
            raise self.error(key, "is missing")
        return self._values.pop(key)
