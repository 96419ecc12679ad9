"""Attacks by modules: what the engine is given to parse, compile and keep."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
import wasmtime
from arena import Arena, in_one_loop
from attacks import tried_in
from sandboxes import LIMITS, Workshop

from lender.sandbox.plan import Runtime
from lender.sandbox.port import PrepareFailedError

pytestmark = in_one_loop

SMALL = LIMITS._replace(memory_bytes=32 << 20)

NO_COMMANDS = {
    "an import of its own": '(import "env" "x" (func)) (memory (export "memory") 1)'
    ' (func (export "_start"))',
    "an import of an older WASI": '(import "wasi_unstable" "proc_exit" (func (param i32)))'
    ' (memory (export "memory") 1) (func (export "_start"))',
    "no memory": '(func (export "_start"))',
    "no start": '(memory (export "memory") 1)',
}


@pytest.mark.parametrize("name", NO_COMMANDS)
@tried_in("wasm")
async def test_what_is_no_wasi_command_fails_to_prepare(
    arena: Arena, runtime: Runtime, name: str
) -> None:
    text = f"(module {NO_COMMANDS[name]})"
    with pytest.raises(PrepareFailedError) as caught:
        await arena.workshop.prepared(runtime, bytes(wasmtime.wat2wasm(text)))
    assert (caught.value.invalid, caught.value.field) == (True, "program")


HOSTILE_MODULES = {
    "a memory that starts too large": '(memory (export "memory") 60000) (func (export "_start"))',
    "a table that starts too large": (
        '(memory (export "memory") 1) (table 100000000 funcref) (func (export "_start"))'
    ),
    "endless recursion": (
        '(memory (export "memory") 1) (func $f (call $f) (call $f))'
        ' (func (export "_start") (call $f))'
    ),
    "a memory that grows": (
        '(memory (export "memory") 1) (func (export "_start")'
        " (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)"
    ),
    "a table that grows": (
        '(memory (export "memory") 1) (table $t 1 funcref) (func (export "_start")'
        " (loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 100000))"
        " (i32.const -1)))) unreachable)"
    ),
    "two memories": ('(memory (export "memory") 1) (memory 1) (func (export "_start"))'),
    "a memory of 64 bits": '(memory (export "memory") i64 1000000) (func (export "_start"))',
    "a shared memory": '(memory (export "memory") 1 60000 shared) (func (export "_start"))',
    "unreachable": '(memory (export "memory") 1) (func (export "_start") unreachable)',
    "a start that traps": (
        '(memory (export "memory") 1) (func $f unreachable) (start $f) (func (export "_start"))'
    ),
    "a load out of bounds": (
        '(memory (export "memory") 1) (func (export "_start") (drop (i32.load (i32.const -1))))'
    ),
    "a division by zero": (
        '(memory (export "memory") 1)'
        ' (func (export "_start") (drop (i32.div_s (i32.const 1) (i32.const 0))))'
    ),
    "an indirect call into nothing": (
        '(memory (export "memory") 1) (table 1 funcref) (type $t (func))'
        ' (func (export "_start") (call_indirect (type $t) (i32.const 7)))'
    ),
}

REFUSED = {"a shared memory"}
CAUSES = {
    "unreachable": "unreachable",
    "endless recursion": "stack exhausted",
    "a load out of bounds": "out of bounds",
    "a division by zero": "divide by zero",
}


@pytest.mark.parametrize("name", HOSTILE_MODULES)
@tried_in("wasm")
async def test_a_hostile_module_only_fails(arena: Arena, runtime: Runtime, name: str) -> None:
    text = f"(module {HOSTILE_MODULES[name]})"
    preparing = arena.workshop.prepared(runtime, bytes(wasmtime.wat2wasm(text)))
    if name in REFUSED:
        with pytest.raises(PrepareFailedError) as caught:
            await preparing
        assert (caught.value.invalid, caught.value.field) == (True, "program")
        return
    sandbox = await preparing
    for task in (0, 1):  # the sandbox goes on
        outcome = await arena.run(sandbox, task)
        assert (outcome.state, outcome.exit_code) == ("failed", None)
        assert CAUSES.get(name, "") in (outcome.error or "nothing")


@tried_in("wasm")
async def test_tables_hold_no_more_than_memory_may(arena: Arena, runtime: Runtime) -> None:
    """Sixteen of them, each filled: their entries are memory of the process that no guest sees."""
    tables = "".join(f"(table $t{i} 1 funcref)" for i in range(16))
    grow = "".join(f"(drop (table.grow $t{i} (ref.func $f) (i32.const 990000)))" for i in range(16))
    text = (
        f'(module (memory (export "memory") 1) {tables} (func $f) (elem declare func $f)'
        f' (func (export "_start") {grow} (loop $l (br $l))))'
    )
    limits = SMALL._replace(time_s=1.5)
    plan = arena.workshop.plan(runtime, bytes(wasmtime.wat2wasm(text)), limits=limits)
    sandbox = await arena.prepared(plan)
    (root,) = sandbox.root_pids
    before = _resident_bytes(root.pid)
    running = asyncio.create_task(arena.run(sandbox))
    most = 0
    while not running.done():
        most = max(most, _resident_bytes(root.pid))
        await asyncio.sleep(0.02)
    assert (await running).state == "failed"
    assert most - before < 2 * limits.memory_bytes


@tried_in("wasm")
async def test_a_module_that_is_large_to_compile_stays_bounded(
    arena: Arena, runtime: Runtime
) -> None:
    """A megabyte of one function: it may be refused or compiled, at a bounded price."""
    body = "(local.set 0 (i32.add (i32.mul (local.get 0) (i32.const 7)) (local.get 1)))" * 60_000
    text = f'(module (memory (export "memory") 1) (func (export "_start") (local i32 i32) {body}))'
    limits = SMALL._replace(memory_bytes=256 << 20)
    plan = arena.workshop.plan(runtime, bytes(wasmtime.wat2wasm(text)), limits=limits)
    sandbox = arena.workshop.sandbox(plan)
    preparing = asyncio.create_task(sandbox.prepare())
    most = 0
    while not preparing.done():
        for root in sandbox.root_pids:
            most = max(most, _resident_bytes(root.pid))
        await asyncio.sleep(0.02)
    with contextlib.suppress(PrepareFailedError):
        await preparing
    assert most < limits.memory_bytes


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


@tried_in("wasm")
async def test_a_compiled_module_that_was_tampered_with_is_not_needed(
    arena: Arena, runtime: Runtime
) -> None:
    workshop = arena.workshop
    for _ in range(2):
        sandbox = await workshop.prepared(runtime, "hello")
        assert (await sandbox.run(0)).value == b"hello"
        await sandbox.close()
        for entry in _compiled(workshop):
            entry.write_bytes(entry.read_bytes()[:100])  # as a power loss would leave it


@tried_in("wasm")
async def test_a_cache_that_others_can_write_is_not_used(arena: Arena, runtime: Runtime) -> None:
    workshop = arena.workshop
    for entry in _compiled(workshop):
        entry.unlink()
    workshop.cache.chmod(0o777)
    sandbox = await workshop.prepared(runtime, "hello")
    assert (await sandbox.run(0)).value == b"hello"
    assert not _compiled(workshop)


def _compiled(workshop: Workshop) -> list[Path]:
    return [Path(entry) for entry in os.scandir(workshop.cache)]
