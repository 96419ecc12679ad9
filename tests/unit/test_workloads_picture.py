import struct
import zlib
from pathlib import Path

import pytest

from workloads.render.picture import assemble, write_png

# 4 x 2 pixels in 2 x 2 tiles of 2 x 1 pixels; each pixel says where it is.
PICTURE = bytes(value for y in range(2) for x in range(4) for value in (x, y, 0))
TILES = {
    0: bytes([0, 0, 0, 1, 0, 0]),
    1: bytes([2, 0, 0, 3, 0, 0]),
    2: bytes([0, 1, 0, 1, 1, 0]),
    3: bytes([2, 1, 0, 3, 1, 0]),
}


def test_tiles_are_laid_row_by_row() -> None:
    assert assemble(4, 2, 2, 2, TILES) == PICTURE


def test_tiles_of_several_lines_keep_their_lines() -> None:
    left = bytes([0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 0])
    right = bytes([2, 0, 0, 3, 0, 0, 2, 1, 0, 3, 1, 0])
    assert assemble(4, 2, 2, 1, {1: right, 0: left}) == PICTURE


@pytest.mark.parametrize(
    ("size", "tiles", "reason"),
    [
        ((5, 2, 2, 2), TILES, "divided"),
        ((4, 3, 2, 2), TILES, "divided"),
        ((0, 2, 2, 2), TILES, "divided"),
        ((4, 2, 2, 2), {0: TILES[0], 1: TILES[1], 3: TILES[3]}, "the first is 2"),
        ((4, 2, 2, 2), {**TILES, 4: TILES[3]}, "the first is 4"),
        ((4, 2, 2, 2), {**TILES, 2: b"short"}, "tile 2 has 5 bytes instead of 6"),
    ],
)
def test_a_picture_is_never_assembled_from_wrong_tiles(
    size: tuple[int, int, int, int], tiles: dict[int, bytes], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        assemble(*size, tiles)


def decode_png(data: bytes) -> tuple[int, int, bytes]:
    """Read the one kind of PNG that write_png writes, checking every byte of it."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, offset = [], 8
    while offset < len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        body = data[offset + 4 : offset + 8 + length]
        assert struct.unpack_from(">I", data, offset + 8 + length) == (zlib.crc32(body),)
        chunks.append((body[:4], body[4:]))
        offset += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *form = struct.unpack(">IIBBBBB", chunks[0][1])
    assert form == [8, 2, 0, 0, 0]
    lines = zlib.decompress(chunks[1][1])
    step = 1 + 3 * width
    assert len(lines) == step * height
    assert set(lines[::step]) == {0}
    return width, height, b"".join(lines[y * step + 1 : (y + 1) * step] for y in range(height))


def test_a_png_holds_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    write_png(path, 4, 2, PICTURE)
    assert decode_png(path.read_bytes()) == (4, 2, PICTURE)


@pytest.mark.parametrize("size", [(4, 3), (3, 2), (0, 0)])
def test_a_png_of_another_size_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="pixels"):
        write_png(tmp_path / "picture.png", *size, PICTURE)
    assert not (tmp_path / "picture.png").exists()
