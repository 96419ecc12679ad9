"""Unix sockets by a name that the kernel takes, wherever they lie. Standard library only.

What `bind` and `connect` are given may be no longer than sockaddr_un has room for (unix(7): 108
bytes; macOS, sys/un.h: 104), its final zero byte included.
"""

import _socket  # What `socket` wraps in names that cost a bare verb a tenth of its time.
import contextlib
import os
import sys
from collections.abc import Iterator

_PATH_BYTES_MAX = 103 if sys.platform == "darwin" else 107
_O_PATH = getattr(os, "O_PATH", 0)
_SHORT = "/tmp"  # noqa: S108 - a folder of our own is made in there


@contextlib.contextmanager
def by_descriptor(path: str) -> Iterator[str]:
    """Through an open folder, as /proc shows it."""
    parent, name = os.path.split(path)
    folder = os.open(parent, _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def by_link(path: str) -> Iterator[str]:
    """Through a link in a folder that nobody else can write. Not yet run on a Mac."""
    parent, name = os.path.split(path)
    folder = f"{_SHORT}/lender-{os.urandom(8).hex()}"
    os.mkdir(folder, 0o700)
    link = f"{folder}/s"
    try:
        os.symlink(parent, link)
        try:
            yield f"{link}/{name}"
        finally:
            os.unlink(link)
    finally:
        os.rmdir(folder)


_short_name = by_link if sys.platform == "darwin" else by_descriptor


@contextlib.contextmanager
def address_of(path: "str | os.PathLike[str]") -> Iterator[str]:
    """A name of the socket at `path`, good inside of the block.

    Raises:
        OSError: its folder can't be opened, or there is no room for a link.
    """
    name = os.fspath(path)
    if len(os.fsencode(name)) <= _PATH_BYTES_MAX:
        yield name
        return
    with _short_name(name) as short:
        yield short


@contextlib.contextmanager
def connected(path: "str | os.PathLike[str]", timeout_s: float) -> "Iterator[_socket.socket]":
    """A connection to whoever listens at `path`, good inside of the block.

    Args:
        path: of any length.
        timeout_s: bound of each call; 0: none waits.

    Raises:
        TimeoutError, BlockingIOError: it is there, and did not take the connection in time.
        OSError: nobody listens, or it can't be reached.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with address_of(path) as address:
            connection.connect(address)
        yield connection
    finally:
        connection.close()
