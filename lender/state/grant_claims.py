"""What a grant file that does not count would allow once its fault is mended.

Standard library only: `lender revoke` withdraws such a grant as well, or a `chmod` would bring it
back. Nothing here is consent: a claim says what to withdraw, never what may run.
"""

import os
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lender.state.consent_files import ConsentReading, IgnoredFile
from lender.state.folder import StateFolder
from lender.state.grant_file import (
    GRANT_ID_PATTERN,
    NAME_PATTERN,
    SUBMITTER_PATTERN,
    WORKLOAD_PATTERN,
)

_FILE_BYTES_MAX = 64 * 1024  # no grant file is larger


class GrantClaim(NamedTuple):
    """What such a file is about, whoever owns it or may write it.

    Attributes:
        ids: by its name and by its content; empty: no tombstone can name it.
        submitter: public key; empty if it does not say.
        workload: empty if it does not say.
        name: what the owner calls the submitter; empty if it does not say.
    """

    ids: frozenset[str]
    submitter: str = ""
    workload: str = ""
    name: str = ""


def claims(state: StateFolder, reading: ConsentReading) -> Iterator[tuple[IgnoredFile, GrantClaim]]:
    """Tell what does not count, and its claim. A folder that can't be listed has an empty one."""
    for fault in reading.ignored:
        if fault.path.parent == state.grants:
            yield fault, read_claim(fault.path)
        elif fault.path == state.grants:
            yield fault, GrantClaim(frozenset())


def read_claim(path: Path) -> GrantClaim:
    """Read what can be read of a grant file; its name counts whatever is in it. Raises nothing."""
    table = _table(path)
    ids = {path.name.removesuffix(".toml"), _said(table, "id", GRANT_ID_PATTERN)}
    return GrantClaim(
        frozenset(one for one in ids if re.fullmatch(GRANT_ID_PATTERN, one)),
        _said(table, "submitter", SUBMITTER_PATTERN),
        _said(table, "workload", WORKLOAD_PATTERN),
        _said(table, "name", NAME_PATTERN),
    )


def _said(table: dict[str, Any], key: str, pattern: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) and re.fullmatch(pattern, value) else ""


def _table(path: Path) -> dict[str, Any]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return {}
            content = file.read(_FILE_BYTES_MAX + 1)
        return tomllib.loads(content.decode()) if len(content) <= _FILE_BYTES_MAX else {}
    except (OSError, ValueError, RecursionError):
        return {}
