"""Which guests get a working folder: those that could see it."""

import pytest
import wasmtime

from lender.sandbox.runtimes.wasm_binding import Command

_WRITE = '"fd_write" (func (param i32 i32 i32 i32) (result i32))'
_OPEN = '"path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32))'
_FOLDERS = '"fd_prestat_get" (func (param i32 i32) (result i32))'
_LIST = '"fd_readdir" (func (param i32 i32 i32 i64 i32) (result i32))'


@pytest.mark.parametrize(
    ("imports", "uses_files"),
    [
        ((), False),
        ((_WRITE,), False),
        ((_WRITE, _OPEN), True),
        ((_FOLDERS,), True),
        ((_LIST,), True),
    ],
)
def test_who_imports_nothing_that_leads_to_it_gets_none(
    imports: tuple[str, ...], *, uses_files: bool
) -> None:
    words = "".join(f'(import "wasi_snapshot_preview1" {one})' for one in imports)
    text = f'(module {words} (memory (export "memory") 1) (func (export "_start")))'
    engine = wasmtime.Engine()
    module = wasmtime.Module(engine, wasmtime.wat2wasm(text))
    assert Command(engine, module).uses_files == uses_files
