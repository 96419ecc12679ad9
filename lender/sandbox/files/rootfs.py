"""Unpacked root file systems, kept for the next lease: by digest, bounded, shared by processes.

    <folder>/<sha256>-<boot>/root        the tree, read-only
                            /image.json  what the image says, and what the tree counts

A tree appears whole, by a rename. Who uses one holds a shared lock on its folder (flock(2)), which
the kernel lets go when that process ends; who needs the room takes away only what nobody holds, the
least recently used first. One process unpacks at a time, under the lock of `<folder>/.lock`; its
leavings are cleared by the next one. A tree counts for the boot in which it was unpacked only: what
a power cut left of it is never used.

Nothing keeps the user of these processes from writing there, who is also the one that lent the
machine; sandboxes see it through a read-only mount.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import resource
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lender.sandbox.files import scratch
from lender.sandbox.files.images import Image, unpack
from lender.sandbox.files.tar_tree import ArchiveRefusedError, Tree
from lender.sandbox.port import PrepareFailedError

FOLDER: Final = "rootfs"
"""Name of the cache's folder, beside a submitter's module cache."""

ROOTFS_BYTES: Final = 8 << 30
"""What a submitter's trees may take without a setting, archives not counted."""

DISK_SHARE: Final = 4
"""Of a disk that runs full, or a small one, at most one part of so many."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PARTIAL = ".partial-"
_SHA256 = re.compile("[0-9a-f]{64}")
_OTHERS_MAY_WRITE = 0o022
# Address space that unpacking may take beside what this process has already: a hostile archive
# fills memory through what parses it.
_UNPACK_BYTES = 512 << 20
_REASON_CHARS_MAX = 500


class _NoRoomError(Exception):
    """A tree does not fit beside those in use."""


class Rootfs:
    """An unpacked root file system. It stays there while this object is open.

    Attributes:
        root: the tree; read-only, with the folders that are mounted over (`MOUNT_POINTS`).
        image: what the image says; None for a plain root file system.
    """

    def __init__(self, folder: Path, lock: int, image: Image | None) -> None:
        self.root = folder / "root"
        self.image = image
        self._lock: int | None = lock

    def close(self) -> None:
        """Let it be removed; the end of the process does so too. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def obtain(archive: Path, cache: Path, limit_bytes: int | None = None) -> Rootfs:
    """Return the root file system in an archive, unpacked now or earlier.

    To be called in a sandbox's own process: it takes its time, and changes this process's limit of
    address space meanwhile.

    Args:
        archive: a verified blob. If its name is a SHA-256 it is taken to be its own, and checked
            before it is unpacked.
        cache: a folder that nobody but this user can write; made if it is missing.
        limit_bytes: how much all trees may take; None: see `ROOTFS_BYTES` and `DISK_SHARE`.

    Raises:
        PrepareFailedError: it is no such archive, or does not fit, or can't be read.
    """
    try:
        _make_private(cache)
        name = archive.name
        digest = name if _SHA256.fullmatch(name) else _digest(archive)
        place = cache / f"{digest}-{_boot()}"
        found = _take(place)
        if found is None:
            with _locked(cache), _bounded_memory():
                found = _take(place) or _unpack(archive, digest, place, limit_bytes)
    except ArchiveRefusedError as error:
        reason = f"program: {error}"[:_REASON_CHARS_MAX]
        raise PrepareFailedError(reason, invalid=error.invalid, field="program") from error
    except _NoRoomError as error:
        raise PrepareFailedError(f"program: {error}") from error
    except OSError as error:
        raise PrepareFailedError(f"program: can't be unpacked: {error.strerror}") from error
    return found


def _take(place: Path) -> Rootfs | None:
    """Hold a tree that is there whole; None if there is none, or it is being removed."""
    with contextlib.ExitStack() as ours:
        try:
            lock = os.open(place, _FOLDER)
            ours.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # It may have been removed between the two.
            if not os.path.samestat(os.fstat(lock), place.lstat()):
                return None
            image, _size_bytes = _read_about(place)
            os.utime(lock)
        except (FileNotFoundError, BlockingIOError):
            return None
        ours.pop_all()
        return Rootfs(place, lock, image)


