"""Files that are whole after a crash or a power cut: the old content or the new, nothing between.

Standard library only: the owner's verbs use it without the daemon.
"""

import contextlib
import fcntl
import os
import sys

StrPath = str | os.PathLike[str]


def write_whole(path: StrPath, content: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Put `content` at `path`: temporary file, fsync, rename, fsync of the folder.

    Readers ignore names with a leading dot, so an interrupted call leaves nothing that counts.

    Args:
        path: an existing file is replaced.
        content: all of it.
        mode: permission bits of the file.
        durable: False leaves both fsyncs out: whole for every reader of this boot, but a power
            cut may undo it.

    Raises:
        OSError: nothing was changed at `path` (full disk, no permission), or only the folder's
            fsync failed; either way the content is not known to be durable.
    """
    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".{name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(draft, flags, mode)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(handle, left) :]
            if durable:
                sync(handle)
        finally:
            os.close(handle)
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    if durable:
        sync_folder(folder or ".")


if sys.platform == "darwin":

    def sync(handle: int, *, content_only: bool = False) -> None:  # noqa: ARG001 - see below
        """See below. There fsync(2) leaves it in the drive's cache; not yet run on a Mac."""
        try:
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        except OSError:  # a file system that has no such (fcntl(2), F_FULLFSYNC)
            os.fsync(handle)

else:

    def sync(handle: int, *, content_only: bool = False) -> None:
        """Make an open file survive a power cut.

        Args:
            handle: open for reading or writing; a folder, too.
            content_only: its times may be lost, where that makes it faster.

        Raises:
            OSError: it is not known to.
        """
        if content_only:
            os.fdatasync(handle)
        else:
            os.fsync(handle)


def sync_folder(folder: StrPath) -> None:
    """Make renames and removals in `folder` survive a power cut."""
    _sync(folder, os.O_DIRECTORY)


def sync_file(path: StrPath) -> None:
    """Make the content of a plain file survive a power cut; its name is its folder's matter."""
    _sync(path, os.O_NOFOLLOW)


def _sync(path: StrPath, flag: int) -> None:
    handle = os.open(path, os.O_RDONLY | flag | os.O_CLOEXEC)
    try:
        sync(handle)
    finally:
        os.close(handle)
