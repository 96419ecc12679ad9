# noqa: INP001 - beside scripts that are run by their paths
"""A file of the documentation that is written from the code: written, or held against it."""

import sys
from collections.abc import Sequence
from pathlib import Path


def is_stale(file: Path, text: str) -> bool:
    """Tell whether the file differs from what the code says."""
    return not file.is_file() or file.read_text() != text


def write_or_check(file: Path, text: str, arguments: Sequence[str]) -> int:
    """Write the file, or with `--check` fail where it is stale; returns the exit code."""
    if arguments != ["--check"]:
        file.write_text(text)
    elif is_stale(file, text):
        sys.stderr.write(f"{file} is stale; run make schemas\n")
        return 1
    return 0
