"""Real sandboxes for tests: a launcher as an ordinary user, and programs for both runtimes.

As root the launcher drops to nobody, as lenderd would; otherwise it stays who it is.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import wasmtime

from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits, Runtime, SandboxPlan
from lender.sandbox.port import Root
from lender.sandbox.processes import tree
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.walls import bubblewrap

USER = (65534, 65534) if os.getuid() == 0 else None
LIMITS = Limits(
    cpu=1,
    memory_bytes=96 << 20,
    time_s=20.0,
    output_bytes=1 << 20,
    scratch_bytes=4 << 20,
    processes=32,
)
needs_bubblewrap = pytest.mark.skipif(
    bubblewrap.find() is None, reason="bubblewrap (bwrap) is not installed"
)

_WASI = """
(import "wasi_snapshot_preview1" "fd_write"
  (func $fd_write (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_read"
  (func $fd_read (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_open" (func $path_open
  (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_symlink"
  (func $path_symlink (param i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_link"
  (func $path_link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_rename"
  (func $path_rename (param i32 i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_unlink_file"
  (func $path_unlink (param i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_create_directory"
  (func $path_mkdir (param i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_filestat_get"
  (func $path_stat (param i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_fdstat_get"
  (func $fd_stat (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_renumber"
  (func $fd_renumber (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_filestat_set_size"
  (func $fd_set_size (param i32 i64) (result i32)))
(import "wasi_snapshot_preview1" "sock_accept"
  (func $sock_accept (param i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "sock_send"
  (func $sock_send (param i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "sock_recv"
  (func $sock_recv (param i32 i32 i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
(import "wasi_snapshot_preview1" "args_sizes_get"
  (func $args_sizes_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "environ_sizes_get"
  (func $environ_sizes_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "poll_oneoff"
  (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
(memory (export "memory") 2)
(func $write (param $fd i32) (param $at i32) (param $size i32) (result i32)
  (i32.store (i32.const 16) (local.get $at)) (i32.store (i32.const 20) (local.get $size))
  (call $fd_write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24)))
(func $open (param $at i32) (param $size i32) (param $flags i32) (param $rights i64) (result i32)
  (call $path_open (i32.const 3) (i32.const 1) (local.get $at) (local.get $size)
    (local.get $flags) (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 28)))
"""


def module(body: str, data: str = "") -> bytes:
    """A WASI command: `body` is the text of its _start; `data` lies at address 256."""
    text = f'(module {_WASI} (data (i32.const 256) "{data}") (func (export "_start") {body}))'
    return bytes(wasmtime.wat2wasm(text))


# What a test wants done, for each runtime: a module, or a shell script.
PROGRAMS: dict[str, tuple[bytes, str]] = {
    "hello": (
        module("(drop (call $write (i32.const 1) (i32.const 256) (i32.const 5)))", "hello"),
        "printf hello",
    ),
    "fail": (
        module(
            "(drop (call $write (i32.const 2) (i32.const 256) (i32.const 3)))"
            "(call $proc_exit (i32.const 3))",
            "bad",
        ),
        "printf bad >&2; exit 3",
    ),
    "show": (
        module(
            "(drop (call $args_sizes_get (i32.const 0) (i32.const 4)))"
            "(drop (call $args_get (i32.const 1024) (i32.const 4096)))"
            "(drop (call $write (i32.const 1) (i32.const 4096) (i32.load (i32.const 4))))"
            "(drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))"
            "(drop (call $environ_get (i32.const 1024) (i32.const 4096)))"
            "(drop (call $write (i32.const 1) (i32.const 4096) (i32.load (i32.const 4))))"
        ),
        r"""printf '%s\0' program "$@"; env -0 -u PWD""",
    ),
    # Copies in.txt to out.txt; exit code 4 when out.txt is there already.
    "copy": (
        module(
            "(if (call $open (i32.const 256) (i32.const 6) (i32.const 0) (i64.const 2))"
            "  (then (call $proc_exit (i32.const 1))))"
            "(i32.store (i32.const 16) (i32.const 4096))"
            "(i32.store (i32.const 20) (i32.const 4096))"
            "(drop (call $fd_read (i32.load (i32.const 28)) (i32.const 16) (i32.const 1)"
            "  (i32.const 32)))"
            "(if (call $open (i32.const 262) (i32.const 7) (i32.const 5) (i64.const 64))"
            "  (then (call $proc_exit (i32.const 4))))"
            "(drop (call $write (i32.load (i32.const 28)) (i32.const 4096)"
            "  (i32.load (i32.const 32))))",
            "in.txtout.txt",
        ),
        "[ -e out.txt ] && exit 4; cat in.txt > out.txt",
    ),
    "flood": (
        module(
            "(loop $l (drop (call $write (i32.const 1) (i32.const 0) (i32.const 4096))) (br $l))"
        ),
        "while :; do printf %4096s x; done",
    ),
    "spin": (module("(loop $l (br $l))"), "while :; do :; done"),
    # Tells that it started, then sleeps for an hour.
    "sleep": (
        module(
            "(drop (call $write (i32.const 1) (i32.const 256) (i32.const 1)))"
            "(i64.store (i32.const 1024) (i64.const 0))"
            "(i32.store (i32.const 1032) (i32.const 0))"
            "(i32.store (i32.const 1040) (i32.const 1))"
            "(i64.store (i32.const 1048) (i64.const 3600000000000))"
            "(drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1)"
            "  (i32.const 3072)))",
            "s",
        ),
        "printf s; sleep 3600",
    ),
    "hog": (
        module(
            "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"
        ),
        "exec python3 -I -S -c 'x = []\nwhile True: x.append(bytearray(b\"x\" * 1000000))'",
    ),
    "fill": (
        module(
            "(drop (call $open (i32.const 256) (i32.const 3) (i32.const 1) (i64.const 64)))"
            "(loop $l (br_if $l (i32.eqz (call $write (i32.load (i32.const 28)) (i32.const 0)"
            "  (i32.const 65536))))) (call $proc_exit (i32.const 5))",
            "big",
        ),
        "trap '' XFSZ; head -c 100000000 /dev/zero > big || exit 5",
    ),
}


def mounts(pid: int, folder: Path) -> int:
    """How many mounts a process sees, without those beside a temporary folder: others make them."""
    beside = folder.parent
    points = [
        Path(os.fsdecode(line.split()[4].replace(b"\\040", b" ")))
        for line in Path(f"/proc/{pid}/mountinfo").read_bytes().splitlines()
    ]
    return sum(
        point.is_relative_to(folder) or point == beside or not point.is_relative_to(beside)
        for point in points
    )


class Workshop:
    """A launcher and its folders; makes sandboxes and records their roots.

    Attributes:
        roots: every root process that was ever recorded.
        cgroups: where its sandboxes' cgroups are made; None makes none.
    """

    def __init__(self, folder: Path, launcher: Launcher, cgroups: Subtree | None = None) -> None:
        self.folder = folder
        self.launcher = launcher
        self.cgroups = cgroups
        self.roots: list[Root] = []
        self.sandboxes: list[LeaseSandbox] = []
        self.scratch = self.private("scratch")
        self.cache = self.private("modules")

    def private(self, name: str) -> Path:
        """A folder that belongs to the sandboxes' user alone."""
        made = self.folder / name
        made.mkdir(mode=0o700)
        if USER is not None:
            os.chown(made, *USER)
        return made

    def file(self, name: str, content: bytes) -> Path:
        """A file that everybody may read, outside of the scratch folder."""
        made = self.folder / name
        made.write_bytes(content)
        made.chmod(0o644)
        return made

    def plan(
        self,
        runtime: Runtime,
        program: str | bytes,
        *,
        arguments: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        inputs: dict[str, Path] | None = None,
        limits: Limits = LIMITS,
    ) -> SandboxPlan:
        """A plan for one of PROGRAMS, for a module, or for a shell script."""
        wasm, script = (
            PROGRAMS.get(program, (b"", program)) if isinstance(program, str) else (program, "")
        )
        return SandboxPlan(
            lease=f"lease-{len(self.sandboxes)}",
            runtime=runtime,
            job="job-1",
            task_count=8,
            program=self.file("program.wasm", wasm) if runtime == "wasm" else None,
            argv=arguments if runtime == "wasm" else ("sh", "-c", script, "sh", *arguments),
            env=env or {},
            inputs=inputs or {},
            outputs=(),
            limits=limits,
            scratch=self.scratch,
            module_cache=self.cache,
        )

    def sandbox(
        self,
        plan: SandboxPlan,
        before_go: Callable[[Root], None] = lambda _root: None,
        abort_if_exists: tuple[Path, ...] = (),
    ) -> LeaseSandbox:
        """A sandbox that is not prepared yet; `before_go` runs while its process is held."""

        async def record(roots: tuple[Root, ...]) -> None:
            self.roots += roots
            for root in roots:
                before_go(root)

        made = LeaseSandbox(plan, self.launcher, record, abort_if_exists, self.cgroups)
        self.sandboxes.append(made)
        return made

    async def prepared(
        self, runtime: Runtime, program: str | bytes, **wanted: object
    ) -> LeaseSandbox:
        """A sandbox that is ready to run; the rest as for `plan`."""
        made = self.sandbox(self.plan(runtime, program, **wanted))  # type: ignore[arg-type] # passed through
        await made.prepare()
        return made


PATIENCE = float(os.environ.get("LENDER_PATIENCE", "1"))
"""How much slower than others this machine is: an emulated one (tests/vm) sets it."""


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 45.0) -> None:
    """Wait for a condition of the real world, with a bound."""
    deadline = time.monotonic() + timeout_s * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that another user can look through, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="lender-sandbox-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def workshop(open_folder: Path) -> AsyncIterator[Workshop]:
    """A workshop that leaves no process behind, and checks that it didn't."""
    launcher = await Launcher.start(drop_to=USER)
    made = Workshop(open_folder, launcher)
    known = tree.identify(launcher.pid)
    yield made
    for sandbox in made.sandboxes:
        await sandbox.close()
    # What a launch that was given up has left is still on its way out.
    with contextlib.suppress(AssertionError):
        await until(lambda: set(tree.members([known])) <= {known}, "it has no children", 20)
    left = set(tree.members([known])) - {known}
    await launcher.close()
    assert not left, "the launcher had children after all sandboxes were closed"


@pytest.fixture
async def workshop_ahead(open_folder: Path) -> AsyncIterator[Workshop]:
    """One whose launcher keeps a spare; nothing of it is left."""
    launcher = await Launcher.start(drop_to=USER, spare=True)
    made = Workshop(open_folder, launcher)
    yield made
    met = () if launcher.gone.is_set() else tree.members([tree.identify(launcher.pid)])
    for sandbox in made.sandboxes:
        await sandbox.close()
    await launcher.close()
    assert not any(map(tree.alive, met))
