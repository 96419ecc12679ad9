"""Tells whether the owner's words on disk have changed, without reading them."""

import os
from collections.abc import Iterable, Iterator

from lender.state.folder import StateFolder

Mark = tuple[str, int, int, int]
"""Name, inode, size and time of the last change; zeros for what is not there."""


def marks(state: StateFolder) -> tuple[Mark, ...]:
    """Return what changes with every grant, tombstone and intent; some microseconds a file."""
    return tuple(_marks(_paths(state)))


def _paths(state: StateFolder) -> Iterator[str]:
    yield str(state.intent)
    yield str(state.tombstones)
    yield str(state.grants)
    try:
        yield from sorted(entry.path for entry in os.scandir(state.grants))
    except OSError:
        return


def _marks(paths: Iterable[str]) -> Iterator[Mark]:
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError:
            yield path, 0, 0, 0
        else:
            yield path, status.st_ino, status.st_size, status.st_mtime_ns
