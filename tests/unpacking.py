"""Images unpacked below a folder, for the tests of what becomes of them."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lender.sandbox.files import rootfs, scratch, tar_tree
from lender.sandbox.files.rootfs import Rootfs
from lender.sandbox.port import PrepareFailedError

Obtain = Callable[..., Rootfs]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of short name, with a file beside the cache that nothing may touch."""
    made = Path(tempfile.mkdtemp(prefix="lender-rootfs-"))
    (made / "owners").write_bytes(b"the owner's")
    yield made
    assert (made / "owners").read_bytes() == b"the owner's"
    assert {path.name for path in made.iterdir()} <= {"owners", "archive", "cache"}
    assert not list((made / "cache").glob(".partial-*")), "something half unpacked was left"
    scratch.remove(made)


@pytest.fixture
def obtain(place: Path) -> Iterator[Obtain]:
    held = []

    def unpack(content: bytes, limit_bytes: int | None = 1 << 30) -> Rootfs:
        (place / "archive").write_bytes(content)
        held.append(rootfs.obtain(place / "archive", place / "cache", limit_bytes))
        return held[-1]

    yield unpack
    for one in held:
        one.close()


def refused(obtain: Obtain, content: bytes, limit_bytes: int | None = 1 << 30) -> str:
    """Why it is not unpacked: the job's own fault."""
    with pytest.raises(PrepareFailedError) as caught:
        obtain(content, limit_bytes)
    assert caught.value.invalid, caught.value.reason
    assert caught.value.field == "program"
    return caught.value.reason


def content_of(root: Path) -> dict[str, bytes | str | None]:
    """Each name below a tree: a file's content, a link's target, None for a folder."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    for name in tar_tree.MOUNT_POINTS:
        assert found.pop(name, "missing") is None
    return found
