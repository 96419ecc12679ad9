"""Text of files that people write by hand; it may be a stranger's, so it is bounded."""

import re
from pathlib import Path

BYTES_MAX = 1 << 20
"""What such a file may describe is far less."""

_DEEP = re.compile(r"""(?:[\w"'-]+\s*\.\s*){40}""")
"""A key of so many parts: what reads TOML takes memory by their square."""


def read_bounded(path: Path) -> str:
    """Return what a file holds, to be read as TOML.

    Raises:
        OSError: it can't be read.
        ValueError: it is no text, or more than anyone writes.
    """
    with path.open("rb") as file:
        content = file.read(BYTES_MAX + 1)
    if len(content) > BYTES_MAX:
        raise ValueError(f"such a file has at most {BYTES_MAX} bytes")
    text = content.decode()
    if _DEEP.search(text):
        raise ValueError("nested too deeply")
    return text
