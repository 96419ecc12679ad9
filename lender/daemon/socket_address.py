"""A name for a Unix socket that the kernel takes, wherever the socket lies. Standard library only.

What `bind` and `connect` are given may be no longer than sockaddr_un has room for (unix(7): 108
bytes; macOS, sys/un.h: 104), its final zero byte included.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_PATH_BYTES_MAX = 103 if sys.platform == "darwin" else 107
_O_PATH = getattr(os, "O_PATH", 0)
_SHORT = "/tmp"  # noqa: S108 - a folder of our own is made in there


@contextlib.contextmanager
def by_descriptor(path: Path) -> Iterator[str]:
    """Through an open folder, as /proc shows it."""
    folder = os.open(path.parent, _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def by_link(path: Path) -> Iterator[str]:
    """Through a link in a folder that nobody else can write. Not yet run on a Mac."""
    folder = f"{_SHORT}/lender-{os.urandom(8).hex()}"
    os.mkdir(folder, 0o700)  # noqa: PTH102 - plain names: this is part of every `lender pause`
    link = f"{folder}/s"
    try:
        os.symlink(path.parent, link)  # noqa: PTH211
        try:
            yield f"{link}/{path.name}"
        finally:
            os.unlink(link)  # noqa: PTH108
    finally:
        os.rmdir(folder)  # noqa: PTH106


_short_name = by_link if sys.platform == "darwin" else by_descriptor


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """A name of the socket at `path`, good inside of the block.

    Raises:
        OSError: its folder can't be opened, or there is no room for a link.
    """
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        yield str(path)
        return
    with _short_name(path) as name:
        yield name
