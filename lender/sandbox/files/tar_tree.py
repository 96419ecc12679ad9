"""Tar archives laid over each other to a root file system, whatever their authors wanted.

Nothing of an archive is trusted but that it can be read forwards. Its names lead nowhere but below
the root: each link on the way is followed as if the root were `/`, and nobody else changes the tree
meanwhile. Devices and FIFOs are left out, owners and set-id bits too; what is made is read-only.
Entries, depth and bytes are bounded, and so is what a header may have us read at once.

Layers and their whiteouts are those of the OCI image specification ("Image Layer Filesystem
Changeset").
"""

import errno
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, cast

from lender.sandbox.files import copying, scratch
from lender.sandbox.files.copying import PIECE_BYTES_MAX, Readable

ENTRIES_MAX: Final = 300_000
DEPTH_MAX: Final = 128
ENTRY_BYTES: Final = 4096
"""What an entry counts beside its content: it takes an inode and a block."""

MOUNT_POINTS: Final = ("dev", "proc", "tmp", "work")
"""Folders that every finished tree has, for what is mounted over them."""

_LINKS_MAX = 40  # as many as the kernel follows, path_resolution(7)
_WHITEOUT, _OPAQUE, _WHITEOUT_META = ".wh.", ".wh..wh..opq", ".wh..wh."
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MTIME_S_MAX = 1 << 33
_MALFORMED = (
    tarfile.TarError,
    zlib.error,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    ValueError,
)
_REFUSED_BY_KERNEL = {errno.ENAMETOOLONG, errno.ELOOP, errno.EMLINK, errno.EINVAL, errno.EILSEQ}


class ArchiveRefusedError(Exception):
    """An archive is not what may be unpacked.

    Attributes:
        invalid: it is at fault itself; otherwise another machine may take it.
    """

    def __init__(self, reason: str, *, invalid: bool = True) -> None:
        super().__init__(reason)
        self.invalid = invalid


