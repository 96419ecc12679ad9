"""Matrices in numpy's file format, and their product, without numpy."""

import ast
import struct
from pathlib import Path

Matrix = list[list[int]]


def write(path: Path, matrix: Matrix, kind: str = "<f4") -> None:
    shape = (len(matrix), len(matrix[0]))
    header = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    values = [value for row in matrix for value in row]
    body = struct.pack(f"<{len(values)}f", *values)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body)


def read(path: Path) -> Matrix:
    content = path.read_bytes()
    start = 10 + struct.unpack("<H", content[8:10])[0]
    assert (content[:8], start % 64) == (b"\x93NUMPY\x01\x00", 0)
    header = ast.literal_eval(content[10:start].decode())
    assert (header["descr"], header["fortran_order"]) == ("<f4", False)
    rows, columns = header["shape"]
    values = struct.unpack(f"<{rows * columns}f", content[start:])
    return [list(map(int, values[row * columns : (row + 1) * columns])) for row in range(rows)]


def sample(rows: int, columns: int, step: int) -> Matrix:
    """Small whole numbers: their products are exact, in whatever order they are added."""
    return [
        [(row * step + column * 7) % 13 - 6 for column in range(columns)] for row in range(rows)
    ]


def product(a: Matrix, b: Matrix) -> Matrix:
    columns = list(zip(*b, strict=True))
    return [[sum(map(int.__mul__, row, column)) for column in columns] for row in a]
