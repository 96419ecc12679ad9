"""Attacks on what is taken out of a working folder: outputs by name, and checkpoints.

What is taken out may name nothing but a plain file of the task's own.
"""

import asyncio
import contextlib
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from arena import NAME, SECRET, Arena, in_one_loop
from attacks import Guest, tried_in
from sandboxes import until

from lender.sandbox.files import checkpoint, outputs
from lender.sandbox.files.checkpoint import CheckpointRefusedError
from lender.sandbox.files.outputs import OutputRefusedError
from lender.sandbox.plan import Runtime
from lender.sandbox.port import SandboxGoneError

pytestmark = in_one_loop

# How "out", or what else is asked for, is made to be something else.
DISGUISES = {
    "a link to the owner's": ("os.symlink(T['home'] + '/notes.txt', 'out')", "out"),
    "a link to a file of its own": ("open('a', 'w').close(); os.symlink('a', 'out')", "out"),
    "a link into /proc": ("os.symlink('/proc/self/environ', 'out')", "out"),
    "a magic link": ("os.symlink('/proc/self/fd/0', 'out')", "out"),
    "a link to a folder": (
        "os.mkdir('d'); open('d/out', 'w').close(); os.symlink('d', 'e')",
        "e/out",
    ),
    "a link to the root": ("os.symlink('/', 'd')", "d/etc/hostname"),
    "a link to the owner's home": ("os.symlink(T['home'], 'd')", "d/notes.txt"),
    "a link to itself": ("os.symlink('out', 'out')", "out"),
    "a pipe": ("os.mkfifo('out')", "out"),
    "a second name": ("open('a', 'w').close(); os.link('a', 'out')", "out"),
    "a folder": ("os.mkdir('out')", "out"),
    "a socket": ("socket.socket(socket.AF_UNIX).bind('out')", "out"),
    "a file as a folder": ("open('a', 'w').close()", "a/out"),
    "nothing": ("", "out"),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@tried_in("process")
async def test_outputs_are_plain_files_of_their_own(
    arena: Arena, runtime: Runtime, disguise: str
) -> None:
    making, name = DISGUISES[disguise]
    assert (await arena.attack(runtime, making)).ended
    before = _open_descriptors()
    with pytest.raises(OutputRefusedError) as caught:
        outputs.collect(arena.scratch, [name], 1000)
    assert caught.value.missing == (disguise == "nothing")
    assert _open_descriptors() == before


@tried_in("wasm")
async def test_a_guests_outputs_are_plain_files_of_their_own(
    arena: Arena, runtime: Runtime
) -> None:
    guest = Guest()
    out = "(i32.const 3)"
    for name, target in (
        ("a", f"{arena.owner.home}/notes.txt"),
        ("b", "../../home/notes.txt"),
        ("c", "in.txt"),
        ("d", ".."),
    ):
        guest.do(f"(call $path_symlink {guest.text(target)} {out} {guest.text(name)})")
    guest.do(guest.open("plain", flags=1, rights=64))
    guest.do(
        f"(call $path_link {out} (i32.const 0) {guest.text('plain')} {out} {guest.text('second')})"
    )
    guest.do(f"(call $path_mkdir {out} {guest.text('folder')})")
    await arena.attack(runtime, guest=guest)
    for name in ("a", "b", "c", "d/home/notes.txt", "d", "plain", "second", "folder"):
        with pytest.raises(OutputRefusedError):
            outputs.collect(arena.scratch, [name], 1000)


@pytest.mark.parametrize(
    "name",
    [
        "../../home/notes.txt",
        "../home",
        "/etc/hostname",
        "a/../../../home/notes.txt",
        "a/..",
        "..",
        ".",
        "",
        "/",
        "x\0y",
        "\ud800",
        "x" * 300,
        "a/" * 3000 + "x",
    ],
)
@tried_in("process")
async def test_an_output_name_cannot_lead_out(arena: Arena, runtime: Runtime, name: str) -> None:
    await arena.attack(runtime, "os.mkdir('a')")
    before = _open_descriptors()
    with pytest.raises(OutputRefusedError):
        outputs.collect(arena.scratch, [name], 1000)
    assert _open_descriptors() == before


@tried_in("process")
async def test_strange_names_are_taken_as_they_are(arena: Arena, runtime: Runtime) -> None:
    names = ["new\nline", "-rf", " ", "*", "\x1b[2J", "d/e/f/" + "g" * 255, "~", "$HOME", "%s"]
    code = f"""
for name in {names!r}:
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as file: file.write(name)
"""
    assert (await arena.attack(runtime, code)).ended
    for one in outputs.collect(arena.scratch, names, 10_000):
        with os.fdopen(one.fd, "rb") as file:
            assert file.read().decode() == one.name


@tried_in("process")
async def test_a_deep_tree_is_no_way_around(arena: Arena, runtime: Runtime) -> None:
    code = """
for _ in range(300):
    os.mkdir("d")
    os.chdir("d")
open("out", "w").close()
"""
    assert (await arena.attack(runtime, code)).ended
    before = _open_descriptors()
    for one in outputs.collect(arena.scratch, ["d/" * 300 + "out"], 1000):
        os.close(one.fd)  # its name is long, and all of it is below
    assert _open_descriptors() == before


@tried_in("process")
async def test_outputs_over_their_bound_are_refused_together(
    arena: Arena, runtime: Runtime
) -> None:
    """A sparse file counts by what a reader would have to carry, not by its blocks."""
    code = """
for name, size in (("a", 2), ("c", 600), ("d", 600)):
    with open(name, "wb") as file: file.write(bytes(size))
open("b", "w").close()
os.truncate("b", 3 << 20)
attempt("a sparse file of a terabyte", lambda: os.truncate("b", 1 << 40))
"""
    tried = await arena.attack(runtime, "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + code)
    assert tried.failed, tried.got
    before = _open_descriptors()
    for names in (["a", "b"], ["c", "d"], ["a"] * 501):
        with pytest.raises(OutputRefusedError, match="too large"):
            outputs.collect(arena.scratch, names, 1000)
    assert _open_descriptors() == before
    for one in outputs.collect(arena.scratch, ["a", "c"], 1000):
        os.close(one.fd)
    assert _open_descriptors() == before


@tried_in("process")
async def test_bits_of_privilege_do_not_come_along(arena: Arena, runtime: Runtime) -> None:
    """Only content is taken out; who it belonged to and what it could do stays behind."""
    code = """
for name, mode in (("setuid", 0o4755), ("setgid", 0o2755), ("both", 0o6777), ("secret", 0o000)):
    with open(name, "wb") as file: file.write(b"x")
    os.chmod(name, mode)
"""
    assert (await arena.attack(runtime, code)).ended
    for one in outputs.collect(arena.scratch, ["setuid", "setgid", "both"], 1000):
        assert one.size_bytes == 1
        with os.fdopen(one.fd, "rb") as file:
            assert file.read() == b"x"


CHECKPOINTS = {
    "a link to the owner's": "os.symlink(T['home'] + '/notes.txt', 'checkpoint/x')",
    "a link to the owner's home": "os.symlink(T['home'], 'checkpoint/x')",
    "a link in its own place": "os.rmdir('checkpoint'); os.symlink(T['home'], 'checkpoint')",
    "a pipe in its own place": "os.rmdir('checkpoint'); os.mkfifo('checkpoint')",
    "a file in its own place": "os.rmdir('checkpoint'); open('checkpoint', 'w').close()",
    "a pipe": "os.mkfifo('checkpoint/x')",
    "a socket": "socket.socket(socket.AF_UNIX).bind('checkpoint/x')",
    "a second name": "open('a', 'w').close(); os.link('a', 'checkpoint/x')",
    "a deep tree": "os.makedirs('checkpoint/' + 'd/' * 200)",
    "many files": """
open("checkpoint/0", "w").close()
for i in range(1, 10_001): os.link("checkpoint/0", f"checkpoint/{i}")
""",
    "a sparse file": "open('checkpoint/x', 'w').close(); os.truncate('checkpoint/x', 4 << 20)",
    "a long name": "open('checkpoint/' + 'x' * 255, 'w').close()",
}


@pytest.mark.parametrize("way", CHECKPOINTS)
@tried_in("process")
async def test_a_checkpoint_holds_plain_files_only(
    arena: Arena, runtime: Runtime, way: str
) -> None:
    code = f"os.mkdir('checkpoint')\n{CHECKPOINTS[way]}"
    assert (await arena.attack(runtime, code)).ended
    before = _open_descriptors()
    with pytest.raises(CheckpointRefusedError):
        checkpoint.pack(arena.scratch, 1 << 20)
    assert _open_descriptors() == before


SWAPPED = """
EXCHANGE = 316 if platform.machine() == "x86_64" else 276
pairs = []
os.mkdir("checkpoint")
for folder in ("", "checkpoint/"):
    os.mkdir(folder + "d")
    for name in ("out", "d/notes.txt"):
        with open(folder + name, "w") as file: file.write("mine")
    os.symlink(T["home"] + "/notes.txt", folder + "link")
    os.symlink(T["home"], folder + "away")
    pairs += [(f"{folder}out".encode(), f"{folder}link".encode())]
    pairs += [(f"{folder}d".encode(), f"{folder}away".encode())]
open("ready", "w").close()
while True:
    for one, other in pairs:
        libc.syscall(EXCHANGE, -100, one, -100, other, 2)
"""


@tried_in("process", "python")
async def test_names_that_are_swapped_lead_nowhere(arena: Arena, runtime: Runtime) -> None:
    """Between the look at a name and its opening: a thread that a function left could do that."""
    sandbox = await arena.prepared(arena.plan(runtime, SWAPPED))
    running = asyncio.create_task(sandbox.run(0))
    await until((arena.scratch / "ready").exists, "it swaps")
    before = _open_descriptors()
    ways: list[Callable[[], bytes]] = [
        lambda: _output(arena.scratch, "out"),
        lambda: _output(arena.scratch, "d/notes.txt"),
    ]
    for way in ways:
        taken, refused, deadline = 0, 0, time.monotonic() + 10
        while min(taken, refused) < 20 and time.monotonic() < deadline:
            try:
                assert way() == b"mine"
                taken += 1
            except OutputRefusedError:
                refused += 1
        assert min(taken, refused) > 0, "nothing was swapped"
    for _ in range(300):
        with contextlib.suppress(CheckpointRefusedError):
            assert SECRET.encode() not in (checkpoint.pack(arena.scratch, 1 << 20) or b"")
    assert _open_descriptors() == before
    await sandbox.close()
    with pytest.raises(SandboxGoneError):
        await running


def _output(scratch: Path, name: str) -> bytes:
    (one,) = outputs.collect(scratch, [name], 1000)
    with os.fdopen(one.fd, "rb") as file:
        return file.read()


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o600) -> bytes:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, target, mode
    return made.tobuf(tarfile.USTAR_FORMAT)


_END = bytes(1024)
HOSTILE_ARCHIVES = {
    "a name that leads out": _member("../out"),
    "a name that leads in and out": _member("d/../../out"),
    "an absolute name": _member(f"/tmp/{NAME}"),
    "a link, and a file through it": _member("d", tarfile.SYMTYPE, "..") + _member("d/out"),
    "a hard link": _member("x", tarfile.LNKTYPE, "/etc/hostname"),
    "a device": _member("x", tarfile.CHRTYPE),
    "a pipe": _member("x", tarfile.FIFOTYPE),
    "a file twice": _member("x") + _member("x"),
    "a file as a folder": _member("x") + _member("x/y"),
    "bits of privilege": _member("x", mode=0o6755),
    "nothing": b"",
    "noise": os.urandom(2048),
}


@pytest.mark.parametrize("way", HOSTILE_ARCHIVES)
async def test_an_archive_cannot_lead_out(tmp_path: Path, way: str) -> None:
    """It comes from another machine; what it is trusted for is its hash."""
    _unpack(tmp_path, _member("fine") + _END)
    assert _below(tmp_path) == {"archive", "checkpoint", "fine", "scratch"}
    for end in (_END, b"", bytes(512)):
        if end == _END and not HOSTILE_ARCHIVES[way]:
            continue  # that is an archive of nothing
        with pytest.raises(CheckpointRefusedError):
            _unpack(tmp_path, HOSTILE_ARCHIVES[way] + end)
        assert _below(tmp_path) == {"archive", "checkpoint", "scratch"}


def _unpack(folder: Path, archive: bytes) -> None:
    (folder / "scratch").mkdir(exist_ok=True)
    (folder / "archive").write_bytes(archive)
    checkpoint.unpack(folder / "archive", folder / "scratch", 1 << 20)


def _below(folder: Path) -> set[str]:
    assert not Path(f"/tmp/{NAME}").exists()
    return {path.name for path in folder.rglob("*")}


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
