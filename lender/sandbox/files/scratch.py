"""The scratch folder: place inputs, measure it, wipe it. Nothing here follows a link.

What lies in it was made by a hostile program: names of any bytes, folders deeper than a path can
say or without permissions, links to anywhere. `wipe` and `Inputs.restore` run only while no
process of the sandbox does; but the threads of an interpreter that serves several tasks may.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from lender.sandbox.files import copying
from lender.sandbox.port import PrepareFailedError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = _FOLDER | getattr(os, "O_PATH", 0)  # also of a folder without permissions
_OWNER_ALONE = 0o700
_AHEAD = "ahead-"
_ENTRIES_MAX = 100_000
# More looks for folders that were gone: who is moved away from all of them hides.
_LOOKS_MAX = 4
_COPY_BYTES = 1 << 20


class TooMuchError(Exception):
    """The folder holds more entries than we count, or hides some from us."""


class Inputs:
    """Read-only copies of a plan's inputs in its scratch folder, made again when tampered with."""

    def __init__(self, scratch: Path, inputs: Mapping[str, Path]) -> None:
        self._scratch, self._folder = scratch, str(scratch)
        self._inputs = {check_name(name): path for name, path in inputs.items()}
        self._marks: dict[str, tuple[int, int, int] | None] = {}
        self._is_settled = False
        self.names = frozenset(self._inputs)

    def restore(self) -> None:
        """Bring the folder to what a task may expect: the inputs and nothing else.

        Raises:
            PrepareFailedError: an input can't be read, or two of them collide.
        """
        settled, self._is_settled = self._is_settled, False
        if settled or self._is_restored():
            return
        wipe(self._scratch, self.names)
        for name, source in self._inputs.items():
            target = self._scratch / name
            if name not in self._marks or _mark(target) != self._marks[name]:
                self._place(source, target)
                self._marks[name] = _mark(target)
        # Where case does not matter one may have taken the place of another.
        for name, mark in self._marks.items():
            if _mark(self._scratch / name) != mark:
                raise PrepareFailedError(f"input {name}: another one has the same name here")

    def settle(self) -> int:
        """See what a task left, once nothing of it runs any more; the bytes that it takes.

        Raises:
            TooMuchError: see `used_bytes`.
        """
        self._is_settled = self._is_restored()
        return 0 if self._is_settled else used_bytes(self._scratch, self.names)

    def _is_restored(self) -> bool:
        """Whether one look shows that nothing is to be done, as after most tasks."""
        try:
            if stat.S_IMODE(os.stat(self._folder).st_mode) != _OWNER_ALONE:  # noqa: PTH116
                return False
            found = os.listdir(self._folder)  # noqa: PTH208 - before and after each short task
        except OSError:
            return False
        # What lies in a folder of its own is not among them: then all of it is looked at.
        return len(found) == len(self._inputs) and all(
            name in self._marks and _mark(self._scratch / name) == self._marks[name]
            for name in found
        )

    def _place(self, source: Path, target: Path) -> None:
        try:
            target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(source, target)
        except OSError as error:
            raise PrepareFailedError(f"input {target.name}: {error.strerror}") from error


def check_name(name: str) -> str:
    """A name relative to the scratch folder that can't lead out of it.

    Raises:
        PrepareFailedError: it could.
    """
    path = PurePosixPath(name)
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts or path.name == "":
        raise PrepareFailedError(
            f"{name!r} is no name below the working folder", invalid=True, field="inputs"
        )
    return str(path)


def check_inputs(inputs: Mapping[str, Path]) -> None:
    """Check what is to be mounted into the working folder: names below it, files that are there.

    Raises:
        PrepareFailedError: a name leads out, or a file can't be read.
    """
    for name, path in inputs.items():
        check_name(name)
        if not path.is_file():
            raise PrepareFailedError(f"input {name}: cannot be read")


def holds_only(folder: str, names: Container[str]) -> bool:
    """Whether one look shows that nothing else is in there, as after most tasks.

    Args:
        folder: the scratch folder.
        names: what may be there, by plain names: a folder of theirs would have to be looked into.
    """
    try:
        if stat.S_IMODE(os.stat(folder).st_mode) != _OWNER_ALONE:  # noqa: PTH116 - for each task
            return False
        return all(name in names for name in os.listdir(folder))  # noqa: PTH208 - the same
    except OSError:
        return False


def used_bytes(scratch: Path, without: Iterable[str] = ()) -> int:
    """Disk space taken by the folder's content. Safe beside running tasks.

    A folder that is gone when it is to be looked into may have been moved: looked for again, by its
    inode, until it was met once. What several looks have met counts together.

    Raises:
        TooMuchError: there are too many entries, or some that we may not see, or one folder is
            moved away from every look.
    """
    skipped = {str(scratch / name) for name in without}
    sizes = dict[int, int]()
    hidden = _measure(scratch, skipped, sizes)
    for _ in range(_LOOKS_MAX):
        if not hidden:
            return sum(sizes.values())
        hidden &= _measure(scratch, skipped, sizes)
    raise TooMuchError("a folder is moved away from every look")


