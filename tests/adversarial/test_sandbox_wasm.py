"""Attacks from inside the wasm sandbox. Each is tried for real and must fail."""

import asyncio
import os
import stat
from pathlib import Path

import pytest
import wasmtime
from sandboxes import LIMITS, PROGRAMS, Workshop, module, open_folder, until, workshop

from lender.sandbox.files import outputs
from lender.sandbox.files.outputs import OutputRefusedError
from lender.sandbox.port import PrepareFailedError, SandboxGoneError
from lender.sandbox.processes import tree

__all__ = ["open_folder", "workshop"]  # fixtures


def opening(path: str) -> bytes:
    """A module that exits with WASI's error number of opening a path, 0 where it could."""
    size = len(path)
    return module(
        f"(call $proc_exit (call $open (i32.const 256) (i32.const {size}) (i32.const 0)"
        " (i64.const 2)))",
        path,
    )


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../program.wasm", "a/../../program.wasm", "../../etc/hostname"]
)
async def test_no_path_leads_out_of_the_folder(workshop: Workshop, path: str) -> None:
    sandbox = await workshop.prepared("wasm", opening(path))
    assert (await sandbox.run(0)).exit_code not in {0, None}


async def test_a_link_leads_nowhere(workshop: Workshop) -> None:
    """Neither one that the guest makes, nor one that is there by accident."""
    secret = workshop.file("secret", b"owner's")
    target = str(secret)
    size = len(target)
    sandbox = await workshop.prepared(
        "wasm",
        module(
            f"(drop (call $path_symlink (i32.const 256) (i32.const {size}) (i32.const 3)"
            f" (i32.const {256 + size}) (i32.const 3)))"
            f"(call $proc_exit (call $open (i32.const {256 + size}) (i32.const 3) (i32.const 0)"
            " (i64.const 2)))",
            f"{target}out",
        ),
    )
    assert (await sandbox.run(0)).exit_code not in {0, None}
    (workshop.scratch / "made").symlink_to(secret)
    with pytest.raises(OutputRefusedError):
        outputs.collect(workshop.scratch, ["made"], 1000)
    assert secret.read_bytes() == b"owner's"


async def test_an_input_that_a_task_replaced_is_restored(workshop: Workshop) -> None:
    source = workshop.file("blob", b"as it was")
    sandbox = await workshop.prepared("wasm", "copy", inputs={"in.txt": source})
    assert (await sandbox.run(0)).exit_code == 0
    placed = workshop.scratch / "in.txt"
    assert stat.S_IMODE(placed.stat().st_mode) == 0o444
    placed.unlink()
    placed.symlink_to("/etc/hostname")
    assert (await sandbox.run(1)).exit_code == 0
    (collected,) = outputs.collect(workshop.scratch, ["out.txt"], 100)
    with os.fdopen(collected.fd, "rb") as file:
        assert file.read() == b"as it was"


@pytest.mark.parametrize(
    "text",
    [
        '(module (memory (export "memory") 60000) (func (export "_start")))',
        '(module (memory (export "memory") 1) (table 100000000 funcref) (func (export "_start")))',
    ],
)
async def test_a_module_that_starts_too_large_fails(workshop: Workshop, text: str) -> None:
    sandbox = await workshop.prepared("wasm", bytes(wasmtime.wat2wasm(text)))
    assert (await sandbox.run(0)).state == "failed"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const -1)))", "out of bounds"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "divide by zero"),
    ],
)
async def test_a_trap_is_a_failure_with_its_cause(
    workshop: Workshop, body: str, error: str
) -> None:
    sandbox = await workshop.prepared("wasm", module(body))
    outcome = await sandbox.run(0)
    assert (outcome.state, outcome.exit_code, outcome.limit) == ("failed", None, None)
    assert error in (outcome.error or "")


async def test_endless_recursion_is_a_failure(workshop: Workshop) -> None:
    text = (
        '(module (memory (export "memory") 1) (func $f (call $f) (call $f))'
        ' (func (export "_start") (call $f)))'
    )
    sandbox = await workshop.prepared("wasm", bytes(wasmtime.wat2wasm(text)))
    outcome = await sandbox.run(0)
    assert "stack exhausted" in (outcome.error or "")
    assert (await sandbox.run(1)).state == "failed", "the sandbox goes on"


@pytest.mark.parametrize(
    "text",
    [
        '(module (import "env" "x" (func)) (memory (export "memory") 1) (func (export "_start")))',
        '(module (func (export "_start")))',
        '(module (memory (export "memory") 1))',
    ],
)
async def test_what_is_no_wasi_command_fails_to_prepare(workshop: Workshop, text: str) -> None:
    with pytest.raises(PrepareFailedError) as caught:
        await workshop.prepared("wasm", bytes(wasmtime.wat2wasm(text)))
    assert (caught.value.invalid, caught.value.field) == (True, "program")


async def test_the_sandbox_process_holds_nothing_of_the_daemons(workshop: Workshop) -> None:
    sandbox = await workshop.prepared("wasm", "sleep")
    running = asyncio.create_task(sandbox.run(0))
    (root,) = sandbox.root_pids
    process = Path(f"/proc/{root.pid}")
    assert (process / "environ").read_bytes().strip(b"\0") == b""
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert "Max core file size        1                    1" in (process / "limits").read_text()
    for fd in (process / "fd").iterdir():
        target = str(fd.readlink())
        assert target == "/dev/null" or target.startswith(
            ("socket:", "pipe:", "anon_inode:", str(workshop.scratch))
        ), target
    await sandbox.close()
    with pytest.raises(SandboxGoneError):
        await running


async def test_a_compiled_module_that_was_tampered_with_is_not_needed(workshop: Workshop) -> None:
    for _ in range(2):
        sandbox = await workshop.prepared("wasm", "hello")
        assert (await sandbox.run(0)).value == b"hello"
        await sandbox.close()
        (entry,) = workshop.cache.iterdir()
        entry.write_bytes(entry.read_bytes()[:100])  # as a power loss would leave it


async def test_a_cache_that_others_can_write_is_not_used(workshop: Workshop) -> None:
    workshop.cache.chmod(0o777)
    sandbox = await workshop.prepared("wasm", "hello")
    assert (await sandbox.run(0)).value == b"hello"
    assert list(workshop.cache.iterdir()) == []


async def test_a_guest_that_never_returns_is_stopped_and_killed_like_any(
    workshop: Workshop,
) -> None:
    for program in ("spin", "sleep"):
        assert program in PROGRAMS
        sandbox = await workshop.prepared("wasm", program, limits=LIMITS)
        running = asyncio.create_task(sandbox.run(0))
        (root,) = sandbox.root_pids
        assert (await asyncio.to_thread(tree.freeze, [root])).verified
        await sandbox.close()
        with pytest.raises(SandboxGoneError):
            await running
        await until(lambda root=root: not tree.alive(root), "it is dead")
