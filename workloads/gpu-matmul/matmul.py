"""Multiplies two matrices of numpy's file format on the first GPU that there is.

By the driver's own library alone (CUDA driver API, `libcuda.so.1`), which comes with every NVIDIA
driver and compiles matmul.ptx for the GPU at hand: neither CUDA's toolkit nor a package of Python's
has to be installed. Runs by the lending machine's Python, 3.9 or later, on a little-endian machine.
"""

import ast
import ctypes
import struct
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

TILE = 16  # as in matmul.cu
GRID_ROWS_MAX = 65_535
MAGIC = b"\x93NUMPY"
FAILED, USAGE = 1, 2


class MatmulError(Exception):
    """It can't be multiplied here; says why."""


class Matrix(NamedTuple):
    """Numbers of single precision, row by row."""

    rows: int
    columns: int
    values: array  # type: ignore[type-arg] # older Pythons can't have its argument at run time


def read(path: Path) -> Matrix:
    """Read what numpy.save has written (NEP 1).

    Raises:
        MatmulError: it is no matrix of <f4 in C order.
    """
    with path.open("rb") as file:
        start = file.read(8)
        if start[:6] != MAGIC or start[6:7] not in {b"\x01", b"\x02"}:
            raise MatmulError(f"{path}: not written by numpy.save")
        try:
            form, length = ("<H", 2) if start[6] == 1 else ("<I", 4)
            (header_bytes,) = struct.unpack(form, file.read(length))
            header = ast.literal_eval(file.read(header_bytes).decode("latin-1"))
            kind, (rows, columns) = (header["descr"], header["fortran_order"]), header["shape"]
        except (ValueError, SyntaxError, TypeError, KeyError, struct.error) as error:
            raise MatmulError(f"{path}: no header of a matrix: {error}") from error
        if kind != ("<f4", False):
            raise MatmulError(f"{path}: {header}: wanted is <f4 in C order")
        values = array("f")
        try:
            values.fromfile(file, rows * columns)
        except (EOFError, ValueError) as error:
            raise MatmulError(f"{path}: ends before its last number") from error
    return Matrix(rows, columns, values)


def write(path: Path, matrix: Matrix) -> None:
    """Write it as numpy.save does."""
    shape = (matrix.rows, matrix.columns)
    header = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    padding = -(len(MAGIC) + 4 + len(header) + 1) % 64
    header += b" " * padding + b"\n"
    with path.open("wb") as file:
        file.write(MAGIC + b"\x01\x00" + struct.pack("<H", len(header)) + header)
        matrix.values.tofile(file)


class Gpu:
    """The driver API, with its errors as exceptions; `with Gpu.first() as gpu`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._context = ctypes.c_void_p()
        self._device = ctypes.c_int()

    def call(self, name: str, *arguments: object) -> None:
        """Call a function of the driver's.

        Raises:
            MatmulError: it failed.
        """
        code = getattr(self._library, name)(*arguments)
        if code:
            said = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(said))
            raise MatmulError(f"{name}: {(said.value or b'unknown').decode()} ({code})")

    @classmethod
    @contextmanager
    def first(cls) -> "Iterator[Gpu]":
        """Take the first GPU, whose context ends with this process's use of it.

        Raises:
            MatmulError: there is none.
        """
        try:
            gpu = cls(ctypes.CDLL("libcuda.so.1"))
        except OSError as error:
            raise MatmulError(f"no NVIDIA driver: {error}") from error
        gpu.call("cuInit", 0)
        gpu.call("cuDeviceGet", ctypes.byref(gpu._device), 0)
        gpu.call("cuDevicePrimaryCtxRetain", ctypes.byref(gpu._context), gpu._device)
        try:
            gpu.call("cuCtxSetCurrent", gpu._context)
            yield gpu
        finally:
            gpu._library.cuDevicePrimaryCtxRelease_v2(gpu._device)

    @property
    def name(self) -> str:
        """What its maker calls it."""
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, len(text), self._device)
        return text.value.decode()

    def function(self, ptx: bytes, name: str) -> ctypes.c_void_p:
        """Compile a program for this GPU and return one of its functions."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(ptx))
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    @contextmanager
    def memory(self, size_bytes: int) -> Iterator[ctypes.c_uint64]:
        """Hold so much of the GPU's memory."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size_bytes, 1)))
        try:
            yield address
        finally:
            self._library.cuMemFree_v2(address)

    def launch(
        self, function: ctypes.c_void_p, grid: tuple[int, int], arguments: list[object]
    ) -> None:
        """Run a function by blocks of TILE x TILE threads, and wait for its end."""
        pointers = (ctypes.c_void_p * len(arguments))(
            *(ctypes.cast(ctypes.pointer(one), ctypes.c_void_p) for one in arguments)  # type: ignore[type-var]
        )
        shape = (*grid, 1, TILE, TILE, 1, 0)  # the last: no shared memory beside its own
        self.call("cuLaunchKernel", function, *map(ctypes.c_uint, shape), None, pointers, None)
        self.call("cuCtxSynchronize")


def product(a: Matrix, b: Matrix, ptx: bytes) -> tuple[Matrix, str]:
    """Return A B, and a line on how it went.

    Raises:
        MatmulError: their shapes don't fit, or the GPU can't.
    """
    if a.columns != b.rows:
        raise MatmulError(f"{a.rows} x {a.columns} times {b.rows} x {b.columns} is no product")
    grid = (-(-b.columns // TILE), -(-a.rows // TILE))
    if grid[1] > GRID_ROWS_MAX:
        raise MatmulError(f"more than {GRID_ROWS_MAX * TILE} rows: split A")
    c = Matrix(a.rows, b.columns, array("f", bytes(4 * a.rows * b.columns)))
    sizes = [4 * len(one.values) for one in (a, b, c)]
    with Gpu.first() as gpu:
        name, function = gpu.name, gpu.function(ptx, "matmul")
        with (
            gpu.memory(sizes[0]) as in_a,
            gpu.memory(sizes[1]) as in_b,
            gpu.memory(sizes[2]) as out,
        ):
            for address, one, size in ((in_a, a, sizes[0]), (in_b, b, sizes[1])):
                gpu.call("cuMemcpyHtoD_v2", address, *_host(one, size))
            dimensions = [ctypes.c_uint(one) for one in (a.rows, a.columns, b.columns)]
            began = time.perf_counter()
            if all(grid):
                gpu.launch(function, grid, [in_a, in_b, out, *dimensions])
            took_s = time.perf_counter() - began
            host, size_c = _host(c, sizes[2])
            gpu.call("cuMemcpyDtoH_v2", host, out, size_c)
    flop = 2 * a.rows * a.columns * b.columns
    shape = f"{a.rows} x {a.columns} x {b.columns}"
    return c, f"{name}: {shape} in {took_s * 1e3:.3f} ms, {flop / took_s / 1e9:.1f} GFLOP/s"


def _host(matrix: Matrix, size_bytes: int) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    return ctypes.c_void_p(matrix.values.buffer_info()[0]), ctypes.c_size_t(size_bytes)


def main(arguments: list[str]) -> int:
    """Multiply the first two files into the third; returns the exit code."""
    if len(arguments) != 3:
        print("usage: matmul.py A.npy B.npy PRODUCT.npy", file=sys.stderr)
        return USAGE
    in_a, in_b, out = map(Path, arguments)
    ptx = Path(__file__).with_name("matmul.ptx").read_bytes()
    try:
        made, said = product(read(in_a), read(in_b), ptx)
        write(out, made)
    except (MatmulError, OSError) as error:
        print(f"matmul: {error}", file=sys.stderr)
        return FAILED
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
