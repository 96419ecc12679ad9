"""Deletes what is kept of a submitter whose consent was withdrawn: inputs, modules, reports.

Standard library only: lenderd does it when it runs, and `lender revoke` does it in any case.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from lender.sandbox.files import scratch
from lender.state.folder import StateFolder
from lender.state.grant_file import SUBMITTER_PATTERN

_ASIDE = ".purged-"
_WIPE_S = 1.0


def kept_submitters(state: StateFolder) -> set[str]:
    """Return the submitters of whom something may be kept."""
    found = set()
    for folder in (state.cache, state.spool):
        with contextlib.suppress(OSError):
            found |= {path.name for path in folder.iterdir()}
    return {name for name in found if re.fullmatch(SUBMITTER_PATTERN, name)}


def purge(state: StateFolder, submitters: Iterable[str]) -> tuple[int, list[str]]:
    """Delete what is kept of these submitters, and what an interrupted purge left.

    Returns the disk space freed, and what could not be deleted and why.
    """
    freed_bytes, left = 0, []
    folders = [f for s in submitters for f in (state.cache / s, state.reports(s))]
    for folder in (state.cache, state.spool):
        folders += folder.glob(f"{_ASIDE}*")
    for folder in folders:
        freed, fault = remove(folder)
        freed_bytes += freed
        if fault:
            left.append(f"{folder} ({fault})")
    return freed_bytes, left


def set_aside(path: Path) -> Path | None:
    """Take a file or a folder out of the way at once, for `remove`; None where there is none.

    Raises:
        OSError: it could not be renamed.
    """
    aside = path.with_name(f"{_ASIDE}{os.urandom(8).hex()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    return aside


def remove(path: Path) -> tuple[int, str]:
    """Delete a file, or a folder and all below it.

    Returns the disk space that a folder freed, and why something is left.

    Somebody else may delete it as well: what vanishes under our hands is no fault.
    """
    freed_bytes, deadline = 0, time.monotonic() + _WIPE_S
    while True:
        try:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
                with contextlib.suppress(scratch.TooMuchError):
                    freed_bytes = max(freed_bytes, scratch.used_bytes(path))
            scratch.remove(path)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and str(error.filename) == str(path):
                return freed_bytes, ""
            if time.monotonic() > deadline:
                return 0, error.strerror or str(error)
            time.sleep(0.01)
        else:
            return freed_bytes, ""
