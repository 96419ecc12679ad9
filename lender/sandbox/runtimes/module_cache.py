"""Compiled wasm modules on disk. Runs in the sandbox process only: it imports wasmtime.

A compiled module is native code: only our own output is ever loaded, from a folder that nobody
but this user can write, under a name that holds everything its meaning depends on and the digest
of the file itself. The digest is no wall against who can write there, since that is this user; it
is one against a rotten bit on a cheap disk, which would run outside of any guest's walls. Several
processes use a folder at once: each file appears whole, and one that vanishes is compiled again.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import wasmtime

from lender.sandbox.port import PrepareFailedError
from lender.sandbox.processes import sysctl

CACHE_BYTES_MAX = 256 << 20
"""What a folder may hold; the least recently used modules go first."""

CPU = Path("/proc/cpuinfo")
"""Read for each module: code for one processor may not run on another."""

_CORE_MODULE = b"\0asm\x01\0\0\0"
_OTHERS_MAY_WRITE = 0o022
_MACS_NAMES = ("brand_string", "features", "leaf7_features", "extfeatures")
_SUFFIX = ".cwasm"
# What is still being written is younger; older, its writer was killed.
_PARTIAL_S = 600.0
# Read while the package's files can be read: the sandbox may run as another user.
_VERSION = importlib.metadata.version("wasmtime")


def load(
    engine: wasmtime.Engine,
    program: Path,
    folder: Path | None,
    bytes_max: int = CACHE_BYTES_MAX,
) -> wasmtime.Module:
    """The compiled module of a program, from the cache where it is there already.

    Args:
        engine: what is to run it.
        program: the module as bytes of WebAssembly.
        folder: the cache; None keeps nothing.
        bytes_max: what the folder may hold.

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
    if folder is None or not is_private(folder):
        return _compile(engine, source)
    key = _key(source)
    found = _find(engine, folder, key)
    if found is not None:
        return found
    module = _compile(engine, source)
    # Without room, or without the right to, it is compiled again next time.
    with contextlib.suppress(OSError):
        _store(folder, key, bytes(module.serialize()), bytes_max)
    return module


def _compile(engine: wasmtime.Engine, source: bytes) -> wasmtime.Module:
    try:
        return wasmtime.Module(engine, source)
    except wasmtime.WasmtimeError as error:
        raise PrepareFailedError(f"{error}"[:1000], invalid=True, field="program") from error


def is_private(folder: Path) -> bool:
    """Make the folder, if it is missing; False when it is not there, or others could write."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_MAY_WRITE


def _key(source: bytes) -> str:
    engine = hashlib.sha256(f"{_VERSION} {_cpu()}".encode()).hexdigest()[:16]
    return f"{hashlib.sha256(source).hexdigest()}-{engine}-"


def _linuxs_extensions() -> set[str]:
    lines = CPU.read_text(errors="replace").splitlines()
    return {line for line in lines if line.lower().startswith(("flags", "features"))}


def _macs_extensions() -> set[str]:
    """What the model's name does not tell (Apple silicon) its features do (Intel)."""
    return {sysctl.text(f"machdep.cpu.{name}") for name in _MACS_NAMES}


_extensions = _macs_extensions if sys.platform == "darwin" else _linuxs_extensions


def _cpu() -> str:
    """Machine and instruction set extensions."""
    try:
        found = sorted(_extensions())
    except OSError:
        found = []
    return " ".join([platform.machine(), *found])


def _find(engine: wasmtime.Engine, folder: Path, key: str) -> wasmtime.Module | None:
    """The module under this key, if it is as we wrote it; one that is not is removed."""
    for entry in folder.glob(f"{key}*{_SUFFIX}"):
        # OSError: it was removed under our eyes by who needed the room.
        with contextlib.suppress(OSError):
            with entry.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if entry.name == f"{key}{digest}{_SUFFIX}":
                os.utime(entry)
                with contextlib.suppress(wasmtime.WasmtimeError):
                    return wasmtime.Module.deserialize_file(engine, str(entry))
            entry.unlink()
    return None


def _store(folder: Path, key: str, compiled: bytes, bytes_max: int) -> None:
    """Write it whole or not at all, in the place of what was not used for longest.

    Raises:
        OSError: it can't be written.
    """
    if len(compiled) > bytes_max:
        return
    _make_room(folder, bytes_max - len(compiled))
    fd, partial = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(compiled)
            file.flush()
            os.fsync(file.fileno())
        digest = hashlib.sha256(compiled).hexdigest()
        Path(partial).replace(folder / f"{key}{digest}{_SUFFIX}")
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise


def _make_room(folder: Path, bytes_max: int) -> None:
    """Remove modules until no more than this is left, and what killed writers left behind."""
    total_bytes = 0
    for used_at, size_bytes, entry in sorted(_entries(folder), reverse=True):
        total_bytes += size_bytes
        abandoned = entry.suffix != _SUFFIX and used_at < time.time() - _PARTIAL_S
        if abandoned or total_bytes > bytes_max:
            entry.unlink(missing_ok=True)


def _entries(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file was used last, its size and its name."""
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # somebody else makes room as well
            found = entry.lstat()
            yield found.st_mtime, found.st_size, entry
