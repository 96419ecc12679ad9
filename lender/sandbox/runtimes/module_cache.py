"""Compiled wasm modules on disk. Runs in the sandbox process only: it imports wasmtime.

A compiled module is native code: only our own output is ever loaded, from a folder that nobody
but this user can write, under a key that holds everything its meaning depends on.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

import wasmtime

from lender.sandbox.port import PrepareFailedError

_CORE_MODULE = b"\0asm\x01\0\0\0"
_OTHERS_MAY_WRITE = 0o022
# Read while the package's files can be read: the sandbox may run as another user.
_VERSION = importlib.metadata.version("wasmtime")


def load(engine: wasmtime.Engine, program: Path, folder: Path | None) -> wasmtime.Module:
    """The compiled module of a program, from the cache where it is there already.

    Raises:
        PrepareFailedError: it can't be read, is no core module, or does not validate.
    """
    try:
        source = program.read_bytes()
    except OSError as error:
        raise PrepareFailedError(f"program: {error.strerror}") from error
    if not source.startswith(_CORE_MODULE):
        raise PrepareFailedError(
            "not a WebAssembly core module (binary, version 1)", invalid=True, field="program"
        )
    entry = _entry(folder, source) if folder is not None else None
    if entry is not None and entry.is_file():
        # A file cut short by a power loss, or by a full disk: compile again.
        with contextlib.suppress(wasmtime.WasmtimeError):
            return wasmtime.Module.deserialize_file(engine, str(entry))
    try:
        module = wasmtime.Module(engine, source)
    except wasmtime.WasmtimeError as error:
        raise PrepareFailedError(f"{error}"[:1000], invalid=True, field="program") from error
    if entry is not None:
        _store(entry, bytes(module.serialize()))
    return module


def _entry(folder: Path, source: bytes) -> Path | None:
    """Where the compiled module lies; None when others could write there."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & _OTHERS_MAY_WRITE:
        return None
    engine = hashlib.sha256(f"{_VERSION} {_cpu()}".encode()).hexdigest()[:16]
    return folder / f"{hashlib.sha256(source).hexdigest()}-{engine}.cwasm"


def _cpu() -> str:
    """Machine and instruction set extensions: code for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = [platform.processor()]
    extensions = {line for line in lines if line.lower().startswith(("flags", "features"))}
    return " ".join([platform.machine(), *sorted(extensions)])


def _store(entry: Path, compiled: bytes) -> None:
    """Write it whole or not at all. Without room it is compiled again next time."""
    partial = entry.with_name(f"{entry.name}.{os.getpid()}")
    try:
        with partial.open("xb") as file:
            file.write(compiled)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(entry)
    except OSError:
        partial.unlink(missing_ok=True)
