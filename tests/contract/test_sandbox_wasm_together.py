"""Short wasm tasks are run one right after the other: each is still a task of its own."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
import wasmtime
from sandboxes import LIMITS, Workshop, open_folder, workshop

from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits, TaskOutcome

__all__ = ["open_folder", "workshop"]  # fixtures

_PATIENCE_S = 30


def command(body: str, memory: str = "2") -> bytes:
    """A module that reaches nothing but its words, its exit code and its standard output.

    `$first` of it is the first letter of its only argument; `$say` writes zeroes.
    """
    text = f"""(module
      (import "wasi_snapshot_preview1" "args_sizes_get"
        (func $sizes (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") {memory}) (global $seen (mut i32) (i32.const 0))
      (func $first (result i32)
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $args (i32.const 1024) (i32.const 4096)))
        (i32.load8_u (i32.load (i32.const 1028))))
      (func $say (param $size i32)
        (i32.store (i32.const 16) (i32.const 32768)) (i32.store (i32.const 20) (local.get $size))
        (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24))))
      (func (export "_start") {body}))"""
    return bytes(wasmtime.wat2wasm(text))


SPINS_AT_3 = command("(if (i32.eq (call $first) (i32.const 51)) (then (loop $l (br $l))))")


async def prepared(
    workshop: Workshop, program: bytes, count: int, limits: Limits = LIMITS
) -> LeaseSandbox:
    plan = workshop.plan("wasm", program, arguments=("{task}",), limits=limits)
    sandbox = workshop.sandbox(plan._replace(task_count=count))
    await sandbox.prepare()
    return sandbox


async def all_of(sandbox: LeaseSandbox, count: int) -> list[TaskOutcome]:
    """As lenderd runs a lease."""
    found: list[TaskOutcome] = []
    while len(found) < count:
        found += await sandbox.run_together(range(len(found), count))
    assert [one.task for one in found] == [*range(count)]
    return found


async def test_each_finds_memory_and_globals_as_the_first_did(workshop: Workshop) -> None:
    changed = "(i32.add (i32.load (i32.const 0)) (global.get $seen))"
    leaves_something = command(
        f"(local $found i32) (local.set $found {changed}) (global.set $seen (i32.const 1))"
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 131072))"
        "(call $exit (i32.add (i32.const 7) (local.get $found)))"
    )
    sandbox = await prepared(workshop, leaves_something, 100)
    assert {one.exit_code for one in await all_of(sandbox, 100)} == {7}


async def test_who_hits_its_time_limit_is_named_and_those_behind_it_run(
    workshop: Workshop,
) -> None:
    sandbox = await prepared(workshop, SPINS_AT_3, 10, LIMITS._replace(time_s=0.5))
    found = await asyncio.wait_for(all_of(sandbox, 10), _PATIENCE_S)
    assert [one.limit for one in found] == [None] * 3 + ["time"] + [None] * 6
    assert [one.state for one in found].count("succeeded") == 9
    assert found[3].duration_s > 0.4


async def test_those_before_one_that_goes_on_are_told_and_the_word_to_end_is_its_own(
    workshop: Workshop,
) -> None:
    sandbox = await prepared(workshop, SPINS_AT_3, 10)
    found: list[TaskOutcome] = []
    while len(found) < 3:
        told = sandbox.run_together(range(len(found), 10))
        found += await asyncio.wait_for(told, _PATIENCE_S)
    assert [(one.task, one.state) for one in found] == [(task, "succeeded") for task in range(3)]
    os.kill(sandbox.root_pids[0].pid, signal.SIGTERM)
    while len(found) < 10:
        found += await sandbox.run_together(range(len(found), 10))
    assert [one.terminated for one in found] == [False] * 3 + [True] * 7
    assert found[3].duration_s > 0
    assert {one.duration_s for one in found[4:]} == {0.0}, "nothing is begun after it"


async def test_what_those_before_have_grown_to_does_not_add_up(workshop: Workshop) -> None:
    """Each takes two thirds of the limit."""
    limits = LIMITS._replace(memory_bytes=96 << 20)
    grows = command(
        "(drop (memory.grow (i32.const 1022)))"
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 67108864))"
    )
    sandbox = await prepared(workshop, grows, 20, limits)
    before = _resident_bytes(sandbox)
    found = await all_of(sandbox, 20)
    assert {(one.state, one.memory_peak_bytes) for one in found} == {("succeeded", 64 << 20)}
    assert _peak_bytes(sandbox) - before < 96 << 20


@pytest.mark.parametrize("ends", ["unreachable", "(call $exit (i32.const 0))"])
async def test_nor_does_what_a_start_function_took_that_failed(
    workshop: Workshop, ends: str
) -> None:
    """Its instance is none that could be asked for its memory, which stands all the same."""
    text = f"""(module
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (func $first (drop (memory.grow (i32.const 319)))
        (memory.fill (i32.const 0) (i32.const 1) (i32.const 20971520)) {ends})
      (start $first) (func (export "_start")))"""
    limits = LIMITS._replace(memory_bytes=24 << 20)
    sandbox = await prepared(workshop, bytes(wasmtime.wat2wasm(text)), 10, limits)
    before = _resident_bytes(sandbox)
    await all_of(sandbox, 10)
    assert _peak_bytes(sandbox) - before < 40 << 20


async def test_the_processor_time_that_is_told_is_what_was_used(workshop: Workshop) -> None:
    counts = command(
        "(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))"
        "(br_if $l (i32.lt_u (local.get $i) (i32.const 3000000))))"
    )
    sandbox = await prepared(workshop, counts, 60)
    before_s = _used_s(sandbox)
    found = await all_of(sandbox, 60)
    told_s = sum(one.cpu_s for one in found)
    assert 0.8 * (_used_s(sandbox) - before_s) < told_s <= _used_s(sandbox)
    assert min(one.cpu_s for one in found) > 0


async def test_values_of_all_sizes_come_together(workshop: Workshop) -> None:
    """Behind a small one that waits, one as large as may be: they are no frame too large."""
    say = (
        "(call $say (if (result i32) (i32.and (call $first) (i32.const 1))"
        " (then (i32.const 60000)) (else (i32.const 16000))))"
    )
    limits = LIMITS._replace(output_bytes=60_000)
    sandbox = await prepared(workshop, command(say), 10, limits)
    found = await all_of(sandbox, 10)
    assert [len(one.value) for one in found] == [16_000, 60_000] * 5


def _status(sandbox: LeaseSandbox, name: str) -> int:
    (root,) = sandbox.root_pids
    lines = Path(f"/proc/{root.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) << 10


def _resident_bytes(sandbox: LeaseSandbox) -> int:
    return _status(sandbox, "VmRSS")


def _peak_bytes(sandbox: LeaseSandbox) -> int:
    return _status(sandbox, "VmHWM")


def _used_s(sandbox: LeaseSandbox) -> float:
    (root,) = sandbox.root_pids
    threads = Path(f"/proc/{root.pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in threads) / 1e9