def _measure(scratch: Path, skipped: Container[str], sizes: dict[int, int]) -> set[int]:
    """One look: the bytes directly in each folder, by its inode; returns who was met by name alone.

    Raises:
        TooMuchError: see `used_bytes`.
    """
    entries, missed = 0, set[int]()
    folders: list[tuple[str, int | None]] = [(str(scratch), None)]
    while folders:
        path, inode = folders.pop()
        total = 0
        try:
            with _opened(path, inode) as folder, os.scandir(folder) as content:
                for entry in content:
                    entries += 1
                    if entries > _ENTRIES_MAX:
                        raise TooMuchError(f"more than {_ENTRIES_MAX} files")
                    place = f"{path}/{entry.name}"
                    if place in skipped:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((place, entry.inode()))
                    # One that was removed while we looked must not hide those behind it.
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except (FileNotFoundError, NotADirectoryError):
            if inode is not None:
                missed.add(inode)
        except OSError as error:
            raise TooMuchError(f"a folder can't be measured: {error.strerror}") from error
        else:
            sizes[inode or 0] = total
    return missed - sizes.keys()


@contextlib.contextmanager
def _opened(path: str, inode: int | None) -> Iterator[int]:
    """Open the folder that was listed as this inode, if it is still there.

    Raises:
        FileNotFoundError: it is another by now: a link somewhere on its path may lead to the
            owner's, and how a look ends is told to the submitter.
    """
    folder = os.open(path, _FOLDER)
    try:
        if inode is not None and os.fstat(folder).st_ino != inode:
            raise FileNotFoundError(path)
        yield folder
    finally:
        os.close(folder)


def unnamed_bytes(scratch: Path, open_fds: int) -> int:
    """Disk space of files on the folder's device that we hold open and that lost their name.

    Args:
        scratch: the folder.
        open_fds: the list of our descriptors (`confine.OPEN_FDS`), opened while it still could be.
    """
    total, device = 0, scratch.stat().st_dev
    for fd in os.listdir(open_fds):
        try:
            found = os.fstat(int(fd))
        except OSError:
            continue  # closed meanwhile, or what we looked through
        if found.st_nlink == 0 and found.st_dev == device and stat.S_ISREG(found.st_mode):
            total += found.st_blocks * 512
    return total


def remove(left: Path) -> None:
    """Remove a scratch folder and all below it, or whatever stands in its place.

    Raises:
        OSError: something can't be removed, or there is nothing.
    """
    if left.is_symlink() or not left.is_dir():
        left.unlink()
    else:
        wipe(left)
        left.rmdir()


def ahead(place: Path) -> Path:
    """Where this process may make a working folder that is nobody's yet, among all others."""
    return place / f"{_AHEAD}{os.getpid()}"


def remove_ahead(place: Path) -> None:
    """Remove what others have made so and have not needed; nobody of them lives any more."""
    for left in place.glob(f"{_AHEAD}*"):
        with contextlib.suppress(OSError):
            left.rmdir()


def wipe(scratch: Path, keep: Iterable[str] = ()) -> None:
    """Remove the folder's content, but not what `keep` names, and not the folder.

    Raises:
        OSError: something can't be removed.
    """
    # A task may have taken the permissions of its own working folder.
    _unlock(None, str(scratch))
    folder = os.open(scratch, _FOLDER)
    try:
        _wipe(folder, frozenset(keep))
    finally:
        os.close(folder)


def _wipe(folder: int, keep: frozenset[str]) -> None:
    for name in os.listdir(folder):
        below = frozenset(k[len(name) + 1 :] for k in keep if k.startswith(f"{name}/"))
        is_folder = _is_folder(folder, name)
        if below and is_folder:
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                _wipe(inner, below)
            finally:
                os.close(inner)
        elif is_folder:
            _remove_tree(folder, name)
        elif name not in keep:
            os.unlink(name, dir_fd=folder)


def _remove_tree(top: int, name: str) -> None:
    """Remove a folder of any depth: its subfolders are first moved up beside it."""
    pending, moved, prefix = [name], 0, f".wiped-{os.urandom(8).hex()}-"
    while pending:
        current = pending.pop()
        _unlock(top, current)
        inner = os.open(current, _FOLDER, dir_fd=top)
        try:
            for child in os.listdir(inner):  # noqa: PTH208 - a descriptor
                if _is_folder(inner, child):
                    _unlock(inner, child)
                    moved += 1
                    os.rename(child, f"{prefix}{moved}", src_dir_fd=inner, dst_dir_fd=top)
                    pending.append(f"{prefix}{moved}")
                else:
                    os.unlink(child, dir_fd=inner)
        finally:
            os.close(inner)
        os.rmdir(current, dir_fd=top)


def _unlock(folder: int | None, name: str) -> None:
    """Take back a folder's permissions; not those of what a link that stands there by now leads to.

    An interpreter's threads outlive their task, and so may swap one for the other meanwhile.
    """
    if sys.platform != "linux":
        os.chmod(name, _OWNER_ALONE, dir_fd=folder, follow_symlinks=False)
        return
    opened = os.open(name, _PLACE, dir_fd=folder)
    try:
        os.chmod(f"/proc/self/fd/{opened}", _OWNER_ALONE)  # noqa: PTH101 - hundreds of them
    finally:
        os.close(opened)


def _is_folder(folder: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_ctime_ns


def copy(source: Path, target: Path) -> None:
    """Make a read-only copy under a name that is free.

    Raises:
        OSError: it is not free, be it a link's, or the source can't be read.
    """
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            while piece := os.read(reader, _COPY_BYTES):
                copying.write(writer, piece)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
