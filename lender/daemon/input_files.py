"""The files of the input cache: what lies there after a start, and whether one is still itself."""

import errno
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

from lender.core.kept_blobs import BlobCopy
from lender.daemon.deletion import delete
from lender.state.folder import StateFolder
from lender.state.purge import kept_submitters


class Mark(NamedTuple):
    """What the kernel changes when a file is written, cut or replaced."""

    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


def blob_path(state: StateFolder, blob: BlobCopy) -> Path:
    """`cache/<submitter>/sha256/<first two hex digits>/<sha256>`."""
    return state.inputs(blob.submitter) / blob.sha256[:2] / blob.sha256


def take_stock(state: StateFolder) -> list[tuple[BlobCopy, int]]:
    """Return what lies there and its size, the least recently used first; clear what a crash left.

    Nothing is verified yet. For a daemon that has not begun to fetch, and holds the folder's lock:
    another's transfers would look like leftovers.
    """
    found = []
    for submitter in kept_submitters(state):
        # Not by a pattern of names: `lender revoke` may delete folders while we look.
        for folder, _folders, names in os.walk(state.inputs(submitter)):
            for name in names:
                path, blob = Path(folder) / name, BlobCopy(submitter, name)
                mark = read_mark(path)
                if mark is None or path != blob_path(state, blob):
                    delete(path)
                else:
                    found.append((mark.mtime_ns, blob, mark.size_bytes))
    return [(blob, size_bytes) for _mtime_ns, blob, size_bytes in sorted(found)]


def read_mark(path: Path) -> Mark | None:
    """Read how a plain file stands now; None where there is none."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Mark(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def stamp(path: Path) -> Mark:
    """Make a file read-only for everybody and write down that it was used; return its new mark.

    The kernel dates a write by a clock that ticks every few milliseconds. This date has the
    nanoseconds of another one, so that a write shows also within the same tick.

    Raises:
        OSError: it is gone, or no longer ours.
    """
    now_ns = time.time_ns()
    path.chmod(0o444)
    os.utime(path, ns=(now_ns, now_ns))
    mark = read_mark(path)
    if mark is None:
        raise FileNotFoundError(errno.ENOENT, "removed meanwhile", str(path))
    return mark


def verify(path: Path, sha256: str) -> Mark | None:
    """Read a file through; return its mark if it has this digest, None if not or if it is absent.

    Blocks as long as reading takes.

    Raises:
        OSError: it can't be read.
    """
    if read_mark(path) is None:
        return None
    try:
        mark = stamp(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    return mark if digest == sha256 and read_mark(path) == mark else None
