"""A task's checkpoint folder as one archive: out of an ended attempt, into the next one.

The archive is a tar (POSIX.1 ustar) of what lies in `checkpoint/`: regular files and folders, no
times, no owners, the owner's permissions alone. Equal folders make equal archives. Neither side
trusts the other: the folder was filled by a hostile program, and an archive, though it is one of
ours, has passed through other machines.
"""

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lender.protocol.bounds import CHECKPOINT_BYTES_MAX
from lender.sandbox.files import copying
from lender.sandbox.files.scratch import remove
from lender.sandbox.plan import SandboxPlan

FOLDER = "checkpoint"
"""Where a task keeps its durable state, in its working folder."""

ENTRIES_MAX = 10_000
DEPTH_MAX = 32

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: the open would wait for whoever holds a lease on the file, fcntl(2).
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN, _EXECUTABLE = 0o600, 0o700
_BLOCK_BYTES = 512
_END_BYTES = 2 * _BLOCK_BYTES
_COPY_BYTES = 1 << 20
_CLASH = (FileExistsError, FileNotFoundError, NotADirectoryError)


class CheckpointRefusedError(Exception):
    """The folder, or the archive, is not what may go from one attempt to the next."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"checkpoint: {reason}")


def pack(scratch: Path, max_bytes: int) -> bytes | None:
    """Return the archive of a working folder's checkpoint, None if there is nothing in it.

    Only while no process of the sandbox runs, or all stand still. Nothing is followed, and a
    device or a pipe is not even opened.

    Args:
        scratch: the sandbox's working folder.
        max_bytes: of the archive.

    Raises:
        CheckpointRefusedError: it holds links, second names of files, pipes or devices, a name
            that a tar has no room for (100 bytes, 255 with its folders), too many entries, too
            much, or what can't be read.
    """
    try:
        with _opened(scratch, _FOLDER) as outer:
            packing = _Packing(max_bytes, os.fstat(outer).st_dev)
            try:
                os.stat(FOLDER, dir_fd=outer, follow_symlinks=False)
            except FileNotFoundError:
                return None
            with _opened(FOLDER, _FOLDER, outer) as top:
                packing.add_content(top)
    except OSError as error:
        raise CheckpointRefusedError(f"can't be read ({error.strerror})") from error
    return packing.archive()


def unpack(archive: Path, scratch: Path, max_bytes: int) -> None:
    """Make a working folder's checkpoint from an archive, in place of what stands there.

    All of it appears at once: what is ended meanwhile leaves no half of it to be packed next.

    Args:
        archive: a file that nobody changes meanwhile.
        scratch: the working folder of an attempt that has not started.
        max_bytes: of the archive, and so of its content.

    Raises:
        CheckpointRefusedError: it is not as `pack` makes them; the folder is empty then.
        OSError: it can't be read, or not be written here.
    """
    draft = Path(tempfile.mkdtemp(prefix=f".{FOLDER}-", dir=scratch))
    try:
        with archive.open("rb") as file, _opened(draft, _FOLDER) as top:
            _unpack_below(file, top, max_bytes)
    except CheckpointRefusedError:
        remove(draft)
        draft.mkdir(mode=0o700)
        _put(draft, scratch / FOLDER)
        raise
    _put(draft, scratch / FOLDER)


def preload() -> None:
    """Import what `place` needs for an archive, while its files can still be read."""
    import tarfile  # noqa: F401, PLC0415 - only jobs with checkpoints pay for it


def place(plan: SandboxPlan, task: int) -> None:
    """Give a task the checkpoint folder of its earlier attempt, or an empty one if it declares it.

    To be called before each task, when its working folder holds the inputs and nothing else.
    An archive that is refused counts as none: to begin anew is always right, only slower.

    Raises:
        OSError: it can't be read, or not be written here.
    """
    archive = plan.checkpoints.get(task)
    if archive is not None:
        with contextlib.suppress(CheckpointRefusedError):
            unpack(archive, plan.scratch, CHECKPOINT_BYTES_MAX)
    elif plan.checkpoint:
        # Not exist_ok: it looks where a link leads that a thread has just put there.
        with contextlib.suppress(FileExistsError):
            (plan.scratch / FOLDER).mkdir(mode=0o700)


class _Packing:
    """An archive in the making, within its bounds."""

    def __init__(self, max_bytes: int, device: int) -> None:
        self._max_bytes = max_bytes
        self._left_bytes = max_bytes - _END_BYTES
        self._device = device
        self._entries = 0
        self._content = io.BytesIO()

    def archive(self) -> bytes | None:
        """What came together; None if nothing did."""
        if not self._entries:
            return None
        self._content.write(bytes(_END_BYTES))
        return self._content.getvalue()

    def add_content(self, folder: int, path: str = "", depth: int = 1) -> None:
        """Add all that lies in an open folder; `path` is its name, with a slash behind."""
        if depth > DEPTH_MAX:
            raise CheckpointRefusedError(f"more than {DEPTH_MAX} folders deep")
        for name in self._names(folder):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                with _opened(name, _FOLDER, folder) as inner:
                    self._add_header(path + name, inner, is_folder=True)
                    self.add_content(inner, f"{path}{name}/", depth + 1)
            elif stat.S_ISREG(mode):
                with _opened(name, _FILE, folder) as file:
                    self._add_file(path + name, file)
            else:
                raise CheckpointRefusedError(f"{path + name!r} is no file and no folder")

    def _names(self, folder: int) -> list[str]:
        names = []
        with os.scandir(folder) as content:
            for entry in content:
                self._entries += 1
                if self._entries > ENTRIES_MAX:
                    raise CheckpointRefusedError(f"more than {ENTRIES_MAX} files and folders")
                names.append(entry.name)
        return sorted(names)

    def _add_file(self, path: str, file: int) -> None:
        left_bytes = self._add_header(path, file, is_folder=False)
        padding_bytes = -left_bytes % _BLOCK_BYTES
        # Before it is read: a file without blocks on the disk may call itself any size.
        self._spend(left_bytes + padding_bytes)
        while left_bytes:
            piece = os.read(file, min(left_bytes, _COPY_BYTES))
            if not piece:
                raise CheckpointRefusedError(f"{path!r} changed while it was read")
            self._content.write(piece)
            left_bytes -= len(piece)
        self._content.write(bytes(padding_bytes))

    def _add_header(self, path: str, opened: int, *, is_folder: bool) -> int:
        """Add what says of a file or folder, and return the size of what follows."""
        # See `preload`.
        from tarfile import DIRTYPE, REGTYPE, USTAR_FORMAT, TarInfo  # noqa: PLC0415

        found = os.fstat(opened)
        if found.st_dev != self._device:
            raise CheckpointRefusedError(f"{path!r} lies on another file system")
        if not is_folder and (found.st_nlink != 1 or not stat.S_ISREG(found.st_mode)):
            raise CheckpointRefusedError(f"{path!r} has a second name elsewhere")
        self._spend(_BLOCK_BYTES)
        entry = TarInfo(path)
        entry.type = DIRTYPE if is_folder else REGTYPE
        entry.size = 0 if is_folder else found.st_size
        executable = is_folder or found.st_mode & stat.S_IXUSR
        entry.mode = _EXECUTABLE if executable else _PLAIN
        try:
            self._content.write(entry.tobuf(USTAR_FORMAT, "utf-8", "surrogateescape"))
        except ValueError as error:
            raise CheckpointRefusedError(f"{path!r} is too long a name") from error
        return entry.size

    def _spend(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise CheckpointRefusedError(f"more than {self._max_bytes} bytes")


def _unpack_below(file: BinaryIO, top: int, max_bytes: int) -> None:
    from tarfile import DIRTYPE, REGTYPE, HeaderError, TarInfo  # noqa: PLC0415 - see `preload`

    if os.fstat(file.fileno()).st_size > max_bytes:
        raise CheckpointRefusedError(f"more than {max_bytes} bytes")
    for _ in range(ENTRIES_MAX + 1):
        block = file.read(_BLOCK_BYTES)
        if block == bytes(_BLOCK_BYTES):
            if file.read(_BLOCK_BYTES + 1) != bytes(_BLOCK_BYTES):
                raise CheckpointRefusedError("something follows its end")
            return
        try:
            entry = TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except HeaderError as error:
            raise CheckpointRefusedError(f"no archive of ours ({error})") from error
        if entry.type not in (REGTYPE, DIRTYPE) or entry.linkname:
            raise CheckpointRefusedError("holds something that is no file and no folder")
        if entry.mode not in (_PLAIN, _EXECUTABLE) or entry.size < 0:
            raise CheckpointRefusedError("holds permissions or a size that we don't write")
        if entry.type == DIRTYPE:
            if entry.size or entry.mode != _EXECUTABLE:
                raise CheckpointRefusedError("holds a folder that we don't write")
            _make_folder(top, entry.name.rstrip("/"))
        else:
            _make_file(top, entry.name, entry.mode, entry.size, file)
    raise CheckpointRefusedError(f"more than {ENTRIES_MAX} files and folders")


def _make_folder(top: int, path: str) -> None:
    with _parent_of(top, path) as (folder, name):
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except _CLASH as error:
            raise CheckpointRefusedError(f"{path!r} is named twice") from error


def _make_file(top: int, path: str, mode: int, size_bytes: int, source: BinaryIO) -> None:
    with _parent_of(top, path) as (folder, name):
        try:
            target = os.open(name, _NEW_FILE, mode, dir_fd=folder)
        except _CLASH as error:
            raise CheckpointRefusedError(f"{path!r} is named twice") from error
    try:
        if not copying.copy(source, target, size_bytes):
            raise CheckpointRefusedError("is cut off")
    finally:
        os.close(target)
    source.read(-size_bytes % _BLOCK_BYTES)


@contextlib.contextmanager
def _parent_of(top: int, path: str) -> Iterator[tuple[int, str]]:
    """The open folder that a path below `top` lies in, and its last part."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or len(parts) > DEPTH_MAX:
        raise CheckpointRefusedError(f"{path!r} is no name of ours")
    with contextlib.ExitStack() as stack:
        folder = top
        for part in parts[:-1]:
            try:
                folder = stack.enter_context(_opened(part, _FOLDER, folder))
            except _CLASH as error:
                raise CheckpointRefusedError(f"{path!r} lies in no folder of it") from error
        yield folder, parts[-1]


@contextlib.contextmanager
def _opened(path: str | Path, flags: int, folder: int | None = None) -> Iterator[int]:
    opened = os.open(path, flags, dir_fd=folder)
    try:
        yield opened
    finally:
        os.close(opened)


def _put(draft: Path, folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        remove(folder)
    draft.rename(folder)
