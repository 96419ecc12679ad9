"""Any folder either goes on as it was or is refused; no bytes unpack to anything outside."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lender.sandbox.files.checkpoint import CheckpointRefusedError, pack, unpack

MAX = 1 << 20

names = st.binary(min_size=1, max_size=40).filter(
    lambda name: not {0, 47} & set(name) and name not in (b".", b"..")
)
trees = st.recursive(
    st.binary(max_size=1500),
    lambda inner: st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
).filter(lambda tree: isinstance(tree, dict))


@contextmanager
def folder() -> Iterator[Path]:
    """pytest's own folder is one for all examples."""
    made = Path(tempfile.mkdtemp())
    try:
        yield made
    finally:
        shutil.rmtree(made)


def fill(place: Path, tree: object) -> None:
    place.mkdir()
    assert isinstance(tree, dict)
    for name, inner in tree.items():
        path = place / os.fsdecode(name)
        if isinstance(inner, dict):
            fill(path, inner)
        else:
            path.write_bytes(inner)


def found(place: Path) -> dict[bytes, object]:
    return {
        os.fsencode(one.name): found(one) if one.is_dir() else one.read_bytes()
        for one in place.iterdir()
    }


@given(trees)
def test_a_folder_goes_on_as_it_was(tree: object) -> None:
    with folder() as work:
        fill(work / "checkpoint", tree)
        archive = pack(work, MAX)
        if not tree:
            assert archive is None
            return
        assert archive is not None
        (work / "archive").write_bytes(archive)
        (work / "new").mkdir()
        unpack(work / "archive", work / "new", MAX)
        assert found(work / "new" / "checkpoint") == tree
        assert pack(work / "new", MAX) == archive


@settings(max_examples=200)
@given(
    trees,
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6),
    st.integers(0, 1 << 16),
)
def test_a_damaged_archive_leads_nowhere(
    tree: object, damage: list[tuple[int, int]], cut: int
) -> None:
    with folder() as work:
        fill(work / "checkpoint", tree)
        content = bytearray(pack(work, MAX) or bytes(1024))
        for position, byte in damage:
            content[position % len(content)] = byte
        (work / "archive").write_bytes(content[: len(content) - cut % len(content)])
        (work / "new").mkdir()
        try:
            unpack(work / "archive", work / "new", MAX)
        except CheckpointRefusedError:
            assert found(work / "new") == {b"checkpoint": {}}
        assert {one.name for one in work.iterdir()} == {"checkpoint", "archive", "new"}
        assert [one.name for one in (work / "new").iterdir()] == ["checkpoint"]


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_lead_nowhere(content: bytes) -> None:
    with folder() as work:
        (work / "archive").write_bytes(content)
        (work / "new").mkdir()
        with suppress(CheckpointRefusedError):
            unpack(work / "archive", work / "new", MAX)
        assert found(work / "new") == {b"checkpoint": {}}
