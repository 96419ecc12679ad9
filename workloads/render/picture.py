"""Puts the tiles of a rendered picture together and writes it as a PNG."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

PIXEL_BYTES = 3
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TRUECOLOUR = 2


def assemble(width: int, height: int, columns: int, rows: int, tiles: Mapping[int, bytes]) -> bytes:
    """Return the whole picture: RGB, row by row from the top left.

    Args:
        width: pixels of the whole picture; a multiple of `columns`.
        height: pixels of the whole picture; a multiple of `rows`.
        columns: tiles side by side.
        rows: tiles one above the other.
        tiles: each tile's pixels by its task index, counted row by row from the top left.

    Raises:
        ValueError: the division leaves a remainder; or a tile is missing, surplus or of another
            size.
    """
    if min(width, height, columns, rows) < 1 or width % columns or height % rows:
        raise ValueError(
            f"{width} x {height} pixels can't be divided into {columns} x {rows} tiles"
        )
    tile_height = height // rows
    line_bytes = width // columns * PIXEL_BYTES
    if tiles.keys() != set(range(columns * rows)):
        wrong = sorted(tiles.keys() ^ set(range(columns * rows)))
        raise ValueError(f"{len(wrong)} tiles missing or surplus, the first is {wrong[0]}")
    for task, tile in tiles.items():
        if len(tile) != line_bytes * tile_height:
            raise ValueError(
                f"tile {task} has {len(tile)} bytes instead of {line_bytes * tile_height}"
            )
    return b"".join(
        tiles[row * columns + column][y * line_bytes : (y + 1) * line_bytes]
        for row in range(rows)
        for y in range(tile_height)
        for column in range(columns)
    )


def write_png(path: Path, width: int, height: int, rgb: bytes) -> None:
    """Write an RGB picture, row by row from the top left, as an 8-bit truecolour PNG.

    Source: W3C, Portable Network Graphics (PNG) Specification, sections 5 and 11.

    Raises:
        ValueError: `rgb` is not `width` x `height` pixels.
        OSError: the file could not be written.
    """
    line_bytes = width * PIXEL_BYTES
    if min(width, height) < 1 or len(rgb) != line_bytes * height:
        raise ValueError(f"{len(rgb)} bytes are not {width} x {height} pixels")
    header = struct.pack(">IIBBBBB", width, height, 8, _TRUECOLOUR, 0, 0, 0)
    # Each line begins with its filter type: 0, none.
    lines = b"".join(
        b"\0" + rgb[start : start + line_bytes] for start in range(0, len(rgb), line_bytes)
    )
    path.write_bytes(
        _PNG_SIGNATURE
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(lines))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
