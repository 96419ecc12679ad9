"""Which modules have tables that stay small: what their instances take is known then."""

import pytest
import wasmtime

from lender.sandbox.runtimes.wasm_tables import are_fixed


@pytest.mark.parametrize(
    ("tables", "fixed"),
    [
        ("", True),
        ("(table 5 5 funcref)", True),
        ("(table 200 200 funcref) (table 56 56 externref)", True),
        ("(table 200 200 funcref) (table 57 57 funcref)", False),
        ("(table 5 funcref)", False),
        ("(table 5 6 funcref)", False),
        ("(table 1 1 funcref) (table 0 300 funcref)", False),
        ("(type $f (func)) (func $g) (table 1 1 (ref $f) (ref.func $g))", False),
    ],
)
def test_tables_that_could_grow_or_are_large_are_not_fixed(tables: str, *, fixed: bool) -> None:
    text = (
        '(module (import "a" "f" (func (param i32)))'
        f' (memory 1) (global i32 (i32.const 1)) (@custom "x" (before first) "abc") {tables})'
    )
    module = bytes(wasmtime.wat2wasm(text))
    assert are_fixed(module, 256) == fixed


@pytest.mark.parametrize(
    "module", [b"", b"\0asm", b"\0asm\1\0\0\0\1", b"\0asm\1\0\0\0\4" + b"\xff" * 6]
)
def test_what_is_no_module_is_not_fixed(module: bytes) -> None:
    assert not are_fixed(module, 256)