class TarReader:
    """A tar archive, read forwards once. It is the file that `tarfile` reads from.

    Args:
        source: the archive, decompressed.
        spend: called with the size of all that is read; it may raise to end the reading.
        skip: moves the source forwards without reading; None where that can't be done.
    """

    def __init__(
        self,
        source: Readable,
        spend: Callable[[int], None] = lambda _bytes: None,
        skip: Callable[[int], None] | None = None,
    ) -> None:
        self._source = source
        self._spend = spend
        self._skip = skip
        self._at = 0

    def entries(self) -> Iterator[tarfile.TarInfo]:
        """What the archive holds; an entry's content follows from here, until the next one.

        Raises:
            ArchiveRefusedError: it is no tar archive, or a hostile one.
        """
        try:
            archive = tarfile.TarFile(
                fileobj=cast("IO[bytes]", self), encoding="utf-8", errors="surrogateescape"
            )
            entry = archive.next()
        except _MALFORMED as error:
            raise _malformed(error) from error
        while entry is not None:
            # Both would grow with the archive.
            archive.members.clear()  # type: ignore[attr-defined] # typeshed leaves it out
            archive.pax_headers = {}
            yield entry
            try:
                entry = archive.next()
            except _MALFORMED as error:
                raise _malformed(error) from error

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._at

    def seek(self, to: int) -> int:
        """Go forwards, to the end at most."""
        if to < self._at:
            raise ArchiveRefusedError("an entry begins before the one in front of it")
        if self._skip is not None:
            self._skip(to - self._at)
            self._at = to
        while self._at < to and self.read(min(PIECE_BYTES_MAX, to - self._at)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        """So many bytes; fewer at the end only."""
        if not 0 <= size <= PIECE_BYTES_MAX:
            raise ArchiveRefusedError(f"a header of {size} bytes")
        pieces = []
        while size and (piece := self._source.read(size)):
            pieces.append(piece)
            size -= len(piece)
            self._at += len(piece)
            self._spend(len(piece))
        return b"".join(pieces)

    def drain(self) -> None:
        """Read what follows the last entry."""
        while self.read(PIECE_BYTES_MAX):
            pass


class Tree:
    """A root file system in the making.

    Args:
        root: an empty folder that is ours alone.
        spend: see `spend`.

    Attributes:
        spend: called with the size of all that is read and made; it may raise to end it.
    """

    def __init__(self, root: Path, spend: Callable[[int], None]) -> None:
        self.spend = spend
        self._root = os.fspath(root)
        self._entries = 0
        # What this layer brought: its whiteouts hide none of it. None: whiteouts are plain names.
        self._made: set[str] | None = None
        self._last_folder: tuple[list[str], str] | None = None

    def add(self, archive: Readable, *, is_layer: bool) -> None:
        """Lay an archive over what is there, and read it to its very end.

        Args:
            archive: decompressed.
            is_layer: it may hold whiteouts.

        Raises:
            ArchiveRefusedError: it is malformed or hostile. The tree is good for nothing then.
            OSError: it can't be read, or not be written here.
        """
        self._made = set() if is_layer else None
        reader = TarReader(archive, self.spend)
        try:
            for entry in reader.entries():
                self._add(entry, reader)
        except OSError as error:
            if error.errno in _REFUSED_BY_KERNEL:
                raise ArchiveRefusedError(f"a name or link that can't be: {error}") from error
            raise
        except (OverflowError, ValueError) as error:  # a name that holds a zero byte
            raise _malformed(error) from error
        reader.drain()

    def finish(self) -> None:
        """Make the mount points, and the folders read-only.

        Raises:
            OSError: it can't be written.
        """
        for name in MOUNT_POINTS:
            path = f"{self._root}/{name}"
            if not _is_folder(path):
                self._clear(path)
                Path(path).mkdir(0o700)
        for folder, _folders, _files in os.walk(self._root, topdown=False):
            Path(folder).chmod(0o555)

    def _add(self, entry: tarfile.TarInfo, reader: TarReader) -> None:
        self._count()
        parts = split(entry.name)
        if not parts:
            return  # the root itself is ours
        if self._made is not None and parts[-1].startswith(_WHITEOUT):
            self._white_out(parts)
        elif entry.isdir():
            path = self._place(parts)
            if not _is_folder(path):
                self._clear(path)
                Path(path).mkdir(0o700)
        elif entry.issym():
            path = self._place(parts)
            self._clear(path)
            Path(path).symlink_to(entry.linkname or ".")
        elif entry.islnk():
            self._link(split(entry.linkname), parts)
        elif entry.isreg():
            if entry.issparse():
                raise ArchiveRefusedError(f"{entry.name!r} is stored as a sparse file")
            self._write(entry, self._place(parts), reader)

    def _link(self, target: list[str], parts: list[str]) -> None:
        path = self._place(parts)
        source = self._resolved(target) if target else path
        if source != path:
            self._clear(path)
        if not target or not _is_file_or_link(source):
            raise ArchiveRefusedError(f"{'/'.join(parts)!r} is a second name of no file")
        if source != path:
            os.link(source, path, follow_symlinks=False)

    def _write(self, entry: tarfile.TarInfo, path: str, reader: TarReader) -> None:
        self._clear(path)
        reader.seek(entry.offset_data)
        file = os.open(path, _NEW_FILE, 0o600)
        try:
            if not copying.copy(reader, file, entry.size):
                raise ArchiveRefusedError("it is cut off")
            os.fchmod(file, 0o555 if entry.mode & 0o111 else 0o444)
            # Compiled Python is matched with its source by this.
            mtime_s = min(max(int(entry.mtime), 0), _MTIME_S_MAX)
            os.utime(file, (mtime_s, mtime_s))
        finally:
            os.close(file)

    def _white_out(self, parts: list[str]) -> None:
        """Hide what lower layers have: a name, or all that is in a folder."""
        folder, name = self._folder(parts[:-1]), parts[-1]
        if name == _OPAQUE:
            self._hide_below(folder)
        elif not name.startswith(_WHITEOUT_META):  # aufs keeps other things under such names
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in ("", ".", ".."):
                raise ArchiveRefusedError(f"{name!r} hides no name")
            self._hide(f"{folder}/{hidden}")

    def _hide(self, path: str) -> None:
        if self._made is None or path not in self._made:
            self._clear(path)
        elif _is_folder(path):
            self._hide_below(path)

    def _hide_below(self, folder: str) -> None:
        for path in list(Path(folder).iterdir()):
            self._hide(str(path))

    def _place(self, parts: list[str]) -> str:
        """The real path of a name that this layer brings; its folder exists."""
        path = place = self._resolved(parts)
        if self._made is not None:
            while place != self._root and place not in self._made:
                self._made.add(place)
                place = place.rpartition("/")[0]
        return path

    def _resolved(self, parts: list[str]) -> str:
        return f"{self._folder(parts[:-1])}/{parts[-1]}"

    def _folder(self, parts: list[str]) -> str:
        """The real path of a folder, made if it is missing.

        A link on the way leads where it would if the tree were `/`.
        """
        if self._last_folder is not None and self._last_folder[0] == parts:
            return self._last_folder[1]
        here: list[str] = []
        links, pending = 0, parts[::-1]
        while pending:
            part = pending.pop()
            if part == "..":
                del here[-1:]
                continue
            path = "/".join((self._root, *here, part))
            if Path(path).is_symlink():
                links += 1
                target = str(Path(path).readlink())
                if links > _LINKS_MAX:
                    raise ArchiveRefusedError("links that lead in a circle")
                if target.startswith("/"):
                    here = []
                pending += [p for p in reversed(target.split("/")) if p not in ("", ".")]
                continue
            here.append(part)
            self._make_folder(path, len(here))
        found = "/".join((self._root, *here))
        self._last_folder = (parts, found)
        return found

    def _make_folder(self, path: str, depth: int) -> None:
        if depth >= DEPTH_MAX:
            raise ArchiveRefusedError(f"more than {DEPTH_MAX} folders deep")
        if _is_folder(path):
            return
        if os.path.lexists(path):
            raise ArchiveRefusedError("a name below a file")
        self._count()
        Path(path).mkdir(0o700)

    def _clear(self, path: str) -> None:
        if os.path.lexists(path):
            scratch.remove(Path(path))
            self._last_folder = None

    def _count(self) -> None:
        self._entries += 1
        if self._entries > ENTRIES_MAX:
            raise ArchiveRefusedError(f"more than {ENTRIES_MAX} entries")
        self.spend(ENTRY_BYTES)


def split(name: str) -> list[str]:
    """The parts of a name, which is taken to begin at the root.

    Raises:
        ArchiveRefusedError: it climbs.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveRefusedError(f"{name!r} leads out of it")
    return parts


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _is_file_or_link(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _malformed(error: Exception) -> ArchiveRefusedError:
    return ArchiveRefusedError(f"no tar archive that can be read ({error!r})"[:300])