def _unpack(archive: Path, digest: str, place: Path, limit_bytes: int | None) -> Rootfs:
    """Make a tree; under the lock."""
    if _digest(archive) != digest:
        raise PrepareFailedError("program: the file is not what its name says")
    room = _Room(place.parent, _suffix(place), limit_bytes)
    partial = place.with_name(f"{_PARTIAL}{secrets.token_hex(8)}")
    partial.mkdir(mode=0o700)
    try:
        root = partial / "root"
        root.mkdir(mode=0o700)
        tree = Tree(root, room.spend)
        image = unpack(archive, tree, partial / "decompressed")
        tree.finish()
        _write_about(partial, image, room.spent_bytes)
        partial.rename(place)
    except BaseException:
        scratch.remove(partial)
        raise
    found = _take(place)
    if found is None:
        raise PrepareFailedError("program: it was purged meanwhile")
    return found


class _Room:
    """What may still be written, by removing others where it must be."""

    def __init__(self, cache: Path, suffix: str, limit_bytes: int | None) -> None:
        self.spent_bytes = 0
        self._kept: list[tuple[Path, int]] = []
        by_use = []
        for path in cache.iterdir():
            if path.name.startswith(_PARTIAL):
                scratch.remove(path)  # we hold the lock: whoever made it is gone
            elif path.is_dir() and (about := _about_kept(path, suffix)) is None:
                _remove_unused(path)
            elif path.is_dir() and about is not None:
                by_use.append((path.lstat().st_mtime_ns, path, about))
        self._kept = [(path, size_bytes) for _used_at_ns, path, size_bytes in sorted(by_use)]
        self._kept_bytes = sum(size_bytes for _path, size_bytes in self._kept)
        if limit_bytes is None:
            free_bytes = shutil.disk_usage(cache).free
            limit_bytes = min(ROOTFS_BYTES, (free_bytes + self._kept_bytes) // DISK_SHARE)
        self._limit_bytes = limit_bytes

    def spend(self, size_bytes: int) -> None:
        """Count what is about to be written.

        Raises:
            _NoRoomError: it does not fit, whatever else is removed.
        """
        self.spent_bytes += size_bytes
        while self._kept_bytes + self.spent_bytes > self._limit_bytes:
            if self.spent_bytes > self._limit_bytes or not self._kept:
                raise _NoRoomError(
                    f"unpacked it does not fit into the {self._limit_bytes} bytes that this lender "
                    f"keeps of images, {self._kept_bytes} of them in use"
                )
            path, freed_bytes = self._kept.pop(0)
            if _remove_unused(path):
                self._kept_bytes -= freed_bytes


def _about_kept(path: Path, suffix: str) -> int | None:
    """What a tree counts; None for one of an earlier boot, and for what is none."""
    if _suffix(path) != suffix:
        return None
    try:
        return _read_about(path)[1]
    except FileNotFoundError:
        return None


def _remove_unused(path: Path) -> bool:
    """Remove a tree that nobody holds; False if somebody does."""
    folder = os.open(path, _FOLDER)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        # Out of the way at once: a removal that is cut short leaves no half of a tree.
        aside = path.with_name(f"{_PARTIAL}{secrets.token_hex(8)}")
        path.rename(aside)
        scratch.remove(aside)
        return True
    finally:
        os.close(folder)


def _write_about(folder: Path, image: Image | None, size_bytes: int) -> None:
    said = None if image is None else {**image._asdict(), "env": dict(image.env)}
    about = json.dumps({"image": said, "size_bytes": size_bytes})
    (folder / "image.json").write_text(about)


def _read_about(folder: Path) -> tuple[Image | None, int]:
    about = json.loads((folder / "image.json").read_text())
    said = about["image"]
    image = None if said is None else Image(tuple(said["argv"]), said["env"], said["folder"])
    return image, about["size_bytes"]


def _make_private(cache: Path) -> None:
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = cache.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & _OTHERS_MAY_WRITE:
        raise PrepareFailedError("program: others can write where it would be unpacked")


def _digest(archive: Path) -> str:
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _boot() -> str:
    """This boot, told apart from all others (random(4), boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "").strip()


def _suffix(place: Path) -> str:
    return place.name.partition("-")[2]


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    lock = os.open(cache / ".lock", _LOCK, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """A soft limit, so that it can be taken back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    wanted = pages * resource.getpagesize() + _UNPACK_BYTES
    if any(limit != resource.RLIM_INFINITY and limit < wanted for limit in (soft, hard)):
        yield  # it is bounded already
        return
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
