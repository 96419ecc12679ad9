"""Tells whether the owner's words on disk have changed, without reading them."""

import os
from collections.abc import Iterable, Iterator

from lender.state.folder import StateFolder

Mark = tuple[str, int, int, int, int, int]
"""Name, inode, size, mode, owner and time of the last change; zeros for what is not there.

Mode and owner decide whether a grant file counts. The time is that of the inode's change (ctime):
nobody can set it back.
"""


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
            yield path, 0, 0, 0, 0, 0
        else:
            told = (status.st_ino, status.st_size, status.st_mode, status.st_uid)
            yield path, *told, status.st_ctime_ns
