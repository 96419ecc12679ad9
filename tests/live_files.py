"""What lies in a folder that others go on working in."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every plain file below `folder`, with what it holds; what goes meanwhile is left out.

    A walk does not mind folders that go, as a glob does.
    """
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    yield path, path.read_bytes()
