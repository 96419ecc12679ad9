"""Finds the places in our code where bytes or text become values."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("lender", "broker", "workloads")

_FUNCTIONS: Final = {
    *("json.loads", "json.load", "tomllib.loads", "tomllib.load", "msgpack.unpackb"),
    *("pickle.loads", "pickle.load", "zlib.decompress", "gzip.GzipFile", "gzip.decompress"),
    *("tarfile.TarFile", "tarfile.open", "wasmtime.Module", "int.from_bytes", "bytes.fromhex"),
    *("struct.unpack", "struct.unpack_from", "TarInfo.frombuf"),
    *("decode", "codec.decode", "decode_results"),
    *("base64.b64decode", "base64.b32decode", "datetime.fromisoformat"),
}
"""By the whole name. `decode` is the codec's: that of bytes is called on an object."""
_METHODS: Final = {
    *("model_validate", "model_validate_json", "validate_python", "validate_json"),
    *("unpack", "unpack_from", "get_next_message"),
}
"""By the last part of the name, whatever they are called on."""


def found() -> set[str]:
    """All of them, as module and function: `lender.protocol.codec.decode`."""
    return {
        f"{module}.{name}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for module in [".".join(path.relative_to(ROOT).with_suffix("").parts)]
        for name in _in(ast.parse(path.read_text()), ())
    }


def _in(node: ast.AST, names: tuple[str, ...]) -> Iterator[str]:
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _in(inner, (*names, inner.name))
        else:
            if isinstance(inner, ast.Call) and _reads(inner.func):
                yield ".".join(names) or "<module>"
            yield from _in(inner, names)


def _reads(called: ast.expr) -> bool:
    name = ast.unparse(called)
    is_method = isinstance(called, ast.Attribute) and called.attr in _METHODS
    return name in _FUNCTIONS or is_method
