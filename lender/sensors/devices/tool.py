"""Runs a program for what it prints: for so long, so much of it, and nothing of it stays behind."""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence

_SEARCH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/run/current-system/sw/bin"
_CHUNK_BYTES = 1 << 14
_END_S = 1.0


class ToolError(Exception):
    """It could not be run, failed, took too long or said too much; the text says which."""


def where(name: str) -> str | None:
    """Return where a program is installed that is not in this user's own folders."""
    return shutil.which(name, path=_SEARCH)


def printed(argv: Sequence[str], within_s: float, bytes_max: int) -> bytes:
    """Return the standard output of a program that ends with 0.

    Raises:
        ToolError: see there.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": _SEARCH, "LC_ALL": "C"},
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise ToolError(f"{argv[0]} can't be run: {error}") from error
    try:
        return _read(process, argv[0], time.monotonic() + within_s, bytes_max)
    finally:
        # Whatever it has started, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        # One that hangs in a driver is not to hold us as well: its parent's end takes it along.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)


def _read(process: subprocess.Popen[bytes], name: str, until: float, bytes_max: int) -> bytes:
    assert process.stdout is not None
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, until - time.monotonic())):
            chunk = os.read(process.stdout.fileno(), _CHUNK_BYTES)
            said += chunk
            if len(said) > bytes_max:
                raise ToolError(f"{name} says more than {bytes_max} bytes")
            if not chunk:
                return _ended(process, name, said, until)
    raise ToolError(f"{name} gave no answer in time")


def _ended(process: subprocess.Popen[bytes], name: str, said: bytes, until: float) -> bytes:
    try:
        code = process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{name} gave no answer in time") from error
    if code != 0:
        raise ToolError(f"{name} failed ({code})")
    return said
