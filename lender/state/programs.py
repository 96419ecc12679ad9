"""Which program each workload of a catalogue is pinned to, as far as its description can be read.

Standard library only: `lender grants` compares it with what the owner agreed to. lenderd checks
the descriptions in full, see `catalogue`.
"""

import re
import tomllib
from pathlib import Path

from lender.service.bounded_text import read_bounded
from lender.state.grant_file import SHA256_PATTERN, WORKLOAD_PATTERN

Programs = dict[str, str | None]
"""Workload -> SHA-256 of its program; None: whatever program comes with a job."""


def read_programs(catalogue: Path) -> Programs:
    """Read what can be read; raises nothing, and leaves out what is malformed."""
    found: Programs = {}
    for path in sorted(catalogue.glob("*/workload.toml")):
        try:
            table = tomllib.loads(read_bounded(path))
        except (OSError, ValueError, RecursionError):
            continue
        name, sha256 = table.get("name"), table.get("sha256")
        if isinstance(name, str) and re.fullmatch(WORKLOAD_PATTERN, name) and _is_digest(sha256):
            found[name] = sha256
    return found


def _is_digest(sha256: object) -> bool:
    if sha256 is None:
        return True
    return isinstance(sha256, str) and re.fullmatch(SHA256_PATTERN, sha256) is not None
